"""Several opinions on one volume -> one: F = wc*C + wa*A + ws*S (Luan et al. 2025), for any number of named views."""

from collections.abc import Iterable, Mapping

import numpy as np

from knee3d.anatomy.volume import Volume


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that would not blend probabilities into probabilities.

    Raises:
        ValueError: There is none, one is negative or not finite, or they do not add up to 1 within 1e-3 (published
            weights are rounded).
    """
    values = np.array(list(weights.values()), dtype=np.float64)
    if not values.size or not np.isfinite(values).all() or values.min() < 0 or abs(values.sum() - 1) > 1e-3:
        raise ValueError(f"weights must be at least 0 and add up to 1, got {dict(weights)}")


def blend(views: Iterable[tuple[str, Volume]], weights: Mapping[str, float]) -> Volume:
    """Weighted sum of probability volumes, one view in memory at a time.

    Args:
        views: (name, probabilities) pairs, each (*shape, classes) of any float dtype on one grid; a generator is read
            once, and a view is let go before the next is asked for.
        weights: View name to weight; at least 0, adding up to 1.

    Returns:
        (*shape, classes) float32 on the grid of the views.

    Raises:
        ValueError: Views and weights do not name the same views, or two views lie on different grids.
    """
    check_weights(weights)
    total: Volume | None = None
    seen: list[str] = []
    accumulator = np.empty(0, dtype=np.float32)
    for name, view in views:
        if name not in weights or name in seen:
            raise ValueError(f"view {name!r} came with weights for {sorted(weights)}, after {seen}")
        if total is None:
            accumulator = np.zeros(view.array.shape, dtype=np.float32)
            total = view.with_array(accumulator)  # a read-only look at what grows below
        elif view.array.shape != accumulator.shape or not total.same_grid(view):
            raise ValueError(f"view {name!r} of {view.array.shape} is not on the grid of {seen[0]!r}")
        _add_scaled(accumulator, view.array, weights[name])
        seen.append(name)
        del view  # or it would live on while the next one is made
    if total is None or len(seen) != len(weights):
        raise ValueError(f"weights are for {sorted(weights)}, but only {sorted(seen)} came")
    return total


def _add_scaled(accumulator: np.ndarray, array: np.ndarray, weight: float) -> None:
    """Add weight * array in place, slab by slab, so that the product never exists as a whole."""
    for slab, values in zip(accumulator, array, strict=True):
        slab += np.multiply(values, np.float32(weight), dtype=np.float32)
