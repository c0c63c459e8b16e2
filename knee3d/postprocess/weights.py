"""Fusion weights that maximise Dice on validation cases: the best there are, within a bound that is computed.

Weights form a simplex. A triangle of it (with more views: a smaller simplex) in whose corners a voxel has the same
label has that label throughout, so each triangle's Dice has an upper bound: every voxel still open is taken to be
right. Triangles whose bound does not pass the best weights found are dropped, the others are cut in two: branch and
bound (Land and Doig 1960). What is left at the end says how much better any other weights could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from knee3d.postprocess.blend import RULES, check_weights, mixed
from knee3d.postprocess.contested import CONFIDENT, Contested, Stored, matrix_of, narrowed, save_contested
from knee3d.postprocess.intervals import LEVEL, resamples
from knee3d.postprocess.simplex import Cell, Point, Survey

FOREGROUND, TISSUES = "foreground", "tissues"
OBJECTIVES = (FOREGROUND, TISSUES)
"""foreground: Dice of any tissue against background, the paper's. tissues: the mean of the tissues' Dice."""

GRID_POINTS = 300
CLOSE_ENOUGH = 1e-4
MOST_CELLS = 4096
FINEST = 1 / 1024
DRAWS = 1000
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
        rule: Key of `blend.RULES`, one whose weights are shares.
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


def merit(matrix: np.ndarray, objective: str | int, still_open: np.ndarray | None = None) -> float:
    """What a fusion is worth.

    Args:
        matrix: (classes, classes), rows truth, of all cases.
        objective: One of `OBJECTIVES`, or a class.
        still_open: (classes,) true classes of voxels that are not decided yet, and taken to become right.

    Returns:
        Dice, or the mean Dice of the tissues that truth has; NaN without any.
    """
    full = matrix if still_open is None else matrix + np.diag(still_open)
    return float(merits(full[None], objective)[0])


def merits(matrices: np.ndarray, objective: str | int) -> np.ndarray:
    """The same for many: (n, classes, classes) -> (n,) float64."""
    if objective == FOREGROUND:
        hits, true, found = (
            matrices[:, 1:, 1:].sum(axis=(1, 2)),
            matrices[:, 1:].sum((1, 2)),
            matrices[:, :, 1:].sum((1, 2)),
        )
        return 2 * hits / np.where(true + found > 0, true + found, np.nan)
    hits, true, found = np.diagonal(matrices, axis1=1, axis2=2), matrices.sum(axis=2), matrices.sum(axis=1)
    of_class = 2 * hits / np.where(true + found > 0, true + found, np.nan)
    if isinstance(objective, int):
        return of_class[:, objective]
    present = true[:, 1:] > 0
    sums = np.where(present, of_class[:, 1:], 0).sum(axis=1)
    return sums / np.where(present.any(axis=1), present.sum(axis=1), np.nan)


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
    tried: list[Sequence[float | Sequence[float]]] = [[weights[view] for view in views], _mean(len(views))]
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
        rule: Key of `blend.RULES`, one whose weights are shares.
        seed: Of the bootstrap.

    Raises:
        ValueError: There is no case, the views differ, there is no tissue to find, or the rule's weights are no shares.
    """
    views = _views(cases)
    if not RULES[rule].shares:
        raise ValueError(f"weights of rule {rule!r} are no shares and cannot be searched for")
    with TemporaryDirectory(prefix="knee3d-") as folder:
        narrow = Stored(tuple(Path(folder, f"{number}.npz") for number in range(len(cases))))
        for case, path in zip(cases, narrow.paths, strict=True):
            save_contested(narrowed(case), path)
        worth = Worth(narrow, objective, rule)
        worth.add(grid(len(views)))
        if not np.isfinite(list(worth.known.values())).all():
            raise ValueError("there is no tissue in the cases that fusion weights are fitted on")
        bound = _search(worth)
        drawn = _bootstrap(worth, seed)
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


def grid(count: int) -> list[Point]:
    """About `GRID_POINTS` weights that are multiples of one step; every view alone among them, and the mean."""
    steps = 1
    while count > 1 and comb(steps + count, count - 1) <= GRID_POINTS:
        steps += 1
    points: list[tuple[int, ...]] = [()]
    for _ in range(count - 1):
        points = [(*point, k) for point in points for k in range(steps - sum(point) + 1)]
    return [_mean(count), *(tuple(k / steps for k in (*point, steps - sum(point))) for point in points)]


