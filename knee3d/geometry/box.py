"""Boxes of voxels: bounding boxes and their intersections."""

import numpy as np

Box = tuple[slice, slice, slice]
"""Of each axis of space, from `start` to before `stop`."""


def box_between(starts: np.ndarray, stops: np.ndarray) -> Box:
    """The box with these (3,) corners."""
    first, second, third = (slice(start, stop) for start, stop in np.stack([starts, stops], axis=1).tolist())
    return first, second, third


def whole_box(shape: tuple[int, ...]) -> Box:
    """All voxels of a shape."""
    return box_between(np.zeros(3, dtype=int), np.array(shape))


def box_corners(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops of a box, (3,) int64 each."""
    return np.array([side.start for side in box]), np.array([side.stop for side in box])


def bounding_box(inside: np.ndarray, more: np.ndarray | int = 0) -> Box | None:
    """The smallest box that holds what is inside, and more voxels on each side as far as there are; None of nothing.

    Args:
        inside: bool, three axes.
        more: Voxels on each side, of all axes or of each.
    """
    spans = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not spans[0].size:
        return None
    starts, stops = (np.array([span[end] for span in spans]) for end in (0, -1))
    return box_between(np.maximum(0, starts - more), np.minimum(inside.shape, stops + 1 + more))


def box_intersection(one: Box, other: Box) -> Box:
    """What lies in both."""
    (starts, stops), (others, ends) = box_corners(one), box_corners(other)
    return box_between(np.maximum(starts, others), np.minimum(stops, ends))


def box_relative_to(box: Box, outer: Box) -> Box:
    """The same box, counted from the beginning of a larger one."""
    starts, stops = box_corners(box)
    return box_between(starts - box_corners(outer)[0], stops - box_corners(outer)[0])
