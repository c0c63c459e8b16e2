"""The best point of the simplex of weights, and how much better any other could be.

A triangle of it (with more views: a smaller simplex) in whose corners a voxel has the same label has that label
throughout, so each triangle's Dice has an upper bound: every voxel still open is taken to be right. Triangles whose
bound does not pass the best weights found are dropped, the others are cut in two: branch and bound (Land and Doig
1960). What is left at the end says how much better any other weights could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations
from math import comb

import numpy as np

from knee3d.postprocess.contested import Contested, matrix_of
from knee3d.postprocess.intervals import LEVEL, resamples
from knee3d.postprocess.merit import merit, merits
from knee3d.postprocess.simplex import Cell, Point, Survey

GRID_POINTS = 300
CLOSE_ENOUGH = 1e-4
MOST_CELLS = 4096
FINEST = 1 / 1024
DRAWS = 1000


def grid(count: int) -> list[Point]:
    """About `GRID_POINTS` weights that are multiples of one step; every view alone among them, and the mean."""
    steps = 1
    while count > 1 and comb(steps + count, count - 1) <= GRID_POINTS:
        steps += 1
    points: list[tuple[int, ...]] = [()]
    for _ in range(count - 1):
        points = [(*point, k) for point in points for k in range(steps - sum(point) + 1)]
    return [mean(count), *(tuple(k / steps for k in (*point, steps - sum(point))) for point in points)]


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


def search(worth: Worth) -> float:
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


def bootstrap(worth: Worth, seed: int) -> list[tuple[float, float]]:
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


def mean(count: int) -> Point:
    """Equal weights."""
    return (1 / count,) * count
