"""How sure a mean over patients is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval.

    Attributes:
        mean: Over the cases that have a value; NaN where none has.
        low: Lower end of the interval; NaN with fewer than two patients.
        high: Upper end.
        cases: How many had a value.
    """

    mean: float
    low: float
    high: float
    cases: int


def resamples(patients: Sequence[str], samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """How often each case is drawn when patients are drawn with replacement, all of a patient's cases together.

    Args:
        patients: Of each case. Two knees, or two visits, of one patient are not two independent cases.
        samples: Times to draw.
        seed: Of the draws.

    Returns:
        (samples, cases) int64 counts; the same seed and patients give the same.
    """
    names = sorted(set(patients))
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return draws[:, [names.index(patient) for patient in patients]]


def mean_interval(values: Sequence[float], patients: Sequence[str], seed: int = 0) -> Interval:
    """Mean over cases, with the percentile bootstrap interval over patients (Efron and Tibshirani 1993).

    Args:
        values: Of each case; NaN where it has none.
        patients: Of each case.
        seed: Of the draws.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    numbers, whose = numbers[known], [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
    mean = float(numbers.mean())
    if len(set(whose)) < 2:
        return Interval(mean, float("nan"), float("nan"), len(numbers))
    draws = resamples(whose, seed=seed)
    low, high = np.quantile(draws @ numbers / draws.sum(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), len(numbers))
