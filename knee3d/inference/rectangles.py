"""Choose which rectangle of which slices goes through a network together."""

from collections.abc import Sequence

import numpy as np

STRIDE = 32
"""Of the networks' deepest layer. A part that begins at a multiple of it is pooled as it is within the whole slice."""
CALL_PIXELS = 30_000
"""A call takes about as much longer as so many pixels do: read off the calls of one knee on two cores. It only says how
slices are grouped, so that it need not be exact."""

Rectangle = tuple[slice, slice]
"""Rows and columns of slices."""
NOWHERE: Rectangle = (slice(0, 0), slice(0, 0))


def widen_to_stride(rectangle: Rectangle, height: int, width: int) -> Rectangle:
    """What a network is given to know a part of slices: it begins, and but at the border ends, at a stride."""
    rows, columns = (_padded(side, size) for side, size in zip(rectangle, (height, width), strict=True))
    return rows, columns


def slice_relative_to(side: slice, outer: slice) -> slice:
    """A part of an axis, counted from the beginning of a larger part."""
    return slice(side.start - outer.start, side.stop - outer.start)


def contains(outer: Sequence[slice], inner: Sequence[slice]) -> bool:
    """Whether one rectangle, or box, lies in another."""
    sides = zip(outer, inner, strict=True)
    return all(large.start <= small.start and small.stop <= large.stop for large, small in sides)


def group_slices(wanted: np.ndarray, fresh: np.ndarray, most: int) -> list[tuple[range, Rectangle]]:
    """Consecutive slices to be computed together, each within the rectangle that holds what is wanted of all of them.

    Of all ways to group them it is the one with which the network has least to do: fewer calls against smaller
    rectangles, by dynamic programming from the last slice to the first.

    Args:
        wanted: (slices, height, width) bool.
        fresh: (slices,) bool, which of them have to be computed; the others are known.
        most: Pixels in one call, where it is more than one slice.

    Returns:
        Ranges in ascending order and their rectangles, without the slices of which nothing is wanted.
    """
    count = len(wanted)
    spans = np.stack([_spans(wanted, axis=2), _spans(wanted, axis=1)], axis=1)  # of rows and columns
    computed = np.concatenate([[0], np.cumsum(fresh)])
    least, length = np.zeros(count + 1), np.zeros(count, dtype=int)
    for first in reversed(range(count)):
        starts = np.minimum.accumulate(spans[first:, :, 0])
        stops = np.maximum.accumulate(spans[first:, :, 1])
        begins = starts // STRIDE * STRIDE
        sides = np.maximum(0, -(-(stops - begins) // STRIDE) * STRIDE)
        pixels = sides.prod(axis=1) * (computed[first + 1 :] - computed[first])
        total = pixels + CALL_PIXELS * (pixels > 0) + least[first + 1 :]
        total[1:][pixels[1:] > most] = np.inf
        length[first] = total.argmin() + 1
        least[first] = total.min()
    found, first = [], 0
    while first < count:
        some = range(first, first + length[first])
        (top, left), (bottom, right) = spans[some, :, 0].min(axis=0).tolist(), spans[some, :, 1].max(axis=0).tolist()
        if bottom:
            found.append((some, (slice(top, bottom), slice(left, right))))
        first = some.stop
    return found


def _padded(side: slice, size: int) -> slice:
    start = side.start // STRIDE * STRIDE
    stop = start + -(-(side.stop - start) // STRIDE) * STRIDE
    return slice(start, min(size, stop))


def _spans(wanted: np.ndarray, axis: int) -> np.ndarray:
    """Of each slice, along an axis, the first that is wanted and the one after the last; (length, 0) if none."""
    lines = np.asarray(wanted.any(axis=axis))
    length = lines.shape[1]
    first, stop = lines.argmax(axis=1), length - lines[:, ::-1].argmax(axis=1)
    return np.where(lines.any(axis=1, keepdims=True), np.stack([first, stop], axis=1), [length, 0])
