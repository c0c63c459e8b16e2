"""All scores of one case, means over cases, and bootstrap intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix, nan_mean
from knee3d.postprocess.surface_distance import TOLERANCES_MM, SurfaceScores, surface_scores

Measures = Mapping[str, Mapping[str, float]]
"""Name of a measure to tissue to value; see `OverlapScores.measures` and `CaseAssessment.measures`."""

SAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class CaseAssessment:
    """What one segmentation of a case scores.

    Attributes:
        scores: Its confusion matrix.
        surfaces: Tissue to distances of its surface; empty where they were not asked for.
    """

    scores: OverlapScores
    surfaces: Mapping[str, SurfaceScores]

    @property
    def measures(self) -> Measures:
        """`OverlapScores.measures`, and of surfaces assd_mm, hd95_mm and `nsd_<tolerance>mm`, each with its mean."""
        found: dict[str, Mapping[str, float]] = dict(self.scores.measures)
        if self.surfaces:
            found["assd_mm"] = _with_mean({name: one.assd_mm for name, one in self.surfaces.items()})
            found["hd95_mm"] = _with_mean({name: one.hd95_mm for name, one in self.surfaces.items()})
            for limit in next(iter(self.surfaces.values())).nsd:
                found[f"nsd_{limit:g}mm"] = _with_mean({name: one.nsd[limit] for name, one in self.surfaces.items()})
        return found


def assess_case(truth: Volume, labels: Volume, names: Sequence[str], surfaces: bool = True) -> CaseAssessment:
    """Score a segmentation.

    Args:
        truth: Integer labels in 0 to len(names), on the same grid as `labels`.
        labels: The segmentation.
        names: Tissue of each class from 1 on.
        surfaces: Whether to measure distances too; seconds for each tissue of a knee of OAI's size.

    Raises:
        ValueError: The grids differ, or a label is beyond the names.
    """
    scores = OverlapScores(confusion_matrix(truth.array, labels.array, len(names) + 1), tuple(names))
    tissues = enumerate(names, start=1) if surfaces else ()
    return CaseAssessment(
        scores, {name: surface_scores(truth, labels, tissue, TOLERANCES_MM) for tissue, name in tissues}
    )


@dataclass(frozen=True)
class ConfidenceInterval:
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


def bootstrap_samples(patients: Sequence[str], samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
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


def bootstrap_interval(values: Sequence[float], patients: Sequence[str], seed: int = 0) -> ConfidenceInterval:
    """Mean over cases, with the percentile bootstrap interval over patients (Efron and Tibshirani 1993).

    Args:
        values: Of each case; NaN where it has none.
        patients: Of each case.
        seed: Of the draws.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return ConfidenceInterval(float("nan"), float("nan"), float("nan"), 0)
    numbers, whose = numbers[known], [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
    mean = float(numbers.mean())
    if len(set(whose)) < 2:
        return ConfidenceInterval(mean, float("nan"), float("nan"), len(numbers))
    draws = bootstrap_samples(whose, seed=seed)
    low, high = np.quantile(draws @ numbers / draws.sum(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return ConfidenceInterval(mean, float(low), float(high), len(numbers))


def mean_scores(cases: Sequence[Measures], patients: Sequence[str]) -> dict[str, dict[str, ConfidenceInterval]]:
    """Mean over cases of each measure and tissue, with its bootstrap interval over patients.

    Args:
        cases: The measures of each case, the same for all.
        patients: Of each case.
    """
    return {
        measure: {
            tissue: bootstrap_interval([case[measure][tissue] for case in cases], patients)
            for tissue in cases[0][measure]
        }
        for measure in cases[0]
    }


def _with_mean(values: Mapping[str, float]) -> dict[str, float]:
    return {**values, "mean": nan_mean(values.values())}
