"""CrossValidationResult: the validation scores of the folds of a cross-validation, as folds.json keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from statistics import mean, stdev
from typing import Self

from knee3d.records import Number, Record


@dataclass(frozen=True)
class FoldScores:
    """The validation scores of one view in the folds that are trained.

    Attributes:
        val_dice: The number of the fold, such as "1", to its validation Dice.
        mean: The mean over these folds.
        sd: The standard deviation over these folds; NaN for fewer than two.
    """

    val_dice: Mapping[str, Number]
    mean: Number
    sd: Number

    @classmethod
    def of(cls, val_dice: Mapping[str, float]) -> Self:
        """The scores with their mean and standard deviation.

        Args:
            val_dice: The number of the fold to its validation Dice; at least one.
        """
        values = list(val_dice.values())
        return cls(val_dice, mean(values), stdev(values) if len(values) > 1 else nan)


@dataclass(frozen=True)
class CrossValidationResult(Record):
    """The validation scores of a cross-validation, as far as it is trained.

    Attributes:
        folds: The number of folds.
        views: The name of the view to its scores.
    """

    folds: int
    views: Mapping[str, FoldScores]
