"""Fusion weights and thresholds that maximise Dice on validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from knee3d.postprocess.blend import check_weights, mixed
from knee3d.postprocess.candidate_voxels import CONFIDENT, load_candidates
from knee3d.postprocess.fusion_fit import FOREGROUND, OBJECTIVES, bootstrap, mean_dice, overlaps, search

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

    weights: Mapping[str, float | tuple[float, ...]]
    rule: str
    thresholds: tuple[float, ...] | None
    objective: str
    dice: float
    alone: Mapping[str, float]
    equal: float
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Wanted:
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


def fit(paths: Sequence[Path], wanted: Wanted) -> Fusion:
    """Fit weights and thresholds as wanted; those of single tissues are kept only where the objective gains.

    Args:
        paths: Files of the candidate voxels of validation cases, see `CandidateVoxels.save`. They are read one at a
            time, several times over.
        wanted: How fusion is to be fitted.

    Raises:
        ValueError: As `given_weights` and `fit_weights`.
    """
    if wanted.weights is None:
        fusion = fit_weights(paths, wanted.objective, wanted.rule, wanted.seed)
    else:
        fusion = given_weights(paths, wanted.weights, wanted.objective, wanted.rule)
    fusion = fit_class_weights(paths, fusion) if wanted.per_class else fusion
    return fit_thresholds(paths, fusion) if wanted.thresholds else fusion


def given_weights(
    paths: Sequence[Path],
    weights: Mapping[str, float | tuple[float, ...]],
    objective: str = FOREGROUND,
    rule: str = "linear",
) -> Fusion:
    """The fusion with weights chosen by hand, such as the paper's, and its Dice.

    Raises:
        ValueError: There is no case or no tissue in them, or the weights are not for their views.
    """
    views, _ = _views_and_patients(paths)
    check_weights(weights, rule)
    if set(weights) != set(views):
        raise ValueError(f"weights are for {sorted(weights)}, but views are {sorted(views)}")
    ordered, equal = {view: weights[view] for view in views}, [1 / len(views)] * len(views)
    tried: list[Sequence[float | Sequence[float]]] = [[*ordered.values()], equal, *np.eye(len(views)).tolist()]
    matrices = np.sum([[case.confusion(each, rule) for each in tried] for case in map(load_candidates, paths)], axis=0)
    dice, dice_of_equal, *alone = (float(mean_dice(overlaps(matrix, objective))) for matrix in matrices)
    if not np.isfinite(dice):
        raise ValueError("there is no tissue in the masks of the cases that fusion weights are for")
    return Fusion(ordered, rule, None, objective, dice, dict(zip(views, alone, strict=True)), dice_of_equal, {})


def fit_weights(paths: Sequence[Path], objective: str = FOREGROUND, rule: str = "linear", seed: int = 0) -> Fusion:
    """The weights that maximise the objective over all cases pooled, see `fusion_fit.search`.

    Args:
        paths: As for `fit`.
        objective: One of `OBJECTIVES`.
        rule: Key of `blend.RULES`.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is no case, the views differ, or there is no tissue to find.
    """
    views, patients = _views_and_patients(paths)
    best, points, counts = search(paths, len(views), objective, rule)
    fusion = given_weights(paths, dict(zip(views, best.tolist(), strict=True)), objective, rule)
    if len(set(patients)) < 2:
        return fusion
    ends = bootstrap(points, counts, patients, seed)
    return replace(fusion, intervals={view: (low, high) for view, (low, high) in zip(views, ends, strict=True)})


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
        best, _, counts = search(paths, len(fusion.weights), tissue, fusion.rule)
        columns.append(best.tolist() if counts[:, 0, 1].any() else columns[0])  # where truth has it
    weights = dict(zip(fusion.weights, zip(*columns, strict=True), strict=True))
    found = given_weights(paths, weights, fusion.objective, fusion.rule)
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
    found, hits = np.zeros((2, classes - 1, len(THRESHOLDS)), dtype=np.int64)
    true = np.zeros(classes - 1, dtype=np.int64)
    for case in map(load_candidates, paths):
        blended = mixed(tuple(case.probabilities), weights, fusion.rule)
        for tissue in range(1, classes):
            is_it = case.truth == tissue
            found[tissue - 1] += case.others[:, tissue].sum() + _above(blended[:, tissue])
            hits[tissue - 1] += case.others[tissue, tissue] + _above(blended[is_it, tissue])
            true[tissue - 1] += case.others[tissue].sum() + np.count_nonzero(is_it)
    alone = 2 * hits / np.maximum(found + true[:, None], 1)
    limits = tuple(THRESHOLDS[alone.argmax(axis=1)].tolist())
    matrix = np.sum([case.confusion(weights, fusion.rule, limits) for case in map(load_candidates, paths)], axis=0)
    reached = float(mean_dice(overlaps(matrix, fusion.objective)))
    return replace(fusion, thresholds=limits, dice=reached) if reached > fusion.dice else fusion


def _above(values: np.ndarray) -> np.ndarray:
    """How many of the values lie above each of the thresholds."""
    places = np.searchsorted(THRESHOLDS, values, side="left")
    return np.cumsum(np.bincount(places, minlength=len(THRESHOLDS) + 1)[::-1])[::-1][1:]


def _views_and_patients(paths: Sequence[Path]) -> tuple[tuple[str, ...], list[str]]:
    heads = [(case.views, case.patient) for case in map(load_candidates, paths)]
    views = {views for views, _ in heads}
    if len(views) != 1:
        raise ValueError(f"weights need cases with the same views, got {sorted(views)[:5]}")
    return views.pop(), [patient for _, patient in heads]
