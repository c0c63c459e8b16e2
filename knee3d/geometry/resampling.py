"""Resample a volume onto another grid: linear for images, nearest for labels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume

LINEAR, NEAREST = 1, 0


def resample(volume: Volume, grid: Volume, order: int) -> Volume:
    """Values of a volume at the voxel centres of a grid; 0 where it lies beyond the volume.

    Args:
        volume: Three axes.
        grid: Where values are wanted; its own values do not matter.
        order: `LINEAR` (trilinear) or `NEAREST` (which makes no new values, as labels need).

    Returns:
        On the grid. Linear: float32. Nearest: of the volume's dtype.
    """
    steps = np.linalg.solve(volume.affine, grid.affine)
    dtype = np.float32 if order == LINEAR else volume.array.dtype
    # Bytes are read as they are: for a part of a grid, a float copy of the whole image would cost more than that.
    source = np.ascontiguousarray(volume.array, None if volume.array.dtype == np.uint8 else dtype)
    found = np.empty(grid.shape, dtype=dtype)
    ndimage.affine_transform(
        source, steps[:3, :3], steps[:3, 3], found.shape, found, order, mode="constant", prefilter=False
    )
    return Volume(found, grid.affine)


def is_rotation(turn: np.ndarray) -> bool:
    """Whether a matrix turns and does nothing else, (3, 3), to 1e-6."""
    return turn.shape == (3, 3) and np.abs(turn @ turn.T - np.eye(3)).max() <= 1e-6 and np.linalg.det(turn) > 0


def oblique_grid(volume: Volume, turn: np.ndarray, spacing_mm: float | None = None) -> Volume:
    """A grid around the same centre with its axes turned, large enough to hold all of the volume.

    Args:
        volume: What it is to hold.
        turn: (3, 3) rotation in the scanner's frame, to be applied to the directions of the volume's axes.
        spacing_mm: Between its voxels, the same along each axis; the volume's finest by default, so that little is
            lost on the way there and back.

    Returns:
        A grid: zeros that take up no memory.

    Raises:
        ValueError: The matrix is no rotation.
    """
    turn = np.asarray(turn, dtype=np.float64)
    if not is_rotation(turn):
        raise ValueError(f"expected a rotation matrix, (3, 3), got {turn.tolist()}")
    step = float(volume.spacing_mm.min()) if spacing_mm is None else spacing_mm
    directions = turn @ (volume.affine[:3, :3] / volume.spacing_mm)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1)
    places = corners @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    along = np.linalg.solve(directions, places.T)  # mm along each new axis
    shape = np.ceil((along.max(axis=1) - along.min(axis=1)) / step).astype(int) + 1
    middle = (along.max(axis=1) + along.min(axis=1)) / 2
    affine = np.eye(4)
    affine[:3, :3] = directions * step
    affine[:3, 3] = directions @ (middle - (shape - 1) / 2 * step)
    return Volume(np.broadcast_to(np.uint8(0), tuple(shape.tolist())), affine)
