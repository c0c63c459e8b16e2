"""Cut a volume into a stack of slices along a plane, and put it together again."""

import numpy as np

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume


def to_slices(volume: Volume, plane: Plane) -> np.ndarray:
    """Slices of a canonical volume along `plane`.

    Returns:
        (slices, height, width[, channels]) view of the volume's array; no voxel is copied or flipped.
    """
    return np.moveaxis(volume.array, plane.axis, 0)


def from_slices(slices: np.ndarray, plane: Plane, affine: np.ndarray) -> Volume:
    """The canonical volume that `to_slices` cut, given its affine.

    Args:
        slices: (slices, height, width[, channels]), all slices in order.
        plane: The plane they were cut along.
        affine: (4, 4) float, of the canonical volume.
    """
    return Volume(np.moveaxis(slices, 0, plane.axis), affine)
