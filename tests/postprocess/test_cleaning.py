"""Specks and pinholes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from knee3d.geometry.volume import Volume
from knee3d.postprocess.cleaning import CleaningConfig, clean_labels

AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])  # voxels of 0.5 mm3


def scene() -> Volume:
    """Two blocks side by side, a speck of each, a hole within one, one between both, one at the border."""
    array = np.zeros((12, 12, 12), np.uint8)
    array[0:6, 0:10, 0:10] = 1
    array[6:10, 0:10, 0:10] = 2
    array[11, 11, 11] = array[11, 11, 10] = 1
    array[3, 3, 3] = array[3, 3, 4] = array[3, 3, 5] = 0  # within 1
    array[5:7, 5, 5] = 0  # between 1 and 2
    array[0, 5, 5] = 0  # at the border
    return Volume(array, AFFINE)


def changes(before: Volume, after: Volume) -> list[tuple[int, int, int]]:
    where = before.array != after.array
    found = zip(before.array[where].tolist(), after.array[where].tolist(), strict=True)
    return sorted((old, new, 0) for old, new in found)


def test_off_by_default():
    assert not CleaningConfig()
    np.testing.assert_array_equal(clean_labels(scene(), CleaningConfig()).array, scene().array)


def test_sizes_are_in_mm3_and_what_has_them_stays():
    """A speck of two voxels is 1 mm3, a hole of three 1.5 mm3."""
    assert changes(scene(), clean_labels(scene(), CleaningConfig(1.0, 1.5))) == []
    assert changes(scene(), clean_labels(scene(), CleaningConfig(1.01))) == [(1, 0, 0)] * 2
    assert changes(scene(), clean_labels(scene(), CleaningConfig(0, 1.51))) == [(0, 1, 0)] * 3


def test_only_holes_within_one_tissue_are_filled():
    found = clean_labels(scene(), CleaningConfig(0, 100)).array
    assert found[3, 3, 3] == 1
    assert found[5, 5, 5] == found[6, 5, 5] == found[0, 5, 5] == 0


def test_corners_connect_a_tissue():
    """A thin plate that lies askew is one piece."""
    array = np.zeros((9, 9, 9), np.uint8)
    for step in range(8):
        array[step, step, step] = 1
    np.testing.assert_array_equal(clean_labels(Volume(array, AFFINE), CleaningConfig(3.9)).array, array)
    assert not clean_labels(Volume(array, AFFINE), CleaningConfig(4.1)).array.any()


@given(
    arrays(np.uint8, (6, 7, 5), elements=st.sampled_from([0, 0, 0, 1, 2, 3])),
    st.sampled_from([0.0, 0.6, 2.1, 9.0]),
    st.sampled_from([0.0, 0.6, 2.1, 9.0]),
)
def test_no_voxel_goes_from_one_tissue_to_another(array, remove, fill):
    labels = Volume(array, AFFINE)
    found = clean_labels(labels, CleaningConfig(remove, fill))
    assert found.array.dtype == np.uint8
    both = (labels.array > 0) & (found.array > 0)
    np.testing.assert_array_equal(labels.array[both], found.array[both])
    again = clean_labels(found, CleaningConfig(remove))
    assert (again.array >= 0).all()
    np.testing.assert_array_equal(
        clean_labels(clean_labels(labels, CleaningConfig(remove)), CleaningConfig(remove)).array,
        clean_labels(labels, CleaningConfig(remove)).array,
    )


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValueError, match="mm3"):
        CleaningConfig(size)
    with pytest.raises(ValueError, match="mm3"):
        CleaningConfig(0, size)


def test_of_a_tissue_as_many_pieces_stay_as_a_knee_has():
    array = np.zeros((20, 20, 20), np.uint8)
    array[1:6, 1:6, 1:6], array[8:12, 8:12, 8:12], array[15, 15, 15] = 1, 1, 1
    array[1:3, 15:18, 1:3], array[6, 15, 1] = 2, 2
    labels = Volume(array, AFFINE)
    one, two = (
        clean_labels(labels, CleaningConfig(keep_largest=True)).array,
        clean_labels(labels, CleaningConfig(keep_largest=True), (2, 1)).array,
    )
    assert np.count_nonzero(one == 1) == 125
    assert np.count_nonzero(two == 1) == 125 + 64
    assert np.count_nonzero(one == 2) == np.count_nonzero(two == 2) == 12
