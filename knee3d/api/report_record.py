"""report.json: the record of what the report of a knee was made of. It decides which reports are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from knee3d.api.segmentation_record import RECORD
from knee3d.api.segmented_case import SegmentedCase
from knee3d.choices import MESH_FORMATS, check_choice
from knee3d.dataset.case_collection import Split
from knee3d.dataset.input_case import file_digest
from knee3d.geometry.orientation import Side
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import Number, Record, Settings

REPORT_RECORD = "report.json"


@dataclass(frozen=True)
class ReportConfig:
    """How reports are made.

    Attributes:
        meshes: Format of the surfaces: "ply", "stl" or "vtp".
        triangle_share: Share of the triangles of surfaces that is kept, in (0, 1].

    Raises:
        ValueError: There is no such format, or the share is not above 0 and at most 1.
    """

    meshes: str = "ply"
    triangle_share: float = 1.0

    def __post_init__(self) -> None:
        check_choice("meshes", self.meshes, MESH_FORMATS)
        if not 0 < self.triangle_share <= 1:
            raise ValueError(f"triangle_share must be above 0 and at most 1, got {self.triangle_share}")

    @property
    def settings(self) -> Settings:
        """All settings, for the record of a report."""
        return asdict(self)


@dataclass(frozen=True)
class ReportOrigin:
    """The files and settings that a report is made of.

    Attributes:
        segmentation_fingerprint: The SHA-256 of segmentation.json, which has the SHA-256 of each file of the results.
        has_image: Whether the image of the knee was at hand.
        mask_fingerprint: The SHA-256 of the file of the mask to score against; empty where there was none.
        label_names_fingerprint: The SHA-256 of the names of the values of the mask; empty where none were given.
        settings: How the report was made, see `ReportConfig.settings`.
    """

    segmentation_fingerprint: str
    has_image: bool
    mask_fingerprint: str
    label_names_fingerprint: str
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class ReportRecord(Record):
    """The content of report.json.

    Attributes:
        knee3d: The version of knee3d that made the report.
        case: The name of the knee.
        side: The side of the knee; empty where it is not known.
        flags: Why the labels may be wrong, in words; empty where nothing looks wrong.
        unchecked: The rules of quality control that could not be checked, in words; empty where all were checked.
        notes: The limits of the measurements, in words.
        inter_view_dice: The mean foreground Dice of pairs of views; null where it is not known.
        predictive_entropy: The mean entropy of the networks within tissue, 0 to 1; null where it is not known.
        patient_seen: "train" or "val" where the networks know this patient; empty where they do not, or where no table
            names the patient.
        has_scores: Whether the labels were scored against a mask.
        origin: The files and settings that the report was made of.
        files: Name of each file of the report to the SHA-256 of its content.
    """

    knee3d: str
    case: str
    side: Side
    flags: tuple[str, ...]
    unchecked: str = ""
    notes: tuple[str, ...]
    inter_view_dice: Number
    predictive_entropy: Number
    patient_seen: Split = Split.NONE
    has_scores: bool
    origin: ReportOrigin
    files: Mapping[str, str]


def report_origin(folder: Path, given: SegmentedCase, config: ReportConfig) -> ReportOrigin:
    """Find what the report of a knee would be made of now.

    Args:
        folder: The folder of the finished knee.
        given: The files that are known of the knee.
        config: How the report is made.
    """
    names = sorted(given.label_names.names.items()) if given.label_names else []
    return ReportOrigin(
        segmentation_fingerprint=file_digest(folder / RECORD),
        has_image=given.entry is not None,
        mask_fingerprint=file_digest(given.mask) if given.mask else "",
        label_names_fingerprint=hashlib.sha256(json.dumps(names).encode()).hexdigest() if names else "",
        settings=config.settings,
    )


def is_report_current(record: ReportRecord, origin: ReportOrigin, config: ReportConfig) -> bool:
    """Whether a report was made of the same as it would be made of now.

    Args:
        record: The record of the report. An older version of knee3d may have written it.
        origin: What the report would be made of now.
        config: How the report would be made now.
    """
    default = type(config)()
    lacking = old_defaults(default.settings, default)
    same_settings = not changed_settings(record.origin.settings, origin.settings, lacking)
    return same_settings and replace(record.origin, settings=origin.settings) == origin


def report_digests(folder: Path) -> dict[str, str]:
    """Name of each file of a report, but its record, to the SHA-256 of its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != REPORT_RECORD)
    return {str(path.relative_to(folder)): file_digest(path) for path in files}
