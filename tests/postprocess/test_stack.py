"""Slices in any order -> the volume they were cut from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.postprocess.stack import stack_slices

AFFINE = np.array([[0, 0, -0.7, 3], [0, -0.4, 0, 2], [-0.4, 0, 0, 1], [0, 0, 0, 1.0]])


@given(
    st.sampled_from(list(Plane)),
    st.sampled_from([np.uint8, np.float16, np.float32, np.float64]),
    st.lists(st.integers(1, 5), min_size=8, max_size=8),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_stacking_undoes_slicing_in_any_order_and_dtype(plane, dtype, sizes, random, channels):
    """Exactly, and nothing is converted."""
    shape = (4, 5, 6, 3) if channels else (4, 5, 6)
    volume = Volume((np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype), AFFINE)
    slices = to_slices(volume, plane)
    order = list(range(len(slices)))
    random.shuffle(order)
    batches = []
    while order:
        size = sizes.pop() if sizes else 6
        batches.append((order[:size], slices[order[:size]]))
        order = order[size:]
    stacked = stack_slices(iter(batches), plane, len(slices), AFFINE)
    assert stacked.array.dtype == dtype
    np.testing.assert_array_equal(stacked.array, volume.array)
    assert stacked.same_grid(volume)


PART = np.zeros((2, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "3 of 3 .* missing, the first of them 0"),
        ([([0, 1], PART)], "1 of 3 .* missing, the first of them 2"),
        ([([0, 0], PART)], "slice 0 .* came twice"),
        ([([0, 1], PART), ([1, 2], PART)], "slice 1 .* came twice"),
        ([([0, 3], PART)], "slice 3 is none of 0 to 2"),
        ([([-1, 1], PART)], "slice -1 is none of 0 to 2"),
        ([([0], PART)], "2 slices came with 1 positions"),
        ([([0, 1], PART), ([2], PART[:1, :4])], r"slices \[2\] are float32 of shape \(4, 6\)"),
        ([([0, 1], PART), ([2], PART[:1].astype(np.float16))], "are float16"),
    ],
)
def test_a_stack_that_is_not_whole_is_refused(batches, words):
    with pytest.raises(ValueError, match=words):
        stack_slices(batches, Plane.SAGITTAL, 3, AFFINE)
