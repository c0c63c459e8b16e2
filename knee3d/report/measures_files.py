"""Read and write measures.csv and measures.json.

The JSON has all that is needed to read the numbers. `MeasuresRecord.json_schema()` gives its JSON schema.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from knee3d import __version__
from knee3d.geometry.orientation import Side
from knee3d.labels.label_scheme import LabelScheme
from knee3d.morphometry.knee_measurements import KneeMeasurements
from knee3d.morphometry.measurement import UNITS, Measurement
from knee3d.records import Number, Record
from knee3d.report.tables import write_csv

MEASURES_JSON = "measures.json"
COLUMNS = ("case", "tissue", "region", "measure", "unit", "value")
Name = Annotated[str, Field(min_length=1)]
"""A name that is not empty."""


@dataclass(frozen=True)
class MeasureRow:
    """One number in measures.json.

    Attributes:
        tissue: The name of the tissue.
        region: The name of a part of the tissue, or "whole".
        measure: The name of the measure, a key of `measurement.UNITS`.
        unit: "mm", "mm2", "mm3" or "%".
        value: The number; null where it is not known.

    Raises:
        ValueError: There is no such measure, or it has another unit.
    """

    tissue: Name
    region: Name
    measure: Annotated[str, WithJsonSchema({"enum": [*UNITS]})]
    unit: Annotated[str, WithJsonSchema({"enum": sorted(set(UNITS.values()))})]
    value: Number

    def __post_init__(self) -> None:
        if UNITS.get(self.measure) != self.unit:
            known = UNITS.get(self.measure)
            if known is None:
                raise ValueError(f"there is no measure {self.measure!r}")
            raise ValueError(f"{self.measure} is in {known}, not in {self.unit!r}")


@dataclass(frozen=True, kw_only=True)
class MeasuresRecord(Record):
    """The content of measures.json: what knee3d measured of one knee.

    Attributes:
        knee3d: The version of knee3d that measured.
        case: The name of the knee.
        side: "R" for a right knee, "L" for a left one; empty where the side is not known.
        scheme: The name of the label scheme: which tissues the labels tell apart.
        interfaces: Name of each plate of cartilage to "bone" where its bone was segmented, or to "inferred" where the
            bone-cartilage interface was found without it.
        subregion_axes: "knee" or "image": whose axes the parts of cartilage are cut along; null where there are none.
        notes: The limits of the measurements, in words.
        measures: The numbers.
    """

    knee3d: str
    case: Name
    side: Side
    scheme: Name
    interfaces: Mapping[str, Literal["bone", "inferred"]]
    subregion_axes: Literal["knee", "image"] | None
    notes: tuple[str, ...]
    measures: tuple[MeasureRow, ...]


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


def measures_record(case: str, side: Side, scheme: LabelScheme, found: KneeMeasurements) -> MeasuresRecord:
    """Collect what measures.json holds.

    Args:
        case: The name of the knee.
        side: The side of the knee.
        scheme: The meaning of the labels.
        found: What was measured. A number that is not known is NaN.
    """
    axes: Literal["knee", "image"] | None = None
    if found.landmarks is not None:
        axes = "knee" if found.landmarks.own_axes else "image"
    return MeasuresRecord(
        knee3d=__version__,
        case=case,
        side=side,
        scheme=scheme.name,
        interfaces={name: "inferred" if one.inferred else "bone" for name, one in found.interfaces.items()},
        subregion_axes=axes,
        notes=found.notes,
        measures=tuple(
            MeasureRow(one.tissue, one.region, one.measure, one.unit, float(one.value)) for one in found.measures
        ),
    )


def read_measures_json(path: Path) -> MeasuresRecord:
    """Read measures.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or knee3d did not write it. The message names the file and the fields.
    """
    try:
        return MeasuresRecord.from_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or not knee3d's ({error}); run knee3d report again") from error
