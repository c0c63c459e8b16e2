"""quality.json: the numbers and flags that say how believable the labels of a knee are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import FiniteFloat

from knee3d.postprocess.quality import QualityReport
from knee3d.records import Number, Record

QUALITY = "quality.json"


@dataclass(frozen=True, kw_only=True)
class QualityRecord(Record):
    """The content of quality.json, see `QualityReport`.

    Attributes:
        volumes_mm3: Name of each tissue to its volume in mm3.
        border_mm2: Name of each tissue to the largest area in mm2 that it covers of a border of the image.
        inter_view_dice: The mean foreground Dice of pairs of views; null with one view, or where no view finds tissue.
        predictive_entropy: The mean entropy of the networks within tissue, 0 to 1; null where there is no tissue.
        flags: Why the labels may be wrong, in words; empty where nothing looks wrong.
        unchecked: The rules of quality control that could not be checked, in words; empty where all were checked.
        limits: What the image does not allow to measure well, such as thick slices, in words.
    """

    volumes_mm3: Mapping[str, FiniteFloat]
    border_mm2: Mapping[str, FiniteFloat]
    inter_view_dice: Number
    predictive_entropy: Number
    flags: tuple[str, ...]
    unchecked: str = ""
    limits: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: QualityReport) -> QualityRecord:
        """The record of a report."""
        return cls(
            volumes_mm3=report.volumes_mm3,
            border_mm2=report.border_mm2,
            inter_view_dice=report.inter_view_dice,
            predictive_entropy=report.predictive_entropy,
            flags=report.flags,
            unchecked=report.unchecked,
            limits=report.limits,
        )
