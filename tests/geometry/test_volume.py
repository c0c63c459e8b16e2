"""A volume that can be wrong refuses to exist."""

import numpy as np
import pytest

from knee3d.geometry.volume import Volume

ARRAY = np.zeros((2, 3, 4))


@pytest.mark.parametrize(
    ("array", "affine", "word"),
    [
        (np.zeros((2, 3)), np.eye(4), "axes"),
        (np.zeros((0, 3, 4)), np.eye(4), "empty"),
        (np.zeros((1, 1, 1, 1, 1)), np.eye(4), "axes"),
        (ARRAY, np.eye(3), "shape"),
        (ARRAY, np.full((4, 4), np.nan), "finite"),
        (ARRAY, np.diag([1, 1, 1, 2]), "last row"),
        (ARRAY, np.diag([1, 1, 0, 1]), "three dimensions"),
        (ARRAY, np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "three dimensions"),
    ],
)
def test_impossible_volumes_are_refused(array, affine, word):
    with pytest.raises(ValueError, match=word):
        Volume(array, affine)


def test_nobody_can_change_a_volume_by_accident():
    array = np.zeros((2, 3, 4))
    volume = Volume(array, np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0] = 1
    array[0] = 1  # the caller's own array stays writable


def test_sizes_of_a_sheared_oblique_grid():
    affine = np.diag([2.0, 3, 4, 1])
    affine[0, 1] = 1.0
    volume = Volume(ARRAY, affine)
    np.testing.assert_allclose(volume.spacing_mm, [2, np.sqrt(10), 4])
    assert volume.voxel_mm3 == pytest.approx(24)


def test_with_array_keeps_the_place_and_refuses_another_shape():
    volume = Volume(ARRAY, np.diag([2.0, 3, 4, 1]))
    other = volume.with_array(np.ones((2, 3, 4, 7)))
    np.testing.assert_array_equal(other.affine, volume.affine)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        volume.with_array(np.ones((2, 3, 5)))


def test_same_grid_means_place_and_shape():
    volume = Volume(ARRAY, np.eye(4))
    moved, turned = np.eye(4), np.eye(4)
    moved[0, 3] = 0.5
    turned[0, 1] = 0.02  # less than a voxel, but 0.06 mm at the far corner
    assert volume.same_grid(Volume(np.ones((2, 3, 4, 2)), np.eye(4) + 1e-6 * np.eye(4, k=3)))
    assert not volume.same_grid(Volume(ARRAY, moved))
    assert not volume.same_grid(Volume(ARRAY, turned))
    assert not volume.same_grid(Volume(np.zeros((2, 3, 5)), np.eye(4)))


def test_padding_keeps_every_voxel_where_it_is():
    affine = np.array([[0, 0, -0.7, 3], [0.1, -0.4, 0, 4], [-0.5, 0.08, 0, 5], [0, 0, 0, 1.0]])
    grid = Volume(np.zeros((5, 6, 7), np.int16), affine)
    array = np.arange(1, 25, dtype=np.uint8).reshape(ARRAY.shape)
    inner = affine.copy()
    inner[:3, 3] = (affine @ [1, 2, 3, 1])[:3]
    padded = Volume(array, inner).padded_to(grid)
    assert padded.same_grid(grid)
    assert padded.array.dtype == np.uint8
    np.testing.assert_array_equal(padded.array[1:3, 2:5, 3:7], array)
    assert padded.array.sum() == array.sum()
    np.testing.assert_array_equal(padded.padded_to(grid).array, padded.array)


def test_a_part_stays_where_it_was():
    grid = Volume(np.arange(60).reshape(3, 4, 5), np.diag([0.5, -0.4, 0.7, 1]) + 2 * np.eye(4, k=3))
    part = grid.part((slice(1, 3), slice(0, 4), slice(2, 4)))
    np.testing.assert_array_equal(part.array, grid.array[1:3, :, 2:4])
    np.testing.assert_allclose(part.affine @ [0, 0, 0, 1], grid.affine @ [1, 0, 2, 1])
    np.testing.assert_array_equal(part.padded_to(grid).array[1:3, :, 2:4], part.array)


@pytest.mark.parametrize(
    "place",
    [
        np.eye(4) - np.eye(4)[:, [0, 0, 0, 0]] * [0, 0, 0, 1],  # starts before the grid
        np.diag([1, 1, 1.01, 1]),
        np.diag([-1.0, 1, 1, 1]),
        np.eye(4) + 0.4 * np.eye(4, k=3),
        np.eye(4) + 3 * np.eye(4, k=3),  # ends beyond it
    ],
)
def test_padding_resamples_nothing(place):
    with pytest.raises(ValueError, match=r"of shape \(2, 3, 4\) is no part of the grid of shape \(4, 4, 4\)"):
        Volume(ARRAY, place).padded_to(Volume(np.zeros((4, 4, 4)), np.eye(4)))
