"""Read and write measures.csv and write measures.json.

The JSON has all that is needed to read the numbers, in a form that a schema describes.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knee3d import __version__
from knee3d.geometry.orientation import Side
from knee3d.labels.label_scheme import LabelScheme
from knee3d.morphometry.knee_measurements import KneeMeasurements
from knee3d.morphometry.measurement import UNITS, Measurement
from knee3d.report.tables import write_csv, write_json

SCHEMA = Path(__file__).with_name("assets") / "measures.schema.json"
"""JSON Schema (draft 2020-12) of measures.json."""
VERSION = 1
"""Of what that schema describes."""
COLUMNS = ("case", "tissue", "region", "measure", "unit", "value")


def write_measures_csv(path: Path, measures: Mapping[str, Sequence[Measurement]]) -> None:
    """Write measures of knees in long form: case, tissue, region, measure, unit, value; empty where not known.

    Numbers have all their digits, so that reading them back, as `knee3d compare` does, gives the same.

    Args:
        path: The CSV file.
        measures: Case to what was measured of it.
    """
    rows = (
        (case, one.tissue, one.region, one.measure, one.unit, float(one.value))
        for case, found in measures.items()
        for one in found
    )
    write_csv(path, COLUMNS, rows, digits=None)


def read_measures_csv(path: Path) -> dict[str, list[Measurement]]:
    """Read what `write_measures_csv` wrote, in its order; an empty value is NaN.

    Args:
        path: CSV with the columns of `COLUMNS`, in any order; others are passed over.

    Returns:
        Case to its measures; nothing of a table without rows.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a table, or a row is wrong: an unknown measure, another unit, no number, or the same
            twice. The message has the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it is a table of measures that knee3d writes for each knee")
    found: dict[str, list[Measurement]] = {}
    seen: set[tuple[str, ...]] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                where = f"{path} line {reader.line_num}"
                case, measure = _measure_of(row, where)
                key = (case, measure.tissue, measure.region, measure.measure)
                if key in seen:
                    raise ValueError(f"{where}: {' '.join(key)} is there already; remove one of them")
                seen.add(key)
                found.setdefault(case, []).append(measure)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    return found


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        has = ", ".join(columns) or "none"
        raise ValueError(f"{path} is no table of measures: it lacks the columns {', '.join(missing)}; it has {has}")


def _measure_of(row: Mapping[str | None, Any], where: str) -> tuple[str, Measurement]:
    """Case and measure of a row."""
    if None in row or None in row.values():
        raise ValueError(f"{where}: it has more or fewer cells than the table has columns")
    case, tissue, region, measure, unit, text = (row[column].strip() for column in COLUMNS)
    for column, cell in zip(COLUMNS, (case, tissue, region), strict=False):
        if not cell:
            raise ValueError(f"{where}: the {column} is empty")
    if measure not in UNITS:
        raise ValueError(f"{where}: unknown measure {measure!r}; there are: {', '.join(UNITS)}")
    if unit != UNITS[measure]:
        raise ValueError(f"{where}: {measure} is in {UNITS[measure]}, not in {unit!r}")
    return case, Measurement(tissue, region, measure, _number(text, where))


def _number(text: str, where: str) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value) or "_" in text or (math.isnan(value) and text):
        raise ValueError(f"{where}: {text!r} is not a number; leave the cell empty if it is not known")
    return value


def measures_record(case: str, side: Side, scheme: LabelScheme, found: KneeMeasurements) -> dict[str, Any]:
    """What measures.json holds: numbers with their units, notes, and how the bone-cartilage interface was found.

    Args:
        case: The name of the knee.
        side: The side of the knee.
        scheme: The meaning of the labels.
        found: What was measured. A number that is not known is NaN.
    """
    return {
        "format": "knee3d measures",
        "version": VERSION,
        "knee3d": __version__,
        "case": case,
        "side": side.value,
        "scheme": scheme.name,
        "interface": {name: "inferred" if one.inferred else "bone" for name, one in found.interfaces.items()},
        "parts_along": found.landmarks and ("knee" if found.landmarks.own_axes else "image"),
        "notes": list(found.notes),
        "measures": [
            {"tissue": one.tissue, "region": one.region, "measure": one.measure, "unit": one.unit, "value": one.value}
            for one in found.measures
        ],
    }


def write_measures_json(path: Path, case: str, side: Side, scheme: LabelScheme, found: KneeMeasurements) -> None:
    """Write `measures_record` to a file, whole or not at all; what is not known becomes null."""
    write_json(measures_record(case, side, scheme, found), path)
