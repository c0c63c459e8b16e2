"""Change between two visits: the result that compare.json holds, as CSV and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from knee3d.morphometry.change import ChangeVerdict, MeasurementChange, SmallestDetectableChange
from knee3d.morphometry.measurement import UNITS
from knee3d.morphometry.repeatability import Quantity
from knee3d.records import Number, Record
from knee3d.report.repeatability import check_unit, describe_row, format_amount, quantities_table
from knee3d.report.tables import is_known, write_csv

if TYPE_CHECKING:
    import pandas as pd

_BEYOND = (ChangeVerdict.BEYOND, ChangeVerdict.JUST_BEYOND)
_NARROWLY = (ChangeVerdict.JUST_BEYOND, ChangeVerdict.JUST_WITHIN)
_CASES = ("baseline_case", "followup_case")


@dataclass(frozen=True)
class ChangeRow:
    """The change of one measure of a knee: a row of compare.csv. Numbers that are not known are NaN.

    Attributes:
        tissue: The name of the tissue.
        region: The name of a part of the tissue, or "whole".
        measure: The name of the measure, such as "volume".
        unit: The unit of the measure, and of all numbers that say nothing else.
        baseline: The value at baseline.
        followup: The value at follow-up.
        change: Follow-up minus baseline: a loss is negative.
        change_percent: The change in percent of the value at baseline.
        smallest_detectable_change: The smallest change that can be told from the error of measurement.
        smallest_low: The lower end of the 95 % interval of the smallest detectable change.
        smallest_high: The upper end of that interval.
        pairs: The number of pairs that gave the smallest detectable change; None where it is not known.
        verdict: Whether the change is beyond the error of measurement.

    Raises:
        ValueError: There is no such measure, or it has another unit.
    """

    tissue: str
    region: str
    measure: str
    unit: str
    baseline: Number
    followup: Number
    change: Number
    change_percent: Number
    smallest_detectable_change: Number
    smallest_low: Number
    smallest_high: Number
    pairs: int | None
    verdict: ChangeVerdict

    def __post_init__(self) -> None:
        check_unit(self.measure, self.unit)

    @property
    def quantity(self) -> Quantity:
        """What was measured: tissue, region and measure."""
        return self.tissue, self.region, self.measure

    @property
    def has_any_value(self) -> bool:
        """Whether one of the visits has the measure."""
        return is_known(self.baseline) or is_known(self.followup)


@dataclass(frozen=True)
class KneeComparison:
    """What has changed of one knee.

    Attributes:
        baseline: The name of the knee at baseline.
        followup: The name of the knee at follow-up.
        notes: What weakens the comparison, in sentences.
        changes: The change of each tissue, region and measure.
    """

    baseline: str
    followup: str
    notes: tuple[str, ...]
    changes: tuple[ChangeRow, ...]


@dataclass(frozen=True, repr=False)
class ComparisonResult(Record):
    """What has changed, as compare.json keeps it.

    Attributes:
        knee3d: The version of knee3d that computed it.
        error_known: Whether the error of measurement was given.
        knees: The changes of each knee; empty where no knee could be compared.
        failures: The name of a knee to the reason why it could not be compared.
    """

    knee3d: str
    error_known: bool
    knees: tuple[KneeComparison, ...]
    failures: Mapping[str, str]

    def __repr__(self) -> str:
        error = "known" if self.error_known else "not known"
        return f"ComparisonResult(knees: {len(self.knees)}, failed: {len(self.failures)}, error of measurement {error})"

    def to_frame(self) -> pd.DataFrame:
        """The changes as a table.

        Returns:
            A row for each knee, tissue, region and measure, with the columns of compare.csv: the names of the knee
            (baseline_case, followup_case), both values, their change, and whether it is beyond error.
        """
        import pandas as pd

        rows = [
            dict(zip(_CASES, (knee.baseline, knee.followup), strict=True)) | asdict(row)
            for knee in self.knees
            for row in knee.changes
        ]
        return pd.DataFrame(rows)

    def table(self) -> Table:
        """A table for the terminal: all changes of one knee, or the means over several knees."""
        if len(self.knees) != 1:
            return knees_change_table([knee.changes for knee in self.knees])
        (knee,) = self.knees
        return change_table(f"{knee.baseline} to {knee.followup}", knee.changes)


def change_rows(
    found: Iterable[MeasurementChange], smallest: Mapping[Quantity, SmallestDetectableChange] | None = None
) -> tuple[ChangeRow, ...]:
    """The change of each measure as a row.

    Args:
        found: What has changed.
        smallest: The smallest changes that can be told from error; None where that is not known.
    """
    return tuple(_row(one, (smallest or {}).get(one.quantity)) for one in found)


def _row(one: MeasurementChange, error: SmallestDetectableChange | None) -> ChangeRow:
    tissue, region, measure = one.quantity
    return ChangeRow(
        tissue=tissue,
        region=region,
        measure=measure,
        unit=UNITS[measure],
        baseline=one.baseline,
        followup=one.followup,
        change=one.change,
        change_percent=one.percent,
        smallest_detectable_change=error.sdc if error else math.nan,
        smallest_low=error.low if error else math.nan,
        smallest_high=error.high if error else math.nan,
        pairs=error.pairs if error else None,
        verdict=one.verdict(error),
    )


def write_change_csv(knees: Iterable[KneeComparison], path: Path) -> None:
    """Write a line for each change of each knee; the cell of a number that is not known is empty."""
    names = [field.name for field in fields(ChangeRow)]
    lines = (
        [knee.baseline, knee.followup, *(getattr(row, name) for name in names)]
        for knee in knees
        for row in knee.changes
    )
    write_csv(path, (*_CASES, *names), lines)


def change_table(title: str, rows: Sequence[ChangeRow]) -> Table:
    """The rows of a knee for the terminal; columns of error only where it is known.

    Measures that neither visit has are left out, and counted.
    """
    with_error = any(is_known(row.smallest_detectable_change) for row in rows)
    columns = ("baseline", "follow-up", "change", "%", *(("SDC",) if with_error else ()))
    table = quantities_table(escape(title), columns, _caption(rows))
    if with_error:
        table.add_column("is it change?", no_wrap=True)
    for row in rows:
        if not row.has_any_value:
            continue
        cells = [format_amount(value, row.unit) for value in (row.baseline, row.followup, row.change)]
        cells.append(format_amount(row.change_percent, "%"))
        if with_error:
            cells += [format_amount(row.smallest_detectable_change, row.unit), row.verdict.value]
        table.add_row(*describe_row(row), *cells)
    return table


def knees_change_table(knees: Sequence[Sequence[ChangeRow]]) -> Table:
    """The rows of many knees together: means, and how many knees have less or more beyond error.

    Measures that no visit has are left out, and counted.
    """
    every = [row for rows in knees for row in rows]
    groups: dict[Quantity, list[ChangeRow]] = {}
    for row in every:
        if row.has_any_value:
            groups.setdefault(row.quantity, []).append(row)
    title = f"Change of {len(knees)} knees: means over knees, and knees beyond error"
    columns = ("knees", "baseline", "change", "SD of change", "%", "less", "more", "cannot tell")
    table = quantities_table(title, columns, _caption(every))
    for rows in groups.values():
        unit = rows[0].unit
        known = [row for row in rows if is_known(row.change)]
        changes = [row.change for row in known]
        beyond = [row.change < 0 for row in known if row.verdict in _BEYOND]
        unsure = sum(row.verdict == ChangeVerdict.UNKNOWN for row in rows)
        baseline, percent = _mean(row.baseline for row in known), _mean(row.change_percent for row in known)
        spread = float(np.std(changes, ddof=1)) if len(changes) > 1 else None
        table.add_row(
            *describe_row(rows[0]),
            str(len(known)),
            format_amount(baseline, unit),
            format_amount(_mean(changes), unit),
            format_amount(spread, unit),
            format_amount(percent, "%"),
            str(sum(beyond)),
            str(len(beyond) - sum(beyond)),
            str(unsure),
        )
    return table


def _caption(rows: Sequence[ChangeRow]) -> str | None:
    """What to bear in mind below a table; nothing where there is nothing."""
    missing = len({row.quantity for row in rows} - {row.quantity for row in rows if row.has_any_value})
    left_out = f"Left out: {missing} measures that no visit has." if missing else None
    return "\n".join(filter(None, (_by_chance(rows), left_out))) or None


def _by_chance(rows: Sequence[ChangeRow]) -> str | None:
    """How to read so many verdicts; nothing where there are none."""
    known = [row for row in rows if row.verdict != ChangeVerdict.UNKNOWN]
    if not known:
        return None
    beyond = sum(row.verdict in _BEYOND for row in known)
    words = (
        f"{beyond} of {len(known)} changes are larger than their SDC. Where nothing has changed, chance alone makes "
        "about 1 in 20 so, and more if the SDC is from few pairs: name the measures that count beforehand."
    )
    if any(row.verdict in _NARROWLY for row in known):
        words += "\nNarrowly: the change lies within the 95 % interval of the SDC, which is known no better."
    return words


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if is_known(value)]
    return float(np.mean(numbers)) if numbers else None
