"""The confusion matrix, and every overlap score read off it.

Rows are truth, columns prediction, class 0 is background. A class that neither side contains scores NaN, and a mean
over tissues leaves background and NaN out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    pair = np.uint8 if classes <= 16 else np.int64
    index = truth.astype(pair, copy=False) * classes + labels.astype(pair, copy=False)
    return np.bincount(index.ravel(), minlength=classes**2).reshape(classes, classes).astype(np.int64)


def dice(matrix: np.ndarray) -> np.ndarray:
    """Dice similarity coefficient per class, 2 TP / (2 TP + FP + FN).

    Args:
        matrix: Confusion matrix, (classes, classes) int64, rows truth.

    Returns:
        (classes,) float64 in [0, 1]; NaN for a class that neither side contains.
    """
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class, TP / (TP + FP + FN) = Dice / (2 - Dice).

    Args:
        matrix: Confusion matrix, (classes, classes) int64, rows truth.

    Returns:
        (classes,) float64 in [0, 1]; NaN for a class that neither side contains.
    """
    hits = np.diag(matrix)
    return _ratio(hits, matrix.sum(axis=0) + matrix.sum(axis=1) - hits)


def foreground(matrix: np.ndarray) -> np.ndarray:
    """The two-class matrix of any tissue against background.

    Returns:
        (2, 2) int64; a voxel of one tissue called another still counts as foreground found.
    """
    return np.array([
        [matrix[0, 0], matrix[0, 1:].sum()],
        [matrix[1:, 0].sum(), matrix[1:, 1:].sum()],
    ])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scores:
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

    def __add__(self, other: Scores) -> Scores:
        """Both sets of voxels pooled."""
        if self.names != other.names:
            raise ValueError(f"cannot pool scores of {self.names} with {other.names}")
        return Scores(self.matrix + other.matrix, self.names)

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
        return float(dice(foreground(self.matrix))[1])

    @property
    def foreground_iou(self) -> float:
        """IoU of any tissue against background: what the paper's MIoU numbers are."""
        return float(iou(foreground(self.matrix))[1])

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the tissues present on either side; NaN when there is none."""
        return _nanmean(self.dice)

    @property
    def mean_iou_tissues(self) -> float:
        """Mean IoU over the tissues present on either side; NaN when there is none."""
        return _nanmean(self.iou)

    @property
    def mean_iou_classes(self) -> float:
        """Mean IoU over all classes, background included: what the paper's MIoU formula says."""
        return _nanmean(iou(self.matrix))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(denominator), np.nan), where=denominator > 0)


def _nanmean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
