"""How unsure the networks are of a voxel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as reference

from knee3d.anatomy.volume import Volume
from knee3d.postprocess.uncertainty import disagreement, entropy


@given(st.integers(0, 99), st.integers(2, 8))
def test_entropy_is_scipys_as_a_share_of_the_largest(seed, classes):
    array = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (3, 4, 5)).astype(np.float32)
    found = entropy(Volume(array, np.eye(4)))
    np.testing.assert_allclose(found.array, reference(array, axis=-1) / np.log(classes), atol=1e-5)


def test_certain_is_0_and_no_idea_is_1():
    array = np.array([[1, 0, 0], [1 / 3] * 3], np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(entropy(Volume(array, np.eye(4))).array.ravel(), [0, 1], atol=1e-6)


def test_disagreement_is_the_share_of_views_against():
    def labels(*values: int) -> Volume:
        return Volume(np.array(values, np.uint8).reshape(1, 1, -1), np.eye(4))

    views = [labels(1, 1, 0), labels(1, 2, 1), labels(1, 1, 2)]
    np.testing.assert_allclose(disagreement(views, labels(1, 1, 0)).array.ravel(), [0, 1 / 3, 2 / 3])
