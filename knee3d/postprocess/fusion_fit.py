"""Fusion weights with the best Dice: a grid over all weights, its refinement around the best, a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from knee3d.postprocess.candidate_voxels import load_candidates
from knee3d.postprocess.confusion import foreground
from knee3d.postprocess.intervals import LEVEL, resamples

FOREGROUND, TISSUES = "foreground", "tissues"
OBJECTIVES = (FOREGROUND, TISSUES)
"""foreground: Dice of any tissue against background, as in the paper. tissues: mean Dice of the tissues."""

GRID_POINTS, FINEST_STEP = 300, 5e-4
DRAWS = 1000


def overlaps(matrix: np.ndarray, objective: str | int) -> np.ndarray:
    """Voxels that are right, true and found of each class that the objective counts.

    Args:
        matrix: (classes, classes) confusion matrix, rows truth.
        objective: One of `OBJECTIVES`, or a class for its Dice alone.

    Returns:
        (3, counted classes), of the matrix's dtype.
    """
    matrix = foreground(matrix) if objective == FOREGROUND else matrix
    counted = slice(objective, objective + 1) if isinstance(objective, int) else slice(1, None)
    return np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])[:, counted]


def mean_dice(counts: np.ndarray) -> np.ndarray:
    """Mean Dice over the classes that truth has: (..., 3, classes) from `overlaps` -> (...) float64, NaN for none."""
    right, true, found = np.moveaxis(counts, -2, 0)
    present = true > 0
    with np.errstate(invalid="ignore"):
        return (2 * right / np.maximum(true + found, 1)).sum(axis=-1, where=present) / present.sum(axis=-1)


def grid(views: int) -> np.ndarray:
    """Weights (points, views) all over the simplex: multiples of a step, about `GRID_POINTS`; exchanges from the mean.

    The multiples hold every view alone, the exchanges the mean, and the mean with one view's weight given to another.
    """
    steps = 1
    while views > 1 and comb(steps + views, views - 1) <= GRID_POINTS:
        steps += 1
    bars = combinations(range(steps + views - 1), views - 1)
    multiples = np.array([np.diff((-1, *places, steps + views - 1)) - 1 for places in bars]) / steps
    exchanges = 1 + np.eye(views)[:, None] - np.eye(views)
    return np.vstack([multiples, exchanges.reshape(-1, views) / views])


def search(paths: Sequence[Path], views: int, objective: str | int, rule: str) -> tuple[np.ndarray, ...]:
    """Search for the weights with the best objective over all cases pooled; deterministic.

    The `grid` is laid over all weights, then over a simplex around the best, a quarter as large. That simplex turns
    over from pass to pass, and is halved where nothing better was found, until steps are below `FINEST_STEP`.

    Args:
        paths: Files of candidate voxels. One at a time is in memory.
        views: How many views the cases have.
        objective: See `overlaps`.
        rule: Key of `blend.RULES`.

    Returns:
        The best weights, (views,), of equals the nearest to the mean; all that were tried, (points, views); and the
        `overlaps` of each case with each, (cases, points, 3, classes) int64.
    """
    pattern, corners, scale = grid(views), np.eye(views), -1 / 4
    points, counts = np.empty((0, views)), np.empty((len(paths), 0, 3, 0), dtype=np.int64)
    while abs(scale) * pattern[pattern > 0].min() > FINEST_STEP:
        new = pattern @ corners
        cases = (load_candidates(path).within(corners, rule) for path in paths)
        more = np.array([[overlaps(case.confusion(point, rule), objective) for point in new] for case in cases])
        points, counts = np.vstack([points, new]), np.hstack([counts, more]) if len(points) else more
        values = mean_dice(counts.sum(axis=0))
        best = np.lexsort((((points - 1 / views) ** 2).sum(axis=1).round(9), -values))[0]
        scale *= -1 if best >= len(points) - len(new) else -0.5
        corners = np.clip(points[best] + scale * (np.eye(views) - 1 / views), 0, None)
        corners /= corners.sum(axis=1, keepdims=True)
    return points[best], points, counts


def bootstrap(points: np.ndarray, counts: np.ndarray, patients: Sequence[str], seed: int) -> list[list[float]]:
    """Lower and upper end of each view's weight, when patients are drawn with replacement and the best point is taken.

    Args:
        points: (points, views) weights.
        counts: (cases, points, 3, classes), the `overlaps` of each case.
        patients: The patient of each case.
        seed: Of the draws.
    """
    flat, chosen = counts.reshape(len(counts), -1).astype(np.float64), []
    draws, which = np.unique(resamples(patients, DRAWS, seed), axis=0, return_inverse=True)  # few patients, few draws
    for draw in draws:
        values = mean_dice((draw @ flat).reshape(counts.shape[1:]))
        chosen.append(points[values == values.max()].mean(axis=0))
    ends = np.quantile(np.array(chosen)[which.ravel()], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends.T.tolist()
