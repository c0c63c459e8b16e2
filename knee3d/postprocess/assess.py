"""Everything one segmentation of a case scores against its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from knee3d.anatomy.volume import Volume
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.intervals import Interval, mean_interval
from knee3d.postprocess.surface import TOLERANCES_MM, SurfaceScores, surface_scores

Measures = Mapping[str, Mapping[str, float]]
"""Name of a measure to tissue to value; see `Scores.measures` and `Assessment.measures`."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """What one segmentation of a case scores.

    Attributes:
        scores: Its confusion matrix.
        surfaces: Tissue to distances of its surface; empty where they were not asked for.
    """

    scores: Scores
    surfaces: Mapping[str, SurfaceScores]

    @property
    def measures(self) -> Measures:
        """`Scores.measures`, and of the surfaces assd_mm, hd95_mm and nsd_<tolerance>mm, each with its mean."""
        found: dict[str, Mapping[str, float]] = dict(self.scores.measures)
        if self.surfaces:
            found["assd_mm"] = _with_mean({name: one.assd_mm for name, one in self.surfaces.items()})
            found["hd95_mm"] = _with_mean({name: one.hd95_mm for name, one in self.surfaces.items()})
            for limit in next(iter(self.surfaces.values())).nsd:
                found[f"nsd_{limit:g}mm"] = _with_mean({name: one.nsd[limit] for name, one in self.surfaces.items()})
        return found


def assess(truth: Volume, labels: Volume, names: Sequence[str], surfaces: bool = True) -> Assessment:
    """Score a segmentation.

    Args:
        truth: Integer labels in 0 to len(names), on the same grid as `labels`.
        labels: The segmentation.
        names: Tissue of each class from 1 on.
        surfaces: Whether to measure distances too; seconds for each tissue of a knee of OAI's size.

    Raises:
        ValueError: The grids differ, or a label is beyond the names.
    """
    scores = Scores(confusion_matrix(truth.array, labels.array, len(names) + 1), tuple(names))
    tissues = enumerate(names, start=1) if surfaces else ()
    return Assessment(scores, {name: surface_scores(truth, labels, tissue, TOLERANCES_MM) for tissue, name in tissues})


def means(cases: Sequence[Measures], patients: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Mean over cases of each measure and tissue, with its bootstrap interval over patients.

    Args:
        cases: The measures of each case, the same for all.
        patients: Of each case.
    """
    return {
        measure: {
            tissue: mean_interval([case[measure][tissue] for case in cases], patients) for tissue in cases[0][measure]
        }
        for measure in cases[0]
    }


def _with_mean(values: Mapping[str, float]) -> dict[str, float]:
    numbers = np.array(list(values.values()))
    known = numbers[np.isfinite(numbers)]
    return {**values, "mean": float(known.mean()) if known.size else float("nan")}