class Worth:
    """What points of the simplex are worth, as far as they were looked at.

    Attributes:
        known: Point to its merit over all cases.
        tables: Point to the confusion matrix of each case, of the points that `add` was given.
        patients: Of each case.
    """

    def __init__(self, cases: Sequence[Contested], objective: str | int, rule: str) -> None:
        self.cases, self.objective, self.rule = cases, objective, rule
        self.known: dict[Point, float] = {}
        self.tables: dict[Point, list[np.ndarray]] = {}
        self.patients = [case.patient for case in cases]

    def add(self, points: Iterable[Point]) -> None:
        """Look at points, reading each case once."""
        new = [point for point in dict.fromkeys(points) if point not in self.tables]
        self.tables |= {point: [] for point in new}
        for case in self.cases:
            for point in new:
                self.tables[point].append(matrix_of(case, point, self.rule))
        self.known |= {point: merit(np.sum(self.tables[point], axis=0), self.objective) for point in new}

    @property
    def best(self) -> Point:
        """The point worth most, of equals the one nearest the mean."""
        count = len(next(iter(self.known)))
        return max(self.known, key=lambda point: (self.known[point], -sum(abs(w - 1 / count) for w in point), point))


def _search(worth: Worth) -> float:
    """Look for the best point, and say how much better than it any other could be."""
    count = len(worth.best)
    if count == 1:
        return 0.0
    step = 1 / 16
    while step > FINEST:  # uphill from the best of the grid, weight going from one view to another
        before = worth.best
        worth.add(_neighbours(before, step))
        step = step if worth.best != before else step / 2
    root = Cell(tuple(tuple(row) for row in np.eye(count).tolist()))
    leaves, bounds, highest = [root], [1.0], 0.0
    while leaves and len(leaves) <= MOST_CELLS:
        leaves = [child for leaf in leaves for half in leaf.split() for child in half.split()]
        survey = Survey(root, worth.rule, frozenset(worth.known), worth.cases[0].classes)
        for case in worth.cases:
            survey.add(case)
        worth.known |= {point: merit(matrix, worth.objective) for point, matrix in survey.matrices.items()}
        best = worth.known[worth.best]
        bounds = [merit(survey.settled[leaf], worth.objective, survey.still_open[leaf]) for leaf in leaves]
        for leaf, bound in zip(leaves, bounds, strict=True):
            leaf.closed = bound <= best + CLOSE_ENOUGH
            highest = max(highest, bound) if leaf.closed else highest
        bounds = [bound for leaf, bound in zip(leaves, bounds, strict=True) if not leaf.closed]
        leaves = [leaf for leaf in leaves if not leaf.closed]
    return max(0.0, max([highest, *bounds]) - worth.known[worth.best])


def _neighbours(point: Point, step: float) -> list[Point]:
    """The points to which up to `step` of one view's weight goes to another."""
    found = []
    for giver, taker in permutations(range(len(point)), 2):
        moved = min(step, point[giver])
        if moved > 0:
            shift = {giver: -moved, taker: moved}
            found.append(tuple(weight + shift.get(i, 0.0) for i, weight in enumerate(point)))
    return found


def _bootstrap(worth: Worth, seed: int) -> list[tuple[float, float]]:
    """Interval of each view's weight: the best of the points looked at, for patients drawn again and again."""
    if len(set(worth.patients)) < 2:
        return []
    worth.add([worth.best])
    points = np.array(list(worth.tables))
    tables = np.array(list(worth.tables.values())).swapaxes(0, 1)  # (cases, points, classes, classes)
    chosen = []
    for draw in resamples(worth.patients, DRAWS, seed):
        values = merits(np.tensordot(draw, tables, axes=1), worth.objective)
        chosen.append(points[values == values.max()].mean(axis=0))
    ends = np.quantile(chosen, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def _views(cases: Sequence[Contested]) -> tuple[str, ...]:
    views = {case.views for case in cases}
    if len(views) != 1:
        raise ValueError(f"weights need cases with the same views, got {sorted(views)[:5]}")
    return views.pop()


def _mean(count: int) -> Point:
    return (1 / count,) * count
