"""What a fusion is worth: Dice, read off a confusion matrix."""

from __future__ import annotations

import numpy as np

FOREGROUND, TISSUES = "foreground", "tissues"
OBJECTIVES = (FOREGROUND, TISSUES)
"""foreground: Dice of any tissue against background, the paper's. tissues: the mean of the tissues' Dice."""


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
