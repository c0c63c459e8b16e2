"""Smooth random fields on the voxels of an image, computed from few numbers and some rows of voxels at a time.

A field is a uniform cubic B-spline. Its coefficients lie on a lattice of knots whose distance is the scale of the
field, so that a coarse field of a large image costs little. Random fields have independent, normally distributed
coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from knee3d.geometry.axis_resampling import filter_axis
from knee3d.geometry.volume import Volume

_VARIANCE = (151 / 315) ** 1.5
"""The standard deviation of a spline with three axes whose coefficients have a standard deviation of 1: the integral of
the squared basis function is 151/315 along each axis."""


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A smooth function at the voxels of an image.

    Attributes:
        planes: (knots, j, k) float32, the field at all voxels of the second and third axis, for each knot of the first.
        weights: (i, knots) sparse float32, the weight of each knot at each voxel of the first axis.
    """

    planes: np.ndarray
    weights: sparse.csr_array

    def rows(self, rows: slice) -> np.ndarray:
        """The values in some rows of the first axis, (rows, j, k) float32."""
        values = self.weights[rows] @ self.planes.reshape(len(self.planes), -1)
        return values.reshape(-1, *self.planes.shape[1:])


def field_from_coefficients(coefficients: np.ndarray, knot_mm: Sequence[float], grid: Volume) -> SmoothField:
    """The spline with these coefficients.

    Args:
        coefficients: (k0, k1, k2) float32, with as many knots as `knot_places_mm` says.
        knot_mm: The distance of knots along each axis.
        grid: The image; only its shape and its voxel sizes count.
    """
    first, *others = (
        spline_weights((np.arange(count) + 0.5) * voxel, knot, knots)
        for count, voxel, knot, knots in zip(grid.shape, grid.spacing_mm, knot_mm, coefficients.shape, strict=True)
    )
    planes = filter_axis(filter_axis(coefficients, others[1], 2), others[0], 1)
    return SmoothField(np.ascontiguousarray(planes), first)


def field_from_samples(samples: np.ndarray, steps: Sequence[int], grid: Volume) -> SmoothField:
    """Linear interpolation between samples of some voxels.

    Args:
        samples: (s0, s1, s2) float32, values at each `steps`-th voxel, from the first voxel on.
        steps: Voxels from one sample to the next along each axis.
        grid: The image; only its shape counts.
    """
    first, *others = (
        _linear_weights(count, step, number)
        for count, step, number in zip(grid.shape, steps, samples.shape, strict=True)
    )
    planes = filter_axis(filter_axis(samples, others[1], 2), others[0], 1)
    return SmoothField(np.ascontiguousarray(planes), first)


def knot_places_mm(length_mm: float, knot_mm: float) -> np.ndarray:
    """Places of the knots that an axis of this length needs; the axis begins at 0."""
    return (np.arange(int(np.ceil(length_mm / knot_mm)) + 3) - 1) * knot_mm


def random_coefficients(grid: Volume, knot_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Coefficients of a random field with mean 0 and standard deviation 1, (k0, k1, k2) float32.

    Args:
        grid: The image; only its shape and its voxel sizes count.
        knot_mm: The distance of knots along each axis.
        rng: Where random numbers come from.
    """
    lengths = grid.spacing_mm * grid.shape
    counts = [len(knot_places_mm(length, knot)) for length, knot in zip(lengths, knot_mm, strict=True)]
    return rng.standard_normal(counts, np.float32) / np.float32(_VARIANCE)


def random_field(grid: Volume, scale_mm: float, rng: np.random.Generator) -> SmoothField:
    """A random field with mean 0.

    Args:
        grid: The image; only its shape and its voxel sizes count.
        scale_mm: The distance of knots. Along an axis whose voxels are longer the voxel size is taken.
        rng: Where random numbers come from.

    Returns:
        Its standard deviation is 1 where voxels are small, and less where a voxel holds the mean of several knots.
    """
    knot_mm = np.maximum(scale_mm, grid.spacing_mm)
    coefficients = random_coefficients(grid, knot_mm.tolist(), rng)
    coefficients *= np.float32(np.sqrt(np.prod(scale_mm / knot_mm)))
    return field_from_coefficients(coefficients, knot_mm.tolist(), grid)


def refine_coefficients(
    coefficients: np.ndarray, knot_mm: Sequence[float], finer_mm: Sequence[float], grid: Volume
) -> np.ndarray:
    """The values of a field at the knots of a finer lattice, as coefficients of a field with nearly the same values.

    Args:
        coefficients: Of the field, with knots `knot_mm` apart.
        knot_mm: The distance of its knots along each axis.
        finer_mm: The distance of the knots of the finer lattice along each axis.
        grid: The image; only its shape and its voxel sizes count.
    """
    for axis, (length, knot, finer) in enumerate(zip(grid.spacing_mm * grid.shape, knot_mm, finer_mm, strict=True)):
        weights = spline_weights(knot_places_mm(length, finer), knot, coefficients.shape[axis])
        coefficients = filter_axis(coefficients, weights, axis)
    return coefficients


def spline_weights(places_mm: np.ndarray, knot_mm: float, knots: int) -> sparse.csr_array:
    """The weight of each knot at each place, (places, knots) sparse float32. Rows add up to 1.

    Args:
        places_mm: Places along an axis that begins at 0. Places beyond the knots get the value at their end.
        knot_mm: The distance of knots; the second knot lies at 0.
        knots: The number of knots.
    """
    inside = np.clip(places_mm / knot_mm, 0, knots - 3)
    first = np.minimum(np.floor(inside).astype(int), knots - 4)
    part = inside - first
    weights = [(1 - part) ** 3, 3 * part**3 - 6 * part**2 + 4, -3 * part**3 + 3 * part**2 + 3 * part + 1, part**3]
    return _sparse_rows(np.stack(weights, axis=1) / 6, first[:, None] + np.arange(4), knots)


def _linear_weights(count: int, step: int, samples: int) -> sparse.csr_array:
    """The weight of each sample at each voxel, see `field_from_samples`; beyond the last sample its value stays."""
    places = np.minimum(np.arange(count) / step, samples - 1)
    first = np.floor(places).astype(int)
    part = places - first
    index = np.stack([first, np.minimum(first + 1, samples - 1)], axis=1)
    return _sparse_rows(np.stack([1 - part, part], axis=1), index, samples)


def _sparse_rows(weights: np.ndarray, index: np.ndarray, columns: int) -> sparse.csr_array:
    rows = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    found = sparse.coo_array((weights.ravel(), (rows.ravel(), index.ravel())), shape=(len(index), columns)).tocsr()
    return found.astype(np.float32)
