"""The page of an audit: counts, and a row and a picture for each case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knee3d.report.tables import write_csv, write_text
from knee3d.report.templates import load_template

_PLAIN = ("case", "patient", "visit", "side", "split")


def write_audit_page(summary: Mapping[str, Any], pictures: str, path: Path) -> None:
    """Write one HTML page without scripts.

    Args:
        summary: See `dataset.audit.audit_summary`.
        pictures: Folder of <case>.png, relative to the page.
        path: Of the page.
    """
    write_text(load_template("audit.html.j2", pictures=pictures, **summary), path)


def write_audit_csv(summary: Mapping[str, Any], path: Path) -> None:
    """A row for each case; the columns of tissues hold mm3, empty without a mask."""
    tissues = summary["tissues"]
    sizes = [f"{name}_{axis}" for name in ("voxels", "spacing_mm") for axis in "IPL"]
    header = [*_PLAIN, *sizes, "window_low", "window_high", *(f"{name}_mm3" for name in tissues), "notes"]
    rows = []
    for case in summary["cases"]:
        numbers = (*case["shape"], *case["spacing_mm"], *case["window"], *(case["mm3"] or [None] * len(tissues)))
        rows.append([*(case[name] for name in _PLAIN), *numbers, "; ".join(case["notes"])])
    write_csv(path, header, rows)
