"""Candidate voxels: the voxels of a case whose fused label depends on how its views are fused.

Where every view gives the same class more than `CONFIDENT`, every fusion gives that class: a weighted mean of
probabilities or of their logarithms, a vote, and one with thresholds between 1 - `CONFIDENT` and `CONFIDENT`. Such
voxels are counted once. The others, about one in a hundred, are kept in a file, so that any fusion is scored exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.postprocess.blend import as_probabilities, check_views, mixed
from knee3d.postprocess.confusion import confusion_matrix
from knee3d.postprocess.decide import most_probable
from knee3d.postprocess.slabs import pieces

CONFIDENT = 0.8


@dataclass(frozen=True, eq=False)
class CandidateVoxels:
    """The candidate voxels of one case.

    Attributes:
        views: Names, in the order of the first axis of `probabilities`.
        patient: The patient whose knee it is.
        probabilities: (views, voxels, classes) float32.
        truth: (voxels,) uint8 true classes.
        others: (classes, classes) int64 confusion matrix of all other voxels, rows truth.
    """

    views: tuple[str, ...]
    patient: str
    probabilities: np.ndarray
    truth: np.ndarray
    others: np.ndarray

    def confusion(
        self, weights: Sequence[float | Sequence[float]], rule: str, thresholds: Sequence[float] | None = None
    ) -> np.ndarray:
        """Confusion matrix of the whole case, (classes, classes) int64, as decide(blend(...)) gives it.

        Args:
            weights: Of each view, in their order; one weight, or one for each class.
            rule: Key of `blend.RULES`.
            thresholds: Of each tissue, between 1 - `CONFIDENT` and `CONFIDENT`; None for the most probable class.
        """
        labels = most_probable(mixed(tuple(self.probabilities), weights, rule), thresholds)
        return self.others + confusion_matrix(self.truth, labels, len(self.others))

    def within(self, corners: np.ndarray, rule: str) -> CandidateVoxels:
        """Only the voxels whose label depends on which weights between `corners`, (n, views), are taken.

        A label that is the same at all corners of a simplex of weights is the same throughout it. For one weight for
        each view, without thresholds.
        """
        labels = np.stack([most_probable(mixed(tuple(self.probabilities), corner, rule)) for corner in corners])
        kept = (labels != labels[0]).any(axis=0)
        others = self.others + confusion_matrix(self.truth[~kept], labels[0][~kept], len(self.others))
        return replace(self, probabilities=self.probabilities[:, kept], truth=self.truth[kept], others=others)

    def save(self, path: Path) -> None:
        """Write an .npz file, whole or not at all."""
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, **vars(self))


def load_candidates(path: Path) -> CandidateVoxels:
    """Read what `CandidateVoxels.save` wrote.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as content:
            arrays = [content[name] for name in ("probabilities", "truth", "others")]
            return CandidateVoxels(tuple(content["views"].tolist()), str(content["patient"]), *arrays)
    except (KeyError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the command again") from error


def find_candidates(truth: Volume, views: Mapping[str, Volume], patient: str) -> CandidateVoxels:
    """Find the candidate voxels of a case.

    Args:
        truth: Integer labels, 0 is background.
        views: View name to probabilities (*shape, classes) on the grid of `truth`, adding up to 1.
        patient: The patient whose knee it is.

    Raises:
        ValueError: There is no view, one is not on the grid of the truth, or truth has labels beyond the classes.
    """
    check_views(views)
    name, first = next(iter(views.items()))
    classes = first.array.shape[-1]
    if not truth.same_grid(first):
        raise ValueError(f"view {name!r} of {first.shape} is not on the grid of the truth, {truth.shape}")
    if truth.array.min() < 0 or truth.array.max() >= classes:
        raise ValueError(f"truth has labels up to {truth.array.max()}, but the views have {classes} classes")
    others, found = np.zeros((classes, classes), dtype=np.int64), []
    numbers = np.arange(1, classes + 1, dtype=np.float32)
    for piece in pieces(first.array.shape, 4 * classes):
        parts = [as_probabilities(view.array[piece]) for view in views.values()]
        certain = (np.minimum.reduce(parts) > CONFIDENT).astype(np.float32) @ numbers  # 1 + the class, or 0
        kept, true = certain == 0, truth.array[piece].astype(np.uint8, copy=False)
        others += confusion_matrix(true[~kept], certain[~kept].astype(np.uint8) - np.uint8(1), classes)
        found.append((np.stack([part[kept] for part in parts]), true[kept]))
    probabilities, truths = zip(*found, strict=True)
    return CandidateVoxels(tuple(views), patient, np.concatenate(probabilities, axis=1), np.concatenate(truths), others)
