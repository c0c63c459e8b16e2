"""The page of an audit: counts, and a row and a picture for each case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from knee3d.report.tables import write_csv, write_text
from knee3d.report.templates import load_template

if TYPE_CHECKING:
    from knee3d.dataset.audit import DatasetAudit


def write_audit_page(audit: DatasetAudit, pictures: str, path: Path) -> None:
    """Write one HTML page without scripts.

    Args:
        audit: The dataset in numbers.
        pictures: The folder of the pictures <case>.png, relative to the page.
        path: The HTML file.
    """
    write_text(load_template("audit.html.j2", pictures=pictures, audit=audit), path)


def write_audit_csv(audit: DatasetAudit, path: Path) -> None:
    """Write a row for each case; the columns of tissues hold mm3, empty without a mask."""
    sizes = [f"{name}_{axis}" for name in ("voxels", "spacing_mm") for axis in "IPL"]
    tissues = [f"{name}_mm3" for name in audit.tissues]
    header = ["case", "patient", "visit", "side", "split", *sizes, "window_low", "window_high", *tissues, "notes"]
    rows = []
    for case in audit.cases:
        numbers = (*case.shape, *case.spacing_mm, *case.window, *(case.mm3 or [None] * len(tissues)))
        rows.append([case.case, case.patient, case.visit, case.side, case.split, *numbers, "; ".join(case.notes)])
    write_csv(path, header, rows)
