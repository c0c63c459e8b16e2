"""Slices: what they show, and that they go back where they came from."""

import numpy as np
import pytest

from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices, to_slices
from knee3d.geometry.volume import Volume


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("plane", Plane)
def test_slices_go_back_where_they_came_from(plane, channels):
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5, *channels))
    volume = Volume(array, np.diag([1.0, 2, 3, 1]))
    slices = to_slices(volume, plane)
    assert slices.shape[0] == volume.shape[plane.axis]
    back = from_slices(slices, plane, volume.affine)
    np.testing.assert_array_equal(back.array, array)
    assert back.same_grid(volume)


@pytest.mark.parametrize(
    ("plane", "top", "left"),
    [(Plane.AXIAL, "A", "R"), (Plane.CORONAL, "S", "R"), (Plane.SAGITTAL, "S", "A")],
)
def test_slices_are_upright(plane, top, left):
    """The first row and the first column of a slice lie on the side that a radiologist expects."""
    ras = {"R": (0, 1), "A": (1, 1), "S": (2, 1)}
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (6, 7, 8)], indexing="ij"), axis=-1)  # RAS index of each voxel
    slices = to_slices(to_canonical(Volume(grid, np.eye(4))), plane)
    (vertical, _), (horizontal, _) = ras[top], ras[left]
    assert (np.diff(slices[..., vertical], axis=1) == -1).all()
    assert (np.diff(slices[..., horizontal], axis=2) == -1).all()
