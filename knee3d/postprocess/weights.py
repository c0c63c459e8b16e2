"""Fusion weights and thresholds that maximise Dice on validation cases: the best there are, see `search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from knee3d.postprocess.blend import check_weights, mixed
from knee3d.postprocess.contested import CONFIDENT, Contested, Stored, matrix_of, narrowed, save_contested
from knee3d.postprocess.merit import FOREGROUND, OBJECTIVES, merit
from knee3d.postprocess.search import Worth, bootstrap, grid, mean, search

THRESHOLDS = np.round(np.arange(1 - CONFIDENT, CONFIDENT + 0.005, 0.01), 2)


@dataclass(frozen=True)
class Fusion:
    """How opinions become labels, and what that was worth on the cases it was fitted on.

    Attributes:
        weights: View name to weight, or to a weight for each class.
        rule: Key of `blend.RULES`.
        thresholds: Of each tissue; None for the most probable class.
        objective: One of `OBJECTIVES`.
        dice: Its value, of all cases pooled.
        alone: Its value for each view by itself.
        equal: Its value for equal weights.
        bound: No weights are better by more than this; NaN where none were searched for.
        intervals: View name to the lower and upper end of the weight's bootstrap interval over patients; empty where
            there are fewer than two patients, or none were searched for.
    """

    weights: Mapping[str, float | tuple[float, ...]]
    rule: str
    thresholds: tuple[float, ...] | None
    objective: str
    dice: float
    alone: Mapping[str, float]
    equal: float
    bound: float
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
        ValueError: There is no such objective or rule, or weights by hand are none.
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


def fit(cases: Sequence[Contested], wanted: Wanted) -> Fusion:
    """Weights and thresholds as wanted, each step kept only where the objective gains; see the functions below."""
    if wanted.weights is None:
        fusion = fit_weights(cases, wanted.objective, wanted.rule, wanted.seed)
    else:
        fusion = given_weights(cases, wanted.weights, wanted.objective, wanted.rule)
    fusion = fit_class_weights(cases, fusion) if wanted.per_class else fusion
    return fit_thresholds(cases, fusion) if wanted.thresholds else fusion


def given_weights(
    cases: Sequence[Contested],
    weights: Mapping[str, float | tuple[float, ...]],
    objective: str = FOREGROUND,
    rule: str = "linear",
) -> Fusion:
    """What weights chosen by hand are worth, such as the paper's.

    Raises:
        ValueError: There is no case or no tissue in them, or the weights are not for their views.
    """
    views = _views(cases)
    check_weights(weights, rule)
    if set(weights) != set(views):
        raise ValueError(f"weights are for {sorted(weights)}, but views are {sorted(views)}")
    tried: list[Sequence[float | Sequence[float]]] = [[weights[view] for view in views], mean(len(views))]
    values = [*tried, *np.eye(len(views)).tolist()]
    chosen, equal, *alone = (merit(sum_of(cases, value, rule), objective) for value in values)
    if not np.isfinite(chosen):
        raise ValueError("there is no tissue in the cases that fusion weights are for")
    return Fusion({view: weights[view] for view in views}, rule, None, objective, chosen,
                  dict(zip(views, alone, strict=True)), equal, float("nan"), {})  # fmt: skip


def fit_weights(
    cases: Sequence[Contested], objective: str | int = FOREGROUND, rule: str = "linear", seed: int = 0
) -> Fusion:
    """The weights that maximise the objective over all cases pooled.

    Every view alone, the mean and a regular grid are tried, then branch and bound goes on until no weights can be
    better by more than `CLOSE_ENOUGH`, or `MOST_CELLS` pieces of the simplex are open. Of equals the weights nearest
    the mean win. Deterministic.

    Args:
        cases: Validation cases of the same views. They are read one at a time, several times over: a sequence that
            reads each from a file keeps one of them in memory.
        objective: One of `OBJECTIVES`, or a class.
        rule: Key of `blend.RULES`.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is no case, the views differ, or there is no tissue to find.
    """
    views = _views(cases)
    with TemporaryDirectory(prefix="knee3d-") as folder:
        narrow = Stored(tuple(Path(folder, f"{number}.npz") for number in range(len(cases))))
        for case, path in zip(cases, narrow.paths, strict=True):
            save_contested(narrowed(case), path)
        worth = Worth(narrow, objective, rule)
        worth.add(grid(len(views)))
        if not np.isfinite(list(worth.known.values())).all():
            raise ValueError("there is no tissue in the cases that fusion weights are fitted on")
        bound = search(worth)
        drawn = bootstrap(worth, seed)
    chosen = dict(zip(views, map(float, worth.best), strict=True))
    fusion = given_weights(cases, chosen, objective if isinstance(objective, str) else FOREGROUND, rule)
    return replace(fusion, bound=bound, intervals=dict(zip(views, drawn, strict=False)))


def fit_class_weights(cases: Sequence[Contested], fusion: Fusion) -> Fusion:
    """A weight for each view and class: each tissue gets those that are best for its Dice, background the fusion's.

    Args:
        cases: Those that the fusion was fitted on.
        fusion: With one weight for each view.

    Returns:
        The fusion with such weights if its objective gains, otherwise the fusion as it is.
    """
    truth = np.sum(
        [case.settled.sum(axis=1) + np.bincount(case.truth, minlength=case.classes) for case in cases], axis=0
    )
    columns = [tuple(fusion.weights.values())]
    for tissue in range(1, len(truth)):
        fitted = fit_weights(cases, tissue, fusion.rule).weights if truth[tissue] else fusion.weights
        columns.append(tuple(fitted.values()))
    weights = dict(zip(fusion.weights, zip(*columns, strict=True), strict=True))
    found = given_weights(cases, weights, fusion.objective, fusion.rule)
    return replace(found, intervals={}) if found.dice > fusion.dice else fusion


def fit_thresholds(cases: Sequence[Contested], fusion: Fusion) -> Fusion:
    """A threshold for each tissue, each the best for its tissue's Dice by itself.

    Args:
        cases: Those that the fusion was fitted on.
        fusion: How their views are blended.

    Returns:
        The fusion with thresholds if its objective gains, otherwise the fusion as it is.
    """
    weights, classes = tuple(fusion.weights.values()), cases[0].classes
    found, hits = np.zeros((2, classes - 1, len(THRESHOLDS)), dtype=np.int64)
    true = np.zeros(classes - 1, dtype=np.int64)
    for case in cases:
        blended = mixed(tuple(case.probabilities), weights, fusion.rule)
        for tissue in range(1, classes):
            is_it = case.truth == tissue
            found[tissue - 1] += case.settled[:, tissue].sum() + _above(blended[:, tissue])
            hits[tissue - 1] += case.settled[tissue, tissue] + _above(blended[is_it, tissue])
            true[tissue - 1] += case.settled[tissue].sum() + np.count_nonzero(is_it)
    alone = 2 * hits / np.maximum(found + true[:, None], 1)
    limits = tuple(THRESHOLDS[alone.argmax(axis=1)].tolist())
    reached = merit(sum_of(cases, weights, fusion.rule, limits), fusion.objective)
    return replace(fusion, thresholds=limits, dice=reached) if reached > fusion.dice else fusion


def _above(values: np.ndarray) -> np.ndarray:
    """How many of the values lie above each of the thresholds."""
    places = np.searchsorted(THRESHOLDS, values, side="left")
    return np.cumsum(np.bincount(places, minlength=len(THRESHOLDS) + 1)[::-1])[::-1][1:]


def sum_of(
    cases: Sequence[Contested],
    weights: Sequence[float | Sequence[float]],
    rule: str = "linear",
    thresholds: Sequence[float] | None = None,
) -> np.ndarray:
    """The confusion matrices of all cases added up, see `matrix_of`."""
    return np.sum([matrix_of(case, weights, rule, thresholds) for case in cases], axis=0)


def _views(cases: Sequence[Contested]) -> tuple[str, ...]:
    views = {case.views for case in cases}
    if len(views) != 1:
        raise ValueError(f"weights need cases with the same views, got {sorted(views)[:5]}")
    return views.pop()
