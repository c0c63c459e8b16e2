"""What a finished report was made of: report.json, by which it is recognised and kept, or made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knee3d.dataset.intake import digest
from knee3d.records import changed, check_version, earlier
from knee3d.workflow.finished import Given

SEEN_WORDS = {
    "train": "The networks were trained on this patient: scores flatter, and say nothing of other knees.",
    "val": "The networks were chosen and fused by this patient: scores flatter a little.",
}
SEEN_SHORT = {"train": "trained on this patient", "val": "chosen by this patient"}
"""What is to be said of a patient whom the networks know, see `record.SEEN`."""
FORM = 1
"""Version of the form of report.json."""
PAGE, MEASURES, REPORT_RECORD = "report.html", "measures.csv", "report.json"


@dataclass(frozen=True)
class ReportWish:
    """How reports are made.

    Attributes:
        meshes: Format of the surfaces: "ply", "stl" or "vtp".
        keep: Share of their triangles that is kept.
    """

    meshes: str = "ply"
    keep: float = 1.0


def fingerprint_of_results(record: Mapping[str, Any]) -> str:
    """A fingerprint of what `segment` wrote of a knee: its record has a digest of each file."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def origin_of_report(given: Given, wish: ReportWish) -> dict[str, Any]:
    """All that a report is made of, ready for its record.

    Args:
        given: What there is of the knee.
        wish: How the report is made.

    Returns:
        Keys of the record: "results", "image" (whether it was at hand), "mask" and "mask_labels" (digests, empty where
        there is none) and "settings".
    """
    names = sorted(given.numbering.names.items()) if given.numbering else []
    return {
        "results": fingerprint_of_results(given.record),
        "image": given.entry is not None,
        "mask": digest(given.mask) if given.mask else "",
        "mask_labels": hashlib.sha256(json.dumps(names).encode()).hexdigest() if names else "",
        "settings": asdict(wish),
    }


def same_origin(record: Mapping[str, Any], origin: Mapping[str, Any], wish: ReportWish) -> bool:
    """Whether a report was made of the same as it would be made of now; see `records` on older versions."""
    check_version(record, FORM)
    default = type(wish)()
    others = all(record[name] == value for name, value in origin.items() if name != "settings")
    return others and not changed(record["settings"], origin["settings"], earlier(asdict(default), default))


def report_digests(folder: Path) -> dict[str, str]:
    """Names of the files of a report, but its record, to a hash of what they hold."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != REPORT_RECORD)
    return {str(path.relative_to(folder)): digest(path) for path in files}
