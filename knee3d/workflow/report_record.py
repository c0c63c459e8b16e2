"""What a finished report was made of: report.json, by which it is recognised and kept, or made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knee3d import __version__
from knee3d.dataset.intake import digest
from knee3d.workflow.finished import Given
from knee3d.workflow.record import SEEN

SEEN_WORDS = {
    "train": "The networks were trained on this patient: scores flatter, and say nothing of other knees.",
    "val": "The networks were chosen and fused by this patient: scores flatter a little.",
}
SEEN_SHORT = {"train": "trained on this patient", "val": "chosen by this patient"}
"""What is to be said of a patient whom the networks know, see `record.SEEN`."""
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


def mark_of_results(record: Mapping[str, Any]) -> str:
    """A fingerprint of what `segment` wrote of a knee."""
    return hashlib.sha256(json.dumps([record["mark"], record["files"]]).encode()).hexdigest()


def mark_of_report(given: Given, wish: ReportWish) -> str:
    """A fingerprint of all that a report is made of."""
    mask = digest(given.mask) if given.mask else ""
    names = sorted(given.numbering.names.items()) if given.numbering else None
    told = [
        __version__,
        mark_of_results(given.record),
        given.record.get(SEEN, ""),
        given.entry is not None,
        mask,
        names,
        asdict(wish),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def report_digests(folder: Path) -> dict[str, str]:
    """Names of the files of a report, but its record, to a hash of what they hold."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != REPORT_RECORD)
    return {str(path.relative_to(folder)): digest(path) for path in files}
