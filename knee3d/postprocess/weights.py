"""Fusion weights that maximise foreground Dice on validation cases.

The blend is linear, so where every view gives background more than one half, the blend does too, whatever the weights.
Only the other voxels, a few percent, have to be looked at: they and the tissue missed outside them are all that Dice
depends on, and nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from knee3d.anatomy.volume import Volume

GRID_STEPS = 20


@dataclass(frozen=True, eq=False)
class Contested:
    """What the foreground Dice of a case depends on.

    Attributes:
        views: Names, in the order of the second axis of `probabilities`.
        probabilities: (voxels, views, classes) float32 where not all views agree on background.
        truth: (voxels,) bool, whether the voxel is any tissue.
        missed: Tissue voxels that no weights can find.
    """

    views: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    missed: int


@dataclass(frozen=True)
class Fusion:
    """Weights and what they were worth on the cases they were fitted on.

    Attributes:
        weights: View name to weight.
        dice: Pooled foreground Dice with these weights.
        alone: Pooled foreground Dice of each view by itself.
    """

    weights: Mapping[str, float]
    dice: float
    alone: Mapping[str, float]


def contested(truth: Volume, views: Mapping[str, Volume]) -> Contested:
    """Pick out the voxels of a case on which the weights have a say.

    Args:
        truth: Integer labels, 0 is background.
        views: View name to probabilities (*shape, classes) on the grid of `truth`.

    Raises:
        ValueError: There is no view, or one is not on the grid of the truth.
    """
    if not views:
        raise ValueError("there is no view to weigh")
    for name, view in views.items():
        if not truth.same_grid(view):
            raise ValueError(f"view {name!r} of {view.shape} is not on the grid of the truth, {truth.shape}")
    candidates = np.logical_or.reduce([view.array[..., 0] <= 0.5 for view in views.values()])
    tissue = truth.array > 0
    return Contested(
        tuple(views),
        np.stack([view.array[candidates] for view in views.values()], axis=1).astype(np.float32, copy=False),
        tissue[candidates],
        int(np.count_nonzero(tissue & ~candidates)),
    )


def foreground_dice(cases: Sequence[Contested], weights: np.ndarray) -> float:
    """Pooled foreground Dice of the blend.

    Args:
        cases: Of the same views.
        weights: (views,) float, in their order.

    Returns:
        2 TP / (2 TP + FP + FN); NaN when neither truth nor blend has any tissue.
    """
    hits = sizes = 0
    vector = np.asarray(weights, dtype=np.float32)
    for case in cases:
        mixed = np.einsum("nvc,v->nc", case.probabilities, vector)
        found = mixed[:, 1:].max(axis=1) > mixed[:, 0]
        hits += int(np.count_nonzero(found & case.truth))
        sizes += int(np.count_nonzero(found) + np.count_nonzero(case.truth)) + case.missed
    return 2 * hits / sizes if sizes else float("nan")


def fit_weights(cases: Sequence[Contested]) -> Fusion:
    """Weights on the simplex that maximise pooled foreground Dice.

    Every vertex (one view alone), the mean and a regular grid are tried, then Nelder-Mead goes on from the best of
    them, so the result is never worse than the best single view or the mean. Of equals the one nearest the mean wins.
    Deterministic.

    Args:
        cases: Validation cases, of the same views in the same order.

    Raises:
        ValueError: There is no case, the views differ, or there is no tissue to find.
    """
    views = cases[0].views if cases else ()
    if not cases or any(case.views != views for case in cases):
        raise ValueError(f"weights need cases with the same views, got {[case.views for case in cases][:5]}")
    count = len(views)
    mean = np.full(count, 1 / count)

    def merit(weights: np.ndarray) -> tuple[float, float]:
        return foreground_dice(cases, weights), -float(np.abs(weights - mean).sum())

    if not np.isfinite(merit(mean)[0]) or not any(case.truth.any() or case.missed for case in cases):
        raise ValueError("there is no tissue in the cases that fusion weights are fitted on")
    tried = [(merit(weights), tuple(weights)) for weights in (mean, *np.eye(count), *_grid(count))]
    best_merit, best = max(tried)
    refined = _refine(np.array(best), lambda weights: -foreground_dice(cases, weights))
    if merit(refined) > best_merit:
        best_merit, best = merit(refined), tuple(refined)
    alone = {view: foreground_dice(cases, vertex) for view, vertex in zip(views, np.eye(count), strict=True)}
    return Fusion(dict(zip(views, map(float, best), strict=True)), best_merit[0], alone)


def _grid(count: int) -> list[np.ndarray]:
    """Points of the simplex whose coordinates are multiples of 1 / GRID_STEPS."""
    points: list[list[int]] = [[]]
    for _ in range(count - 1):
        points = [[*point, k] for point in points for k in range(GRID_STEPS - sum(point) + 1)]
    return [np.array([*point, GRID_STEPS - sum(point)]) / GRID_STEPS for point in points]


def _refine(start: np.ndarray, cost: Callable[[np.ndarray], float]) -> np.ndarray:
    """Nelder-Mead over all weights but the last, each trial projected back onto the simplex."""
    if len(start) == 1:
        return start

    def project(free: np.ndarray) -> np.ndarray:
        weights = np.clip([*free, 1 - free.sum()], 0, 1)
        return weights / weights.sum()

    first = start[:-1]
    simplex = np.vstack([first, first + np.eye(len(first)) * np.where(first > 0.5, -1, 1)[:, None] / GRID_STEPS])
    found = minimize(
        lambda free: cost(project(free)),
        first,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-7, "maxfev": 100},
    )
    return project(found.x)
