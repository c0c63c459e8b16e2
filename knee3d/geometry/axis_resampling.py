"""Resample a volume along its own axes, one after the other: to voxels of another size, and back.

Values between voxels are interpolated linearly. Where voxels become larger, values are averaged as well, so that fine
structures do not turn up as coarse ones (aliasing). A voxel is the mean of what lies in it: the mean over one voxel,
averaged over a further width w, is as wide as a voxel of r times the length where 1 + w^2 = r^2, as variances of
convolved boxes add up. The grids before and after have the same centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import sparse

from knee3d.geometry.box import bounding_box, box_between, whole_box
from knee3d.geometry.volume import Volume

SAME = 5e-3
"""Voxel sizes that differ by less than this share are the same: nothing is resampled along such an axis."""
VOXELS = 1 << 22
"""Voxels of the source that are float32 at a time."""


def axis_grid(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """A grid along the axes of a volume, with the same centre and voxels of another size.

    Args:
        volume: Three axes.
        spacing_mm: Voxel size along each axis. An axis whose voxels have this size already, see `SAME`, stays as it is.

    Returns:
        Zeros that take up no memory. The grid is as long as the volume, to half a voxel.

    Example:
        >>> import numpy as np
        >>> axis_grid(Volume(np.zeros((8, 6, 5)), np.diag([0.5, 0.5, 2.0, 1])), (1.0, 0.5, 2.0)).shape
        (4, 6, 5)
    """
    shape, affine = list(volume.shape), volume.affine.copy()
    for axis, (mine, wanted) in enumerate(zip(volume.spacing_mm, spacing_mm, strict=True)):
        if abs(wanted / mine - 1) < SAME:
            continue
        shape[axis] = max(1, round(volume.shape[axis] * mine / wanted))
        step = volume.affine[:3, axis] * (wanted / mine)
        middle = volume.affine[:3, axis] * (volume.shape[axis] - 1) / 2
        affine[:3, 3] += middle - step * (shape[axis] - 1) / 2
        affine[:3, axis] = step
    return Volume(np.broadcast_to(np.uint8(0), tuple(shape)), affine)


@cache
def axis_filter(count: int, ratio: float, wanted: int) -> sparse.csr_array:
    """The weights with which the voxels of an axis make up those of another one with the same centre.

    Args:
        count: Voxels of the axis.
        ratio: How many of its voxels are as long as one of the other axis.
        wanted: Voxels of the other axis.

    Returns:
        (wanted, count) float32, sparse, the indices of each row sorted, with rows that add up to 1. Beyond the ends the
        outermost voxel counts.
    """
    places = (count - 1) / 2 + (np.arange(wanted) - (wanted - 1) / 2) * ratio
    half = np.sqrt(max(ratio**2 - 1, 0.0)) / 2
    index = np.floor(places - half).astype(int)[:, None] + np.arange(int(2 * half) + 3)
    apart = places[:, None] - index
    weights = _hat(apart) if half < HALF else (_hat_below(apart + half) - _hat_below(apart - half)) / (2 * half)
    rows, kept = np.broadcast_to(np.arange(wanted)[:, None], index.shape), weights > 1e-9
    places_in = np.clip(index, 0, count - 1)  # beyond an end the outermost voxel is repeated; equal places add up
    found = sparse.coo_array((weights[kept], (rows[kept], places_in[kept])), shape=(wanted, count)).tocsr()
    found.sum_duplicates()  # and sorts
    return found.astype(np.float32)


HALF = 1e-3
"""Half of a width that is too small to average over."""


def _hat(apart: np.ndarray) -> np.ndarray:
    """The weight of a voxel for a place so many voxels away: linear interpolation."""
    return np.maximum(0, 1 - np.abs(apart))


def _hat_below(apart: np.ndarray) -> np.ndarray:
    """The integral of `_hat` up to there."""
    inside = np.clip(apart, -1, 1)
    return np.where(inside < 0, (1 + inside) ** 2 / 2, 1 - (1 - inside) ** 2 / 2)


def grid_filters(source: Volume, target: Volume) -> list[sparse.csr_array]:
    """The `axis_filter` of each axis from one grid to another that `axis_grid` made of it, or back."""
    ratios = target.spacing_mm / source.spacing_mm
    return [
        axis_filter(one, 1.0 if one == other and abs(ratio - 1) < SAME else round(float(ratio), 9), other)
        for one, other, ratio in zip(source.shape, target.shape, ratios, strict=True)
    ]


def filter_axis(array: np.ndarray, weights: sparse.csr_array, axis: int) -> np.ndarray:
    """Weigh the voxels of an axis; an axis of the same voxels is left as it is.

    Args:
        array: float32, any axes.
        weights: (wanted, count) of `axis_filter`.
        axis: The axis of `count` voxels.

    Returns:
        float32, with `wanted` voxels along the axis.
    """
    if weights.shape[0] == weights.shape[1] == weights.nnz:
        return array
    ahead = np.moveaxis(array, axis, 0)
    found = weights @ ahead.reshape(len(ahead), -1)
    return np.moveaxis(found.reshape(len(found), *ahead.shape[1:]), 0, axis)


def resample_axes(volume: Volume, grid: Volume) -> Volume:
    """Grey values on a grid of other voxel sizes.

    Args:
        volume: (i, j, k) numbers.
        grid: From `axis_grid` of the volume.

    Returns:
        On the grid, of the volume's dtype, whole numbers rounded. A grid of the same voxels gives the volume itself.
    """
    if grid.shape == volume.shape and volume.same_grid(grid):
        return volume
    filters = grid_filters(volume, grid)
    found = np.empty(grid.shape, volume.array.dtype)
    rows = max(1, VOXELS * grid.shape[0] // volume.array.size)
    for start in range(0, grid.shape[0], rows):
        weights = filters[0][start : start + rows]
        first, last = int(weights.indices.min()), int(weights.indices.max()) + 1
        part = volume.array[first:last].astype(np.float32)
        for axis in (2, 1):
            part = filter_axis(part, filters[axis], axis)
        part = filter_axis(part, weights[:, first:last], 0)
        found[start : start + rows] = np.rint(part) if np.issubdtype(found.dtype, np.integer) else part
    return Volume(found, grid.affine)


def resample_labels(labels: Volume, grid: Volume) -> Volume:
    """Labels on a grid of other voxel sizes: the label with most of each voxel.

    The share of a label in a voxel is that of `axis_filter`; of equals the lower number is taken. No label is made that
    the volume does not have.

    Args:
        labels: (i, j, k) whole numbers of 0 or more.
        grid: From `axis_grid` of the labels.
    """
    if grid.shape == labels.shape and labels.same_grid(grid):
        return labels
    filters = grid_filters(labels, grid)
    most, rest = np.zeros(grid.shape, np.float32), np.ones(grid.shape, np.float32)
    found = np.zeros(grid.shape, labels.array.dtype)
    for label in np.unique(labels.array[labels.array > 0]):
        source = bounding_box(labels.array == label) or whole_box(labels.shape)
        target = box_between(*np.array([_reached(one, side) for one, side in zip(filters, source, strict=True)]).T)
        share = (labels.array[source] == label).astype(np.float32)
        for axis, weights in enumerate(filters):
            share = filter_axis(share, weights[target[axis], source[axis]], axis)
        better = share > most[target] + EQUAL
        most[target][better], found[target][better] = share[better], label
        rest[target] -= share
    found[rest >= most - EQUAL] = 0
    return Volume(found, grid.affine)


EQUAL = 1e-6
"""Shares of a voxel that differ by less are equal."""


def _reached(weights: sparse.csr_array, side: slice) -> tuple[int, int]:
    """The first of the voxels that some others count for, and the one after the last."""
    rows = np.flatnonzero(np.diff(weights[:, side].indptr))
    return int(rows[0]), int(rows[-1]) + 1
