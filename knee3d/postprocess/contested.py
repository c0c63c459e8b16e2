"""The voxels of a case on which fusion has a say.

Where every view names the same class, so does every weighted mean of them, whatever the weights: what is linear in the
weights and largest at all corners of a simplex is largest within it. The same holds for weighted means of logarithms
and for votes. Such voxels are counted once; the others, a few percent, are kept, and nothing is approximated. Voxels on
which the views agree without being `CONFIDENT` are kept too, because thresholds may decide otherwise.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.postprocess.blend import as_probabilities, check_views, mixed
from knee3d.postprocess.confusion import confusion_matrix
from knee3d.postprocess.decide import clear_background, most_probable
from knee3d.postprocess.slabs import Piece, over_pieces

CONFIDENT = 0.8


@dataclass(frozen=True, eq=False)
class Contested:
    """What the scores of a case depend on, as far as fusion decides them.

    Attributes:
        views: Names, in the order of the first axis of `probabilities`.
        probabilities: (views, voxels, classes) float32.
        truth: (voxels,) uint8 classes.
        settled: (classes, classes) int64, the confusion matrix of all other voxels.
        patient: Whose knee it is.
    """

    views: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    settled: np.ndarray
    patient: str

    @property
    def classes(self) -> int:
        """Background included."""
        return len(self.settled)


def contested(truth: Volume, views: Mapping[str, Volume], patient: str = "") -> Contested:
    """Pick out the voxels of a case on which fusion has a say.

    Args:
        truth: Integer labels, 0 is background.
        views: View name to probabilities (*shape, classes) on the grid of `truth`, adding up to 1.
        patient: Whose knee it is.

    Raises:
        ValueError: There is no view, one is not on the grid of the truth, or truth has labels beyond the classes.
    """
    check_views(views)
    first = next(iter(views))
    classes = views[first].array.shape[-1]
    if not truth.same_grid(views[first]):
        raise ValueError(f"view {first!r} of {views[first].shape} is not on the grid of the truth, {truth.shape}")
    if truth.array.min() < 0 or truth.array.max() >= classes:
        raise ValueError(f"truth has labels up to {truth.array.max()}, but the views tell {classes} classes apart")
    found: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def pick(piece: Piece) -> None:
        parts = [as_probabilities(view.array[piece]) for view in views.values()]
        true = truth.array[piece].astype(np.uint8, copy=False)
        clear = clear_background(parts, CONFIDENT)
        settled = np.diag(np.zeros(classes, dtype=np.int64))
        settled[:, 0] = np.bincount(true[clear], minlength=classes)
        rows, true = np.stack([part[~clear] for part in parts]), true[~clear]
        labels = most_probable(rows)
        sure = (labels == labels[0]).all(axis=0) & (rows.max(axis=-1).min(axis=0) > CONFIDENT)
        settled += confusion_matrix(true[sure], labels[0][sure], classes)
        found[piece[0].start, piece[1].start] = rows[:, ~sure], true[~sure], settled

    over_pieces(pick, views[first].array.shape, 4 * classes)
    probabilities, true, settled = zip(*(found[place] for place in sorted(found)), strict=True)
    return Contested(tuple(views), np.concatenate(probabilities, axis=1), np.concatenate(true),
                     np.sum(settled, axis=0), patient)  # fmt: skip


def matrix_of(
    case: Contested,
    weights: Sequence[float | Sequence[float]],
    rule: str = "linear",
    thresholds: Sequence[float] | None = None,
) -> np.ndarray:
    """The confusion matrix that the whole case gets with these weights.

    Args:
        case: Of some views.
        weights: Of each view, in their order.
        rule: Key of `blend.RULES`.
        thresholds: Of each tissue, between 1 - `CONFIDENT` and `CONFIDENT`.

    Returns:
        (classes, classes) int64, rows truth: the same counts as from decide(blend(...)).
    """
    labels = most_probable(mixed(tuple(case.probabilities), weights, rule), thresholds)
    return case.settled + confusion_matrix(case.truth, labels, case.classes)


def narrowed(case: Contested) -> Contested:
    """The case without the voxels on which all views name the same class: enough where there are no thresholds."""
    first, *others = (most_probable(view) for view in case.probabilities)
    differs = np.logical_or.reduce([first != other for other in others], initial=False) & np.ones(len(first), bool)
    settled = case.settled + confusion_matrix(case.truth[~differs], first[~differs], case.classes)
    return Contested(case.views, case.probabilities[:, differs], case.truth[differs], settled, case.patient)


def save_contested(case: Contested, path: Path) -> None:
    """Write it, whole or not at all."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, views=np.array(case.views), probabilities=case.probabilities, truth=case.truth,
                 settled=case.settled, patient=np.array(case.patient))  # fmt: skip


def load_contested(path: Path) -> Contested:
    """Read what `save_contested` wrote.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as content:
            return Contested(tuple(content["views"].tolist()), content["probabilities"], content["truth"],
                             content["settled"], str(content["patient"]))  # fmt: skip
    except (KeyError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the command again") from error


@dataclass(frozen=True)
class Stored(Sequence[Contested]):
    """Cases in files, read each time one is asked for: one of them is in memory, however many there are."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return load_contested(self.paths[index])
