"""The confusion matrix, and the overlap scores that follow from it.

Rows are truth, columns prediction, class 0 is background. A class that neither side contains scores NaN, and a mean
over tissues leaves background and NaN out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

FOREGROUND, MEAN = "foreground", "mean"

PIECE = 1 << 16  # voxels that fit the processor's cache


def confusion_matrix(truth: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count voxels by true and predicted class.

    Args:
        truth: Integers in [0, classes), any shape.
        labels: Integers in [0, classes), the same shape.
        classes: Number of classes, background included.

    Returns:
        (classes, classes) int64, rows truth, columns prediction.

    Raises:
        ValueError: The shapes differ or a label is outside the classes.
    """
    if truth.shape != labels.shape:
        raise ValueError(f"truth has shape {truth.shape} but labels have {labels.shape}")
    for name, array in (("truth", truth), ("labels", labels)):
        if array.size and not (array.min() >= 0 and array.max() < classes):
            raise ValueError(f"{name} must lie in 0 to {classes - 1}, got {array.min()} to {array.max()}")
    true, found = truth.reshape(-1), labels.reshape(-1)
    counts = np.zeros(classes**2, dtype=np.int64)
    for start in range(0, true.size, PIECE):
        piece = slice(start, start + PIECE)
        counts += np.bincount(true[piece].astype(np.intp) * classes + found[piece], minlength=classes**2)
    return counts.reshape(classes, classes)


def dice(matrix: np.ndarray) -> np.ndarray:
    """Dice similarity coefficient per class, 2 TP / (2 TP + FP + FN).

    Args:
        matrix: Confusion matrix, (..., classes, classes), rows truth.

    Returns:
        (..., classes) float64 in [0, 1]; NaN for a class that neither side contains.
    """
    return _ratio(2 * np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-2) + matrix.sum(axis=-1))


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class, TP / (TP + FP + FN) = Dice / (2 - Dice).

    Args:
        matrix: Confusion matrix, (classes, classes) int64, rows truth.

    Returns:
        (classes,) float64 in [0, 1]; NaN for a class that neither side contains.
    """
    hits = np.diag(matrix)
    return _ratio(hits, matrix.sum(axis=0) + matrix.sum(axis=1) - hits)


def precision(matrix: np.ndarray) -> np.ndarray:
    """Share of what was predicted as a class that is of it, TP / (TP + FP); (classes,), NaN if none was predicted."""
    return _ratio(np.diag(matrix), matrix.sum(axis=0))


def recall(matrix: np.ndarray) -> np.ndarray:
    """Share of a class that was found (sensitivity), TP / (TP + FN); (classes,), NaN if truth has none of it."""
    return _ratio(np.diag(matrix), matrix.sum(axis=1))


def specificity(matrix: np.ndarray) -> np.ndarray:
    """Share of what is not of a class that was not called so, TN / (TN + FP); (classes,), NaN if all is of it."""
    others = matrix.sum() - matrix.sum(axis=1)
    return _ratio(others - matrix.sum(axis=0) + np.diag(matrix), others)


def overlap_error(matrix: np.ndarray) -> np.ndarray:
    """Volumetric overlap error, 1 - IoU; (classes,), NaN for a class that neither side contains."""
    return 1 - iou(matrix)


def volume_difference(matrix: np.ndarray) -> np.ndarray:
    """(Predicted - true) / true volume; (classes,), positive where too much was found, NaN if truth has none."""
    return _ratio(matrix.sum(axis=0) - matrix.sum(axis=1), matrix.sum(axis=1))


def accuracy(matrix: np.ndarray) -> float:
    """Share of voxels whose class is right; NaN without voxels. Background is most of a knee, and so of this."""
    return float(_ratio(np.trace(matrix)[None], matrix.sum()[None])[0])


def cohens_kappa(matrix: np.ndarray) -> float:
    """Agreement beyond chance, (po - pe) / (1 - pe). Cohen 1960; NaN where both sides have one class only."""
    total = float(matrix.sum())
    if not total:
        return float("nan")
    expected = float(matrix.sum(axis=0) @ (matrix.sum(axis=1) / total)) / total
    return (accuracy(matrix) - expected) / (1 - expected) if expected < 1 else float("nan")


def foreground_matrix(matrix: np.ndarray) -> np.ndarray:
    """The two-class matrix of any tissue against background.

    Args:
        matrix: (..., classes, classes), one or many.

    Returns:
        (..., 2, 2); a voxel of one tissue called another still counts as foreground found.
    """
    return np.add.reduceat(np.add.reduceat(matrix, [0, 1], axis=-1), [0, 1], axis=-2)


@dataclass(frozen=True, eq=False)
class OverlapScores:
    """A confusion matrix with the names of its tissues.

    Attributes:
        matrix: (classes, classes) int64, rows truth, columns prediction, class 0 background.
        names: Tissue of each class from 1 on.

    Raises:
        ValueError: The matrix is not square with one class more than names.
    """

    matrix: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.names) + 1,) * 2:
            raise ValueError(f"{len(self.names)} tissues and background need a square matrix, got {self.matrix.shape}")

    def __add__(self, other: OverlapScores) -> OverlapScores:
        """Both sets of voxels pooled."""
        if self.names != other.names:
            raise ValueError(f"cannot pool scores of {self.names} with {other.names}")
        return OverlapScores(self.matrix + other.matrix, self.names)

    @property
    def dice(self) -> np.ndarray:
        """(tissues,) float64, Dice of each tissue; NaN where it is absent from both sides."""
        return dice(self.matrix)[1:]

    @property
    def iou(self) -> np.ndarray:
        """(tissues,) float64, IoU of each tissue; NaN where it is absent from both sides."""
        return iou(self.matrix)[1:]

    @property
    def foreground_dice(self) -> float:
        """Dice of any tissue against background: the paper's Dice."""
        return float(dice(foreground_matrix(self.matrix))[1])

    @property
    def foreground_iou(self) -> float:
        """IoU of any tissue against background: what the paper's MIoU numbers are."""
        return float(iou(foreground_matrix(self.matrix))[1])

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """Every score: measure to tissue to value, with any tissue as "foreground" and the tissues' "mean".

        Measures are the keys of `BY_CLASS`. The mean leaves out tissues whose value is NaN.
        """
        found = {}
        for measure, score in BY_CLASS.items():
            values = score(self.matrix)[1:]
            together = {FOREGROUND: float(score(foreground_matrix(self.matrix))[1]), MEAN: nan_mean(values)}
            found[measure] = dict(zip(self.names, values.tolist(), strict=True)) | together
        return found

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the tissues present on either side; NaN when there is none."""
        return nan_mean(self.dice)

    @property
    def mean_iou_classes(self) -> float:
        """Mean IoU over all classes, background included: what the paper's MIoU formula says."""
        return nan_mean(iou(self.matrix))


BY_CLASS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "voe": overlap_error,
    "volume_difference": volume_difference,
}
"""Scores of each class by the name they have in files."""


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def nan_mean(values: Iterable[float]) -> float:
    """Mean of the values that are finite; NaN where none is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
