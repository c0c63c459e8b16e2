"""Candidate voxels: voxels whose fused label depends on the fusion weights.

Where every view gives the same class more than `CONFIDENT`, every fusion gives that class: a weighted mean of
probabilities or of their logarithms, a vote, and one with thresholds between 1 - `CONFIDENT` and `CONFIDENT`. Such
voxels are counted once. The others, about one in a hundred, are kept in a file, so that any fusion is scored exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from knee3d.atomic import whole_file
from knee3d.geometry.volume import Volume
from knee3d.postprocess.blend import Shares, as_probabilities, blend_chunk, check_views
from knee3d.postprocess.confusion_matrix import confusion_matrix
from knee3d.postprocess.decision import decide_chunk

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

    def confusion(self, weights: Shares, rule: str, thresholds: Sequence[float] | None = None) -> np.ndarray:
        """Confusion matrix of the whole case, (classes, classes) int64, as decide(blend(...)) gives it.

        Args:
            weights: Of each view, in their order; one weight, or one for each class.
            rule: Key of `blend.RULES`.
            thresholds: Of each tissue, between 1 - `CONFIDENT` and `CONFIDENT`; None for the most probable class.
        """
        labels = decide_chunk(blend_chunk(tuple(self.probabilities), weights, rule), thresholds)
        return self.others + confusion_matrix(self.truth, labels, len(self.others))

    def within(self, corners: np.ndarray, rule: str) -> CandidateVoxels:
        """Only the voxels whose label depends on which weights between `corners`, (n, views), are taken.

        A label that is the same at all corners of a simplex of weights is the same throughout it. For one weight for
        each view, without thresholds.
        """
        labels = np.stack([decide_chunk(blend_chunk(tuple(self.probabilities), corner, rule)) for corner in corners])
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
            case = CandidateVoxels(tuple(content["views"].tolist()), str(content["patient"]), *arrays)
        _check(case)
        return case
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the command again") from error


def _check(case: CandidateVoxels) -> None:
    """Refuse arrays that do not go together, or that hold no probabilities, classes or counts."""
    classes = case.others.shape[-1]
    if case.others.shape != (classes, classes) or case.others.dtype.kind != "i" or case.others.min() < 0:
        raise ValueError("its counts are none")
    if case.probabilities.shape != (len(case.views), len(case.truth), classes) or case.truth.ndim != 1:
        raise ValueError("its arrays do not go together")
    if case.truth.size and not (
        case.truth.dtype == np.uint8
        and case.truth.max() < classes
        and case.probabilities.dtype == np.float32
        and case.probabilities.min() >= 0
        and case.probabilities.max() <= 1.001
    ):
        raise ValueError("it holds no classes and probabilities")


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
    if not truth.same_grid(first):
        raise ValueError(f"view {name!r} of {first.shape} is not on the grid of the truth, {truth.shape}")
    classes, found = first.array.shape[-1], []
    others = np.zeros((classes, classes), dtype=np.int64)
    for true, *parts in zip(truth.array, *(view.array for view in views.values()), strict=True):
        said = np.stack([as_probabilities(part) for part in parts])
        least = said.min(axis=0)
        kept = least.max(axis=-1) <= CONFIDENT
        others += confusion_matrix(true[~kept], least[~kept].argmax(axis=-1), classes)
        found.append((said[:, kept], true[kept]))
    probabilities, truths = zip(*found, strict=True)
    return CandidateVoxels(tuple(views), patient, np.concatenate(probabilities, axis=1), np.concatenate(truths), others)
