"""Smooth random fields, and arrays that are magnified without steps."""

import numpy as np


def magnified(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation between the centres of voxels that fill the same space, the outermost repeated."""
    for axis, (n, m) in enumerate(zip(shape, coarse.shape, strict=True)):
        if n != m:
            position = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
            coarse = _between(coarse, position, axis)
    return coarse


def _between(knots: np.ndarray, position: np.ndarray, axis: int, smooth: bool = False) -> np.ndarray:
    """Values at `position` along an axis, between the knots on either side; `smooth` leaves no kinks at the knots."""
    low = position.astype(int)
    part = (position - low).astype(np.float32)
    if smooth:
        part = part * part * (3 - 2 * part)
    part = part.reshape([-1 if other == axis else 1 for other in range(knots.ndim)])
    high = np.minimum(low + 1, knots.shape[axis] - 1)
    return np.take(knots, low, axis) * (1 - part) + np.take(knots, high, axis) * part


def smooth_noise(shape: tuple[int, ...], spacing: np.ndarray, length_mm: float, rng: np.random.Generator) -> np.ndarray:
    """float32 field of about zero mean and unit deviation that varies over `length_mm`."""
    knots = [max(2, int(np.ceil(n * mm / length_mm)) + 3) for n, mm in zip(shape, spacing, strict=True)]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, mm) in enumerate(zip(shape, spacing, strict=True)):
        field = _between(field, np.minimum(np.arange(n) * mm / length_mm, knots[axis] - 2), axis, smooth=True)
    return field / max(float(field.std()), 1e-6)
