"""Voxels of one grid -> another grid: linear for images and probabilities, nearest for labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from knee3d.anatomy.volume import Volume

LINEAR, NEAREST = 1, 0
_GOLDEN = (5**0.5 - 1) / 2
_FIRST = 0.36
"""How far the first direction is from the pole and the last from the rim, which keeps neighbours furthest apart."""
_PHASE = 0.1
"""Of a turn: with up to 12 directions none is within 10 degrees of an axis, where a plane looks already."""


def resample(volume: Volume, grid: Volume, order: int, outside: float | Sequence[float] = 0.0) -> Volume:
    """Values of a volume at the voxel centres of a grid.

    Args:
        volume: Three axes, or four with channels last; each channel goes by itself.
        grid: Where values are wanted; its own values do not matter.
        order: `LINEAR` (trilinear) or `NEAREST` (which makes no new values, as labels need).
        outside: Value where the grid lies beyond the volume, or one for each channel: for probabilities
            (1, 0, ..., 0), background.

    Returns:
        On the grid. Linear: float32, and channels that add up to 1 still do. Nearest: of the volume's dtype.
    """
    steps = np.linalg.solve(volume.affine, grid.affine)
    dtype = np.float32 if order == LINEAR else volume.array.dtype
    channels = np.atleast_1d(outside) if volume.array.ndim == 4 else [outside]
    arrays = volume.array[..., None] if volume.array.ndim == 3 else volume.array
    found = np.empty((*grid.shape, arrays.shape[-1]), dtype=dtype)
    for channel, value in enumerate(np.broadcast_to(channels, arrays.shape[-1])):
        # Bytes are read as they are: for a part of a grid, a float copy of the whole image would cost more than that.
        source = np.ascontiguousarray(arrays[..., channel], None if arrays.dtype == np.uint8 else dtype)
        ndimage.affine_transform(
            source, steps[:3, :3], steps[:3, 3], output=found[..., channel], output_shape=grid.shape,
            order=order, mode="constant", cval=value, prefilter=False,
        )  # fmt: skip
    return Volume(found[..., 0] if volume.array.ndim == 3 else found, grid.affine)


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
    if turn.shape != (3, 3) or np.abs(turn @ turn.T - np.eye(3)).max() > 1e-6 or np.linalg.det(turn) < 0:
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


def spread_turns(count: int) -> tuple[np.ndarray, ...]:
    """Rotations whose slices look at a knee from directions spread evenly: the same ones each time.

    The directions lie on a Fibonacci lattice (Swinbank and Purser 2006) over the half sphere around Left; the other
    half holds their opposites, which are the same slices in reverse. Each rotation is the smallest that takes Left,
    the third canonical axis, to its direction, so that slices are turned within their plane as little as can be. A
    volume whose axes are tilted is turned from where it lies.

    Args:
        count: How many, from 1 on.

    Returns:
        (3, 3) each, in the scanner's frame, for `oblique_grid`.

    Raises:
        ValueError: There is nothing to spread.
    """
    if count < 1:
        raise ValueError(f"expected at least one direction, got {count}")
    number = np.arange(count)
    towards_left = 1 - (number + _FIRST) / count
    around = 2 * np.pi * (number * _GOLDEN + _PHASE)
    radius = np.sqrt(1 - towards_left**2)
    left = np.array([-1.0, 0.0, 0.0])
    directions = np.stack([-towards_left, radius * np.cos(around), radius * np.sin(around)], axis=-1)
    return tuple(_smallest_turn(left, direction) for direction in directions)


def _smallest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation in the plane of two unit vectors, not opposite, that takes one to the other (Rodrigues)."""
    x, y, z = np.cross(start, end)
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + across + across @ across / (1 + start @ end)
