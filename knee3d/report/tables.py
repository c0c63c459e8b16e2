"""Write JSON, CSV and text, and numbers and tables for people."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from rich.console import Console
from rich.table import Table

from knee3d.atomic import whole_file

if TYPE_CHECKING:
    from knee3d.dataset.inspection import FoundVolume

UNIT_SIGNS = {"mm3": "mm³", "mm2": "mm²", "mm": "mm", "%": "%"}
"""Names of units in files, and how they are written for people."""
DIGITS = 7
"""Significant ones of numbers in CSV files, as many as float32 has; JSON has all."""


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def format_number(value: float | None, digits: int, unknown: str = "-") -> str:
    """A number as it is looked at, with thousands parted; other words where it is not known."""
    return f"{value:,.{digits}f}" if is_known(value) else unknown


def write_json(obj: Any, path: Path) -> None:
    """Write JSON, whole or not at all; numpy numbers and arrays are taken, NaN and infinity become null."""
    write_text(json.dumps(to_plain_json(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write text in UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def tables_as_text(*tables: Table, width: int = 120) -> str:
    """Tables as plain text, for `print`.

    Args:
        tables: Tables of rich.
        width: Characters of a line.
    """
    text = io.StringIO()
    console = Console(file=text, width=width, no_color=True)
    for table in tables:
        console.print(table)
    return text.getvalue()


def write_volumes_csv(path: Path, volumes_mm3: Mapping[str, Mapping[str, float]]) -> None:
    """Write tissue volumes of cases, a row for each: case, tissue, volume_mm3.

    Args:
        path: The CSV file.
        volumes_mm3: Case to tissue to mm3.
    """
    rows = [(case, name, mm3) for case, volumes in volumes_mm3.items() for name, mm3 in volumes.items()]
    write_csv(path, ("case", "tissue", "volume_mm3"), rows)


def to_plain_json(obj: Any) -> Any:
    """The same with numpy values as Python's own, and None for NaN and infinity."""
    if isinstance(obj, Mapping):
        return {str(key): to_plain_json(value) for key, value in obj.items()}
    if isinstance(obj, np.ndarray | np.generic):
        return to_plain_json(obj.tolist())
    if isinstance(obj, list | tuple):
        return [to_plain_json(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], digits: int | None = DIGITS) -> None:
    """Write a table, whole or not at all; None and what is no finite number become empty cells.

    Args:
        path: The CSV file.
        header: Names of columns.
        rows: Their cells.
        digits: Significant ones of numbers with a fraction; None writes all, for tables that are read back.
    """
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_csv_cell(cell, digits) for cell in row] for row in rows)


def _csv_cell(cell: object, digits: int | None) -> object:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if digits is None or not isinstance(cell, float):
        return cell
    return f"{cell:.{digits}g}" if abs(cell) < 10**digits else f"{cell:.0f}"


LONGEST_NAME = 16
"""Characters of a file's name in a column; its path has all."""
_HEADINGS = ("series", "echo", "ms", "images", "voxels", "mm", "plane", "side")


def volume_lines(findings: "Iterable[FoundVolume]", one_line: bool) -> list[str]:
    """The volumes that can be read, in columns; no line where there is none.

    Args:
        findings: The volumes that were found. Those with a problem are left out.
        one_line: Whether path and description stand behind the numbers; otherwise below them, for narrow terminals.
    """
    whole = [one for one in findings if not one.problem]
    if not whole:
        return []
    cells = [_HEADINGS, *(_finding_cells(one) for one in whole)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = ["path, description", *(f"{one.path}  {one.description}" for one in whole)]
    lines = []
    for row, text in zip(cells, texts, strict=True):
        columns = " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        seen = "".join(letter if letter.isprintable() else "?" for letter in text).rstrip()
        lines += [f"{columns} {seen}"] if one_line else [columns.rstrip(), f"  {seen}"]
    return lines


def _finding_cells(one: "FoundVolume") -> tuple[str, ...]:
    shape, spacing = ("x".join(f"{number:.4g}" for number in row or ()) for row in (one.shape, one.spacing_mm))
    name = one.name if len(one.name) <= LONGEST_NAME else f"...{one.name[3 - LONGEST_NAME :]}"
    plane = None if one.plane is None else one.plane.value
    texts = (name, one.echo, one.time_ms, one.images, shape, spacing, plane, one.side)
    return tuple("" if text is None else str(text) for text in texts)
