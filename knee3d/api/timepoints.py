"""Timepoint: the measures of a knee at one visit, and checks whether two timepoints can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from knee3d.api.segmentation_record import RECORD, REPORT, load_record
from knee3d.geometry.orientation import Side
from knee3d.morphometry.measurement import Measurement
from knee3d.report.measures_files import MEASURES_JSON, read_measures_csv, read_measures_json

MEASURES = "measures.csv"
_NO_MATTER = ("label_format", "save_probabilities")
"""Settings that say what is written, and not what is found."""
_SHOWN = 12
"""Characters of a network's fingerprint that are shown."""


@dataclass(frozen=True)
class MeasurementOrigin:
    """What a knee's measures were made of, as far as segmentation.json says.

    Attributes:
        side: The side of the knee; empty where it is not known.
        scheme: The name of the label scheme.
        image: The fingerprint of the image.
        made_by: What measures depend on beside the knee, in words: networks, fusion weights, settings, version, voxels.
        flags: Why its labels may be wrong, in words.
    """

    side: Side
    scheme: str
    image: str
    made_by: Mapping[str, str]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Timepoint:
    """A knee as it was measured once.

    Attributes:
        case: Its name.
        place: Where its measures were read.
        measures: What was measured.
        origin: What they were made of; None where no segmentation.json says so.
    """

    case: str
    place: Path
    measures: tuple[Measurement, ...] = field(repr=False)
    origin: MeasurementOrigin | None


def load_timepoints(path: Path) -> dict[str, Timepoint]:
    """The measured knees that a path stands for, by name.

    Args:
        path: A table of measures, the folder of a knee, or a folder of such folders.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It holds no measures, a table is wrong, or two knees have one name.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a measured knee, or its {MEASURES}")
    tables = _tables_in(path) if path.is_dir() else [path]
    if not tables:
        raise ValueError(f"{path} holds no {MEASURES}, neither do its folders; knee3d report measures segmented knees")
    found: dict[str, Timepoint] = {}
    for table in tables:
        for case, measures in read_measures_csv(table).items():
            if case in found:
                raise ValueError(f"{table} and {found[case].place} are both of a knee called {case}; give one of them")
            found[case] = Timepoint(case, table, tuple(measures), _origin_beside(table, case))
    if not found:
        raise ValueError(f"{tables[0]} has no rows: nothing was measured")
    return found


def load_timepoint(path: Path) -> Timepoint:
    """The one measured knee that a path stands for.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: As `load_timepoints`, or there are several.
    """
    visits = load_timepoints(path)
    if len(visits) > 1:
        raise ValueError(f"{path} holds {len(visits)} knees; give the folder of one")
    return next(iter(visits.values()))


def origin_differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """What two knees were made by, where that differs: both in words."""
    names = dict.fromkeys((*first, *second))
    pairs = ((name, first.get(name, "none"), second.get(name, "none")) for name in names)
    return [f"{name} {one} and {other}" for name, one, other in pairs if one != other]


def check_comparable(first: Timepoint, second: Timepoint) -> list[str]:
    """Refuse to compare what cannot be compared.

    Returns:
        What weakens the comparison, in words.

    Raises:
        ValueError: The sides or the schemes differ.
    """
    without = [str(visit.place.parent) for visit in (first, second) if visit.origin is None]
    if first.origin is None or second.origin is None:
        return [f"no {RECORD} in {' or '.join(without)}: side, scheme and networks are not checked"]
    mine, other = first.origin, second.origin
    if mine.side and other.side and mine.side != other.side:
        raise ValueError(
            f"{first.case} is a {_side(mine.side)} knee and {second.case} a {_side(other.side)} one; give the same knee"
        )
    if mine.scheme != other.scheme:
        raise ValueError(
            f"{first.case} has labels of scheme {mine.scheme!r} and {second.case} of {other.scheme!r}; segment both "
            "with the same models"
        )
    notes = [f"made differently, which may change measures by itself: {words}"
             for words in origin_differences(mine.made_by, other.made_by)]  # fmt: skip
    notes += [
        f"the side of {visit.case} is not known" for visit in (first, second) if visit.origin and not visit.origin.side
    ]
    notes += [f"{visit.case} is flagged: {'; '.join(visit.origin.flags)}"
              for visit in (first, second) if visit.origin and visit.origin.flags]  # fmt: skip
    if mine.image == other.image:
        notes.append("both are of the same image")
    return notes


def _side(side: Side) -> str:
    return "left" if side is Side.LEFT else "right"


def _tables_in(folder: Path) -> list[Path]:
    """Tables of measures: that of a knee, those of the knees in a folder, or what lies there for all of them."""
    inside = [] if (folder / RECORD).is_file() else sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    tables = [table for path in inside if path.name != REPORT for table in _tables_of(path)]
    return tables or _tables_of(folder)


def _tables_of(knee: Path) -> list[Path]:
    """The table of a knee's folder, if there is one."""
    return [path for path in (knee / REPORT / MEASURES, knee / MEASURES) if path.is_file()][:1]


def _origin_beside(table: Path, case: str) -> MeasurementOrigin | None:
    """Of a knee whose measures lie in a table: from the record of the knee's folder around the table, or beside it."""
    for folder in (table.parent, table.parent.parent, table.parent / case):
        if (folder / RECORD).is_file():
            origin = _origin(folder, case)
            if origin is not None:
                return origin
    return None


def _origin(folder: Path, case: str) -> MeasurementOrigin | None:
    """What a knee's record says; None where it is of another knee."""
    record = load_record(folder)
    if record is None or record.case != case:
        return None
    made_by = {f"network {name}": one[:_SHOWN] for name, one in record.network_fingerprints.items()}
    made_by |= _flat("fusion weight", record.fusion_weights)
    made_by |= _flat("setting", {name: value for name, value in record.settings.items() if name not in _NO_MATTER})
    made_by["version"] = record.knee3d
    made_by |= _subregion_axes(folder)
    made_by["voxels"] = " x ".join(f"{mm:.2f}" for mm in sorted(record.spacing_mm)) + " mm"
    return MeasurementOrigin(record.side, record.scheme.name, record.image_fingerprint, made_by, record.flags)


def _subregion_axes(folder: Path) -> dict[str, str]:
    """Whose axes parts were cut along: parts along those of the image are others than along those of the knee."""
    path = folder / REPORT / MEASURES_JSON
    axes = read_measures_json(path).subregion_axes if path.is_file() else None
    return {} if axes is None else {"parts cut along the axes of": f"the {axes}"}


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """A setting in words, one for each of its parts."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{name} {key}", one)
    else:
        yield name, f"{value:.4f}" if isinstance(value, float) else json.dumps(value).strip('"')
