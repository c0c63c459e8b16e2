"""Scores, against the paper's numbers, scikit-learn and hand counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from knee3d.postprocess.confusion_matrix import (
    PIECE,
    OverlapScores,
    accuracy,
    cohens_kappa,
    confusion_matrix,
    dice,
    foreground_matrix,
    iou,
    precision,
    recall,
    specificity,
    volume_difference,
)

NAMES = ("femoral cartilage", "tibial cartilage")


def pairs(classes: int):
    return st.tuples(*[arrays(np.uint8, (3, 4, 5), elements=st.integers(0, classes - 1)) for _ in range(2)])


@given(pairs(5))
def test_counts_equal_scikit_learns(pair):
    truth, labels = pair
    expected = metrics.confusion_matrix(truth.ravel(), labels.ravel(), labels=range(5))
    matrix = confusion_matrix(truth, labels, 5)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, 2 * PIECE + 3])
def test_long_arrays_are_counted_like_short_ones(size):
    """Piece by piece, and what is left over."""
    rng = np.random.default_rng(size)
    truth, labels = rng.integers(0, 7, (2, size), dtype=np.uint8)
    expected = metrics.confusion_matrix(truth, labels, labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(truth, labels, 7), expected)
    strided = np.stack([truth, labels], axis=1)
    np.testing.assert_array_equal(confusion_matrix(strided[:, 0], strided[:, 1], 7), expected)


@given(pairs(5), st.permutations(range(5)))
def test_relabelling_permutes_the_matrix(pair, order):
    truth, labels = (np.array(order)[side] for side in pair)
    renamed = confusion_matrix(truth, labels, 5)
    np.testing.assert_array_equal(renamed[np.ix_(order, order)], confusion_matrix(*pair, 5))


@pytest.mark.slow
@given(pairs(4))
def test_scores_equal_scikit_learns(pair):
    """Kappa and accuracy exactly, the scores of a class up to rounding; where scikit-learn warns knee3d says NaN."""
    truth, labels = (side.ravel() for side in pair)
    matrix = confusion_matrix(*pair, 4)
    assert accuracy(matrix) == metrics.accuracy_score(truth, labels)
    kappa = cohens_kappa(matrix)
    if len(np.unique(np.concatenate([truth, labels]))) > 1:
        assert kappa == pytest.approx(metrics.cohen_kappa_score(truth, labels), abs=1e-12)
    else:
        assert np.isnan(kappa)
    every = {"labels": range(4), "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(precision(matrix), metrics.precision_score(truth, labels, **every))
    np.testing.assert_allclose(recall(matrix), metrics.recall_score(truth, labels, **every))
    for found, one in zip(specificity(matrix), range(4), strict=True):
        others = metrics.recall_score(truth != one, labels != one, zero_division=np.nan)
        np.testing.assert_allclose(found, others)


@given(pairs(3))
def test_overlap_equals_medpys(pair):
    binary = pytest.importorskip("medpy.metric.binary")
    scores = OverlapScores(confusion_matrix(*pair, 3), NAMES).measures
    for tissue, name in enumerate(NAMES, start=1):
        truth, labels = (side == tissue for side in pair)
        if truth.any() and labels.any():
            assert scores["dice"][name] == pytest.approx(binary.dc(labels, truth), abs=1e-6)
            assert scores["iou"][name] == pytest.approx(binary.jc(labels, truth), abs=1e-6)
            assert scores["voe"][name] == pytest.approx(1 - binary.jc(labels, truth), abs=1e-6)
            assert scores["volume_difference"][name] == pytest.approx(binary.ravd(labels, truth), abs=1e-6)


def test_more_found_than_there_is_counts_as_more():
    matrix = np.array([[10, 5], [0, 10]])
    assert volume_difference(matrix)[1] == 0.5
    assert np.isnan(volume_difference(np.array([[10, 5], [0, 0]]))[1])
    assert np.isnan(cohens_kappa(np.zeros((2, 2), int)))
    assert np.isnan(accuracy(np.zeros((2, 2), int)))


@given(pairs(4))
def test_dice_is_symmetric_and_tied_to_iou(pair):
    truth, labels = pair
    forward, backward = (confusion_matrix(*order, 4) for order in ((truth, labels), (labels, truth)))
    np.testing.assert_array_equal(dice(forward), dice(backward))
    np.testing.assert_allclose(iou(forward), dice(forward) / (2 - dice(forward)))


@given(pairs(4))
def test_foreground_is_any_tissue(pair):
    truth, labels = pair
    expected = confusion_matrix((truth > 0).astype(int), (labels > 0).astype(int), 2)
    np.testing.assert_array_equal(foreground_matrix(confusion_matrix(truth, labels, 4)), expected)


@pytest.mark.parametrize("classes", [2, 16, 17, 300])
def test_no_count_overflows(classes):
    """The pair of labels is coded in as few bits as it needs, and in no fewer."""
    labels = np.full(70_000, classes - 1)
    matrix = confusion_matrix(labels, labels, classes)
    assert matrix[-1, -1] == 70_000
    assert matrix.sum() == 70_000


def test_the_papers_numbers():
    """254,158 true positives and 48,498 errors, one cell of them 18,045: fused Dice 0.9129."""
    matrix = np.array([[23_000_000, 18_045], [30_453, 254_158]])
    scores = OverlapScores(matrix, ("cartilage",))
    assert round(scores.dice[0], 4) == round(scores.foreground_dice, 4) == 0.9129
    assert scores.foreground_iou == pytest.approx(scores.foreground_dice / (2 - scores.foreground_dice))


def test_an_absent_tissue_is_nan_and_outside_every_mean():
    matrix = np.array([[90, 0, 0], [2, 8, 0], [0, 0, 0]])
    scores = OverlapScores(matrix, ("femoral cartilage", "patellar cartilage"))
    assert np.isnan(scores.dice[1])
    assert np.isnan(scores.iou[1])
    assert scores.mean_dice == pytest.approx(16 / 18)
    assert scores.measures["iou"]["mean"] == pytest.approx(0.8)
    assert scores.mean_iou_classes == pytest.approx((0.8 + 90 / 92) / 2)


def test_a_tissue_on_one_side_only_is_zero():
    assert dice(np.array([[5, 5], [0, 0]]))[1] == 0


def test_pooling_adds_voxels():
    first, second = OverlapScores(np.array([[9, 1], [0, 5]]), ("a",)), OverlapScores(np.array([[8, 0], [3, 1]]), ("a",))
    np.testing.assert_array_equal((first + second).matrix, [[17, 1], [3, 6]])
    with pytest.raises(ValueError, match="cannot pool"):
        first + OverlapScores(second.matrix, ("b",))


@pytest.mark.parametrize(
    ("truth", "labels", "word"),
    [([0, 1], [0], "shape"), ([0, 2], [0, 1], "truth must lie"), ([0, 1], [0, -1], "labels must lie")],
)
def test_what_cannot_be_counted_is_refused(truth, labels, word):
    with pytest.raises(ValueError, match=word):
        confusion_matrix(np.array(truth), np.array(labels), 2)
