"""FusionRecord: fusion weights and what they were fitted on. It is kept as fusion.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from knee3d.dataset.case_collection import Case
from knee3d.geometry.view_names import OBLIQUE
from knee3d.postprocess.fusion_fit import Fusion
from knee3d.postprocess.quality import QualityReference
from knee3d.records import LaterVersionError, Number, Record


@dataclass(frozen=True)
class ReferenceRecord:
    """What later knees are compared with, see `postprocess.quality.QualityReference`.

    Attributes:
        volumes_mm3: Tissue to its smallest and largest volume in masks.
        border_mm2: Tissue to the largest area of a border of an image that it covers in masks.
        inter_view_dice: The lowest of a validation case.
        predictive_entropy: The highest of a validation case.
    """

    volumes_mm3: Mapping[str, tuple[float, float]]
    border_mm2: Mapping[str, float]
    inter_view_dice: Number
    predictive_entropy: Number

    def __post_init__(self) -> None:
        if not all(0 <= low <= high for low, high in self.volumes_mm3.values()):
            raise ValueError("volumes_mm3: each tissue has its smallest volume and its largest, 0 or more")
        if not all(area >= 0 for area in self.border_mm2.values()):
            raise ValueError("border_mm2: an area is 0 or more")
        for name in ("inter_view_dice", "predictive_entropy"):
            if not (math.isnan(getattr(self, name)) or 0 <= getattr(self, name) <= 1 + 1e-6):
                raise ValueError(f"{name}: it lies between 0 and 1")


@dataclass(frozen=True)
class FittedOn:
    """The cases that weights were fitted on, and the names of their splits, such as "val"."""

    split: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class FusionRecord(Record):
    """How the probabilities of several views become labels, and what that was fitted on.

    Attributes:
        weights: View to its fusion weight, or to a weight for each class.
        rule: How probabilities are blended, see `postprocess.blend.RULES`.
        thresholds: The threshold of each tissue; None where the most probable class is taken.
        objective: What was maximised, see `postprocess.fusion_fit.OBJECTIVES`.
        dice: The objective on the cases that it was fitted on: "fused", "equal weights", and each view alone.
        intervals: View to the lower and upper end of its weight's bootstrap interval over patients.
        fitted_on: Those cases.
        reference: What later knees are compared with.
        networks: View to the fingerprint of its network.
    """

    weights: Mapping[str, float | tuple[float, ...]]
    rule: str
    thresholds: tuple[float, ...] | None
    objective: str
    dice: Mapping[str, Number]
    intervals: Mapping[str, tuple[Number, Number]]
    fitted_on: FittedOn
    reference: ReferenceRecord
    networks: Mapping[str, str]

    @property
    def quality_reference(self) -> QualityReference:
        """What later knees are compared with, for `postprocess.quality.check_quality`."""
        return QualityReference(**vars(self.reference))

    @property
    def what_labels_depend_on(self) -> list[object]:
        """What the fingerprint of the networks and their fusion is made of, ready for JSON.

        A field of the reference that has its default is left out: one that a later version of knee3d adds changes
        nothing for old files.
        """
        reference = self.reference
        told = {one.name: getattr(reference, one.name) for one in fields(reference)}
        told = {one.name: told[one.name] for one in fields(reference) if told[one.name] != one.default}
        return [dict(self.weights), self.rule, self.thresholds, told]


def fusion_path(models: Path, oblique: int) -> Path:
    """Where the fusion of planes, or of planes and so many oblique views, is kept."""
    return models / (f"fusion-{OBLIQUE}-{oblique}.json" if oblique else "fusion.json")


def fusion_files(models: Path) -> list[Path]:
    """All that were fitted in a models folder, that of the planes first."""
    numbers = [path.stem.rpartition("-")[2] for path in models.glob(f"fusion-{OBLIQUE}-*.json")]
    wanted = (0, *sorted(int(number) for number in numbers if number.isdecimal()))
    return [path for oblique in wanted if (path := fusion_path(models, oblique)).is_file()]


def save_fusion(
    fusion: Fusion, cases: Sequence[Case], reference: QualityReference, fingerprints: Mapping[str, str], path: Path
) -> None:
    """Write a `fusion_path`.

    Args:
        fusion: How probabilities become labels, and its Dice.
        cases: The cases that it was fitted on.
        reference: What later knees are compared with.
        fingerprints: View to the fingerprint of its network.
        path: The file, which appears whole or not at all.
    """
    FusionRecord(
        weights={view: _plain_weight(weight) for view, weight in fusion.weights.items()},
        rule=fusion.rule,
        thresholds=fusion.thresholds,
        objective=fusion.objective,
        dice={"fused": fusion.dice, "equal weights": fusion.equal, **fusion.alone},
        intervals=fusion.intervals,
        fitted_on=FittedOn(
            " and ".join(sorted({case.split.value for case in cases})), tuple(case.name for case in cases)
        ),
        reference=ReferenceRecord(**asdict(reference)),
        networks=fingerprints,
    ).write(path)


def _plain_weight(weight: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(weight) if isinstance(weight, float | int) else tuple(map(float, weight))


def load_fusion(path: Path) -> FusionRecord | None:
    """What a `fusion_path` holds; None where there is none.

    Raises:
        ValueError: It cannot be read.
    """
    if not path.exists():
        return None
    try:
        return FusionRecord.from_json(path.read_bytes())
    except LaterVersionError as error:
        raise ValueError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable weight file ({error}); run knee3d fuse again") from error
