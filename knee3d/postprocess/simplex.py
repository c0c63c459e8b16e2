"""The simplex of fusion weights, cut into pieces, and what is certain of the labels within each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from knee3d.postprocess.blend import mixed
from knee3d.postprocess.confusion import confusion_matrix
from knee3d.postprocess.contested import Contested
from knee3d.postprocess.decide import most_probable

Point = tuple[float, ...]
"""A weight for each view."""


class Cell:
    """A simplex within the simplex of weights.

    Attributes:
        corners: As many points as there are views.
        middle: Of its longest edge, once it is split.
        children: The two halves; empty before.
        closed: Whether nothing in it is worth looking at any more.
    """

    def __init__(self, corners: tuple[Point, ...]) -> None:
        self.corners = corners
        self.middle: Point | None = None
        self.children: tuple[Cell, ...] = ()
        self.closed = False

    def split(self) -> tuple[Cell, ...]:
        """Cut the longest edge, of equals the first, in the middle; both halves."""
        corners = np.array(self.corners)
        pairs = combinations(range(len(corners)), 2)
        first, second = max(pairs, key=lambda pair: float(np.linalg.norm(corners[pair[0]] - corners[pair[1]])))
        ends = self.corners[first], self.corners[second]
        middle = tuple((a + b) / 2 for a, b in zip(*ends, strict=True))
        self.middle = middle
        self.children = tuple(
            Cell(tuple(middle if i == end else corner for i, corner in enumerate(self.corners)))
            for end in (first, second)
        )
        return self.children

    @property
    def finished(self) -> bool:
        """Whether it, or all that it was split into, is closed."""
        self.closed = self.closed or (bool(self.children) and all(child.finished for child in self.children))
        return self.closed


class Survey:
    """Counts over cases, taken down a tree of cells: each passes on only the voxels whose label is open in it.

    Attributes:
        settled: Leaf to the confusion matrix of voxels that have one label throughout it.
        still_open: Leaf to the true classes of the others.
        matrices: Point to the whole confusion matrix there, for every middle that was not known.
    """

    def __init__(self, root: Cell, rule: str, known: frozenset[Point], classes: int) -> None:
        self.root, self.rule, self.known = root, rule, known
        self.settled: dict[Cell, np.ndarray] = defaultdict(lambda: np.zeros((classes, classes), np.int64))
        self.still_open: dict[Cell, np.ndarray] = defaultdict(lambda: np.zeros(classes, np.int64))
        self.matrices: dict[Point, np.ndarray] = defaultdict(lambda: np.zeros((classes, classes), np.int64))

    def add(self, case: Contested) -> None:
        """Count one case."""
        labels = {corner: self._labels(case.probabilities, corner) for corner in self.root.corners}
        self._visit(self.root, case, labels, set(self.known))

    def _visit(self, cell: Cell, case: Contested, labels: Mapping[Point, np.ndarray], counted: set[Point]) -> None:
        if cell.finished:
            return
        first, *others = (labels[corner] for corner in cell.corners)
        differs = np.logical_or.reduce([first != other for other in others])
        settled = case.settled + confusion_matrix(case.truth[~differs], first[~differs], case.classes)
        rest = Contested(case.views, case.probabilities[:, differs], case.truth[differs], settled, case.patient)
        if cell.middle is None:
            self.settled[cell] += settled
            self.still_open[cell] += np.bincount(rest.truth, minlength=case.classes)
            return
        inside = {corner: labels[corner][differs] for corner in cell.corners}
        inside[cell.middle] = self._labels(rest.probabilities, cell.middle)
        if cell.middle not in counted:
            counted.add(cell.middle)
            self.matrices[cell.middle] += settled + confusion_matrix(rest.truth, inside[cell.middle], case.classes)
        for child in cell.children:
            self._visit(child, rest, inside, counted)

    def _labels(self, probabilities: np.ndarray, weights: Point) -> np.ndarray:
        return most_probable(mixed(tuple(probabilities), weights, self.rule))
