"""STAPLE, SimpleITK's, on made-up observers."""

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.postprocess.confusion_matrix import accuracy, confusion_matrix
from knee3d.postprocess.decision import staple_labels


def test_two_good_observers_outweigh_three_bad_ones_that_a_vote_would_follow():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[5:15, 5:15, 5:10], truth[5:15, 5:15, 10:15] = 1, 2

    def observer(errors: float) -> Volume:
        wrong = rng.random(truth.shape) < errors
        return Volume(np.where(wrong, rng.integers(0, 3, truth.shape), truth).astype(np.uint8), np.eye(4))

    views = [observer(share) for share in (0.02, 0.02, 0.6, 0.6, 0.6)]
    votes = np.stack([[view.array == one for one in range(3)] for view in views]).sum(axis=0).argmax(axis=0)
    fused = staple_labels(views)
    assert fused.array.dtype == np.uint8
    assert fused.same_grid(views[0])
    right = accuracy(confusion_matrix(truth, fused.array, 3))
    assert right > 0.97
    assert right > accuracy(confusion_matrix(truth, votes, 3))


def test_what_all_say_is_said():
    labels = np.random.default_rng(1).integers(0, 4, (8, 9, 10)).astype(np.uint8)
    volume = Volume(labels, np.eye(4))
    np.testing.assert_array_equal(staple_labels([volume] * 3).array, labels)
