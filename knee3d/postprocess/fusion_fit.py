"""Fit fusion weights and thresholds that maximise Dice on validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from knee3d.postprocess.assessment import LEVEL, bootstrap_samples
from knee3d.postprocess.blend import Shares, Weights, blend_chunk, check_weights
from knee3d.postprocess.candidate_voxels import CONFIDENT, load_candidates
from knee3d.postprocess.confusion_matrix import FOREGROUND, dice, foreground_matrix

OBJECTIVES = (FOREGROUND, "tissues")
"""foreground: Dice of any tissue against background, as in the paper. tissues: mean Dice of the tissues."""

GRID_POINTS, FINEST_STEP = 300, 5e-4
DRAWS = 1000
THRESHOLDS = np.round(np.arange(1 - CONFIDENT, CONFIDENT + 0.005, 0.01), 2)


@dataclass(frozen=True)
class Fusion:
    """How the views' probabilities become labels, and the Dice of that on the cases that it was fitted on.

    Attributes:
        weights: View name to weight, or to a weight for each class.
        rule: Key of `blend.RULES`.
        thresholds: Of each tissue; None for the most probable class.
        objective: One of `OBJECTIVES`.
        dice: The objective over all cases pooled.
        alone: View name to the objective of that view by itself.
        equal: The objective of equal weights.
        intervals: View name to the lower and upper end of the weight's bootstrap interval over patients; empty where
            there are fewer than two patients, or the weights were given or are of each class.
    """

    weights: Weights
    rule: str
    thresholds: tuple[float, ...] | None
    objective: str
    dice: float
    alone: Mapping[str, float]
    equal: float
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class FusionConfig:
    """How fusion is to be fitted.

    Attributes:
        objective: One of `OBJECTIVES`.
        rule: Key of `blend.RULES`.
        weights: View name to weight, by hand; None to search for the best.
        per_class: Whether tissues may have weights of their own.
        thresholds: Whether tissues may have thresholds.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is no such objective or rule, or weights by hand are not shares.
    """

    objective: str = FOREGROUND
    rule: str = "linear"
    weights: Mapping[str, float] | None = None
    per_class: bool = False
    thresholds: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.objective!r}; there are: {', '.join(OBJECTIVES)}")
        check_weights({"": 1.0} if self.weights is None else self.weights, self.rule)


def fit_fusion(paths: Sequence[Path], wanted: FusionConfig) -> Fusion:
    """Fit weights and thresholds as wanted; those of single tissues are kept only where the objective gains.

    Args:
        paths: Files of the candidate voxels of validation cases, see `CandidateVoxels.save`. They are read one at a
            time, several times over.
        wanted: How fusion is to be fitted.

    Raises:
        ValueError: As `fusion_with_given_weights` and `fit_weights`.
    """
    if wanted.weights is None:
        fusion = fit_weights(paths, wanted.objective, wanted.rule, wanted.seed)
    else:
        fusion = fusion_with_given_weights(paths, wanted.weights, wanted.objective, wanted.rule)
    fusion = fit_class_weights(paths, fusion) if wanted.per_class else fusion
    return fit_thresholds(paths, fusion) if wanted.thresholds else fusion


def fusion_with_given_weights(
    paths: Sequence[Path], weights: Weights, objective: str = FOREGROUND, rule: str = "linear"
) -> Fusion:
    """The fusion with weights chosen by hand, such as the paper's, and its Dice.

    Raises:
        ValueError: There is no case or no tissue in them, or the weights are not for their views.
    """
    views, _ = _views_and_patients(paths)
    if set(weights) != set(views):
        raise ValueError(f"weights are for {sorted(weights)}, but views are {sorted(views)}")
    check_weights(weights, rule)
    ordered, equal = {view: weights[view] for view in views}, [1 / len(views)] * len(views)
    tried: list[Shares] = [[*ordered.values()], equal, *np.eye(len(views)).tolist()]
    matrices = np.sum([[case.confusion(each, rule) for each in tried] for case in map(load_candidates, paths)], axis=0)
    if not matrices[0, 1:].any():
        raise ValueError("there is no tissue in the masks of the cases that fusion weights are for")
    reached, equally, *alone = objective_dice(matrices, objective).tolist()
    return Fusion(ordered, rule, None, objective, reached, dict(zip(views, alone, strict=True)), equally, {})


def fit_weights(paths: Sequence[Path], objective: str = FOREGROUND, rule: str = "linear", seed: int = 0) -> Fusion:
    """The weights that maximise the objective over all cases pooled, see `search_weights`.

    Args:
        paths: As for `fit_fusion`.
        objective: One of `OBJECTIVES`.
        rule: Key of `blend.RULES`.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is no case, the views differ, or there is no tissue to find.
    """
    views, patients = _views_and_patients(paths)
    best, points, matrices = search_weights(paths, len(views), objective, rule)
    fusion = fusion_with_given_weights(paths, dict(zip(views, best.tolist(), strict=True)), objective, rule)
    if len(set(patients)) < 2:
        return fusion
    ends = bootstrap_weights(points, matrices, objective, patients, seed)
    return replace(fusion, intervals=dict(zip(views, ends, strict=True)))


def fit_class_weights(paths: Sequence[Path], fusion: Fusion) -> Fusion:
    """A weight for each view and class: each tissue gets those that are best for its Dice, background the fusion's.

    Args:
        paths: Those that the fusion was fitted on.
        fusion: With one weight for each view.

    Returns:
        The fusion with such weights if its objective gains, otherwise the fusion as it is.
    """
    columns = [list(fusion.weights.values())]
    for tissue in range(1, len(load_candidates(paths[0]).others)):
        best, _, matrices = search_weights(paths, len(fusion.weights), tissue, fusion.rule)
        columns.append(best.tolist() if matrices[:, 0, tissue].any() else columns[0])  # where truth has it
    weights = dict(zip(fusion.weights, zip(*columns, strict=True), strict=True))
    found = fusion_with_given_weights(paths, weights, fusion.objective, fusion.rule)
    return found if found.dice > fusion.dice else fusion


def fit_thresholds(paths: Sequence[Path], fusion: Fusion) -> Fusion:
    """A threshold for each tissue, each the best for its tissue's Dice by itself.

    Args:
        paths: Those that the fusion was fitted on.
        fusion: How their views are blended.

    Returns:
        The fusion with thresholds if its objective gains, otherwise the fusion as it is.
    """
    weights, classes = tuple(fusion.weights.values()), len(load_candidates(paths[0]).others)
    hits, sizes = np.zeros((2, classes, len(THRESHOLDS)))
    for case in map(load_candidates, paths):
        blended = blend_chunk(tuple(case.probabilities), weights, fusion.rule)
        for tissue in range(1, classes):
            above, is_it = blended[:, tissue, None] > THRESHOLDS, case.truth == tissue
            hits[tissue] += case.others[tissue, tissue] + above[is_it].sum(axis=0)
            sizes[tissue] += case.others[tissue].sum() + case.others[:, tissue].sum() + is_it.sum() + above.sum(axis=0)
    limits = tuple(THRESHOLDS[(hits / np.maximum(sizes, 1))[1:].argmax(axis=1)].tolist())
    matrix = np.sum([case.confusion(weights, fusion.rule, limits) for case in map(load_candidates, paths)], axis=0)
    reached = float(objective_dice(matrix, fusion.objective))
    return replace(fusion, thresholds=limits, dice=reached) if reached > fusion.dice else fusion


def objective_dice(matrices: np.ndarray, objective: str | int) -> np.ndarray:
    """Mean Dice of the tissues that truth has; 0 where it has none.

    Args:
        matrices: (..., classes, classes) confusion matrices, rows truth.
        objective: One of `OBJECTIVES`, or a class for its Dice alone.

    Returns:
        (...) float64.
    """
    matrices = foreground_matrix(matrices) if objective == FOREGROUND else matrices
    counted = slice(objective, objective + 1) if isinstance(objective, int) else slice(1, None)
    present = matrices.sum(axis=-1)[..., counted] > 0
    return dice(matrices)[..., counted].sum(axis=-1, where=present) / np.maximum(present.sum(axis=-1), 1)


def weight_grid(views: int) -> np.ndarray:
    """Weights (points, views) all over the simplex: multiples of a step, about `GRID_POINTS`; exchanges from the mean.

    The multiples hold every view alone, the exchanges the mean, and the mean with one view's weight given to another.
    """
    steps = max(steps for steps in range(1, GRID_POINTS) if comb(steps + views - 1, steps) <= GRID_POINTS)
    bars = combinations(range(steps + views - 1), views - 1)
    multiples = np.array([np.diff((-1, *places, steps + views - 1)) - 1 for places in bars]) / steps
    exchanges = 1 + np.eye(views)[:, None] - np.eye(views)
    return np.vstack([multiples, exchanges.reshape(-1, views) / views])


def search_weights(paths: Sequence[Path], views: int, objective: str | int, rule: str) -> tuple[np.ndarray, ...]:
    """Search for the weights with the best objective over all cases pooled; deterministic.

    The `weight_grid` is laid over all weights, then over a simplex around the best, a quarter as large. That simplex
    turns over from pass to pass, and is halved where nothing better was found, until steps are below `FINEST_STEP`.

    Args:
        paths: Files of candidate voxels. One at a time is in memory.
        views: How many views the cases have.
        objective: See `objective_dice`.
        rule: Key of `blend.RULES`.

    Returns:
        The best weights, (views,), of equals the nearest to the mean; all that were tried, (points, views); and the
        confusion matrix of each case with each, (cases, points, classes, classes) int64.
    """
    pattern, corners, scale = weight_grid(views), np.eye(views), -1 / 4
    tried, counted = [], []
    while abs(scale) * pattern[pattern > 0].min() > FINEST_STEP:
        tried.append(pattern @ corners)
        cases = (load_candidates(path).within(corners, rule) for path in paths)
        counted.append(np.array([[case.confusion(point, rule) for point in tried[-1]] for case in cases]))
        points, matrices = np.concatenate(tried), np.concatenate(counted, axis=1)
        from_mean = ((points - 1 / views) ** 2).sum(axis=1).round(9)
        best = np.lexsort((from_mean, -objective_dice(matrices.sum(axis=0), objective)))[0]
        scale *= -1 if best >= len(points) - len(pattern) else -0.5
        corners = np.clip(points[best] + scale * (np.eye(views) - 1 / views), 0, None)
        corners /= corners.sum(axis=1, keepdims=True)
    return points[best], points, matrices


def bootstrap_weights(
    points: np.ndarray, matrices: np.ndarray, objective: str, patients: Sequence[str], seed: int
) -> list[tuple[float, float]]:
    """Lower and upper end of each view's weight, when patients are drawn with replacement and the best point is taken.

    Args:
        points: (points, views) weights.
        matrices: (cases, points, classes, classes), of each case.
        objective: One of `OBJECTIVES`.
        patients: The patient of each case.
        seed: Of the draws.
    """
    chosen, flat = [], matrices.reshape(len(matrices), -1).astype(np.float64)
    for draw in bootstrap_samples(patients, DRAWS, seed):
        values = objective_dice((draw @ flat).reshape(matrices.shape[1:]), objective)
        chosen.append(points[values == values.max()].mean(axis=0))
    low, high = np.quantile(chosen, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).tolist()
    return list(zip(low, high, strict=True))


def _views_and_patients(paths: Sequence[Path]) -> tuple[tuple[str, ...], list[str]]:
    heads = [(case.views, case.patient) for case in map(load_candidates, paths)]
    views = {views for views, _ in heads}
    if len(views) != 1:
        raise ValueError(f"weights need cases with the same views, got {sorted(views)[:5]}")
    return views.pop(), [patient for _, patient in heads]
