"""Repeatability of measures: the result that repeatability.json holds, as CSV and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.markup import escape
from rich.table import Table

from knee3d.morphometry.change import SmallestDetectableChange
from knee3d.morphometry.measurement import UNITS
from knee3d.morphometry.repeatability import Quantity, RepeatabilityStatistics
from knee3d.records import Number, Record
from knee3d.report.tables import UNIT_SIGNS, format_number, write_csv

if TYPE_CHECKING:
    import pandas as pd

DIGITS = {"mm3": 1, "mm2": 1, "mm": 3, "%": 2}
"""Behind the point, of numbers that are looked at; files hold more of them."""
_BELOW_0 = "* below 0: the knees differ less from each other than their repetitions do, so read it as 0"


@dataclass(frozen=True)
class RepeatabilityRow:
    """How well one measure repeats: a row of repeatability.csv. Numbers that are not known are NaN.

    Attributes:
        tissue: The name of the tissue.
        region: The name of a part of the tissue, or "whole".
        measure: The name of the measure, such as "volume".
        unit: The unit of the measure, and of all numbers that say nothing else.
        pairs: The number of pairs in which both values are known.
        left_out: The number of the other pairs.
        mean: The mean of all values.
        bias: The mean of second minus first.
        bias_low: The lower end of the 95 % interval of the bias.
        bias_high: The upper end of that interval.
        sd: The standard deviation of the differences.
        limits_low: The lower 95 % limit of agreement.
        limits_high: The upper 95 % limit of agreement.
        lower_low: The lower end of the 95 % interval of the lower limit.
        lower_high: The upper end of that interval.
        upper_low: The lower end of the 95 % interval of the upper limit.
        upper_high: The upper end of that interval.
        rms_sd: The root mean square of the standard deviations of the knees.
        rms_cv_percent: The root mean square of the coefficients of variation of the knees, in percent.
        sem: The standard error of measurement.
        sdc: The smallest detectable change, at 95 %.
        sdc_low: The lower end of the 95 % interval of the smallest detectable change.
        sdc_high: The upper end of that interval.
        icc: The intraclass correlation ICC(2,1), which has no unit.

    Raises:
        ValueError: There is no such measure, or it has another unit.
    """

    tissue: str
    region: str
    measure: str
    unit: str
    pairs: int
    left_out: int
    mean: Number
    bias: Number
    bias_low: Number
    bias_high: Number
    sd: Number
    limits_low: Number
    limits_high: Number
    lower_low: Number
    lower_high: Number
    upper_low: Number
    upper_high: Number
    rms_sd: Number
    rms_cv_percent: Number
    sem: Number
    sdc: Number
    sdc_low: Number
    sdc_high: Number
    icc: Number

    def __post_init__(self) -> None:
        check_unit(self.measure, self.unit)
        if min(self.pairs, self.left_out) < 0 or self.sdc < 0 or self.sdc_low > self.sdc_high:
            raise ValueError(f"the numbers of {self.tissue} {self.measure} are not possible")

    @property
    def smallest_detectable_change(self) -> SmallestDetectableChange:
        """The smallest detectable change with its interval and its number of pairs."""
        return SmallestDetectableChange(self.sdc, self.sdc_low, self.sdc_high, self.pairs)


@dataclass(frozen=True)
class PairedCases:
    """The names of a knee that was measured twice.

    Attributes:
        first: The name of the first measurement.
        second: The name of the second measurement.
    """

    first: str
    second: str


@dataclass(frozen=True, repr=False)
class RepeatabilityResult(Record):
    """How well measures repeat, as repeatability.json keeps it.

    Attributes:
        knee3d: The version of knee3d that computed it.
        pairs: The knees that were measured twice; empty where no pair could be read.
        patients: The number of patients of the pairs.
        failures: The line of the table to the reason why its pair could not be used.
        notes: What weakens the result, in sentences.
        made_by: What all measures were made with: networks, fusion weights, settings, voxels; the name to its value.
        measures: The statistics of each tissue, region and measure.
    """

    knee3d: str
    pairs: tuple[PairedCases, ...]
    patients: int
    failures: Mapping[str, str]
    notes: tuple[str, ...]
    made_by: Mapping[str, str]
    measures: tuple[RepeatabilityRow, ...]

    def __repr__(self) -> str:
        return (
            f"RepeatabilityResult(pairs: {len(self.pairs)}, patients: {self.patients}, failed: {len(self.failures)}, "
            f"measures: {len(self.measures)})"
        )

    def __post_init__(self) -> None:
        known = Counter((row.tissue, row.region, row.measure) for row in self.measures)
        twice = [" ".join(quantity) for quantity, count in known.items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} is there twice")

    @property
    def smallest_detectable_changes(self) -> dict[Quantity, SmallestDetectableChange]:
        """The smallest detectable change of each measure; the keys are (tissue, region, measure)."""
        return {(row.tissue, row.region, row.measure): row.smallest_detectable_change for row in self.measures}

    def to_frame(self) -> pd.DataFrame:
        """The statistics as a table.

        Returns:
            A row for each tissue, region and measure: bias, limits of agreement, RMS-CV, SDC and ICC with intervals.
        """
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.measures])

    def table(self) -> Table:
        """The statistics as a table of rich, for the terminal."""
        return repeatability_table(self.measures)


def repeatability_rows(found: Mapping[Quantity, RepeatabilityStatistics]) -> tuple[RepeatabilityRow, ...]:
    """The statistics of each measure as a row.

    Args:
        found: What was measured to its statistics.
    """
    return tuple(_row(quantity, one) for quantity, one in found.items())


def _row(quantity: Quantity, one: RepeatabilityStatistics) -> RepeatabilityRow:
    tissue, region, measure = quantity
    return RepeatabilityRow(
        tissue=tissue,
        region=region,
        measure=measure,
        unit=UNITS[measure],
        pairs=one.pairs,
        left_out=one.left_out,
        mean=one.mean,
        bias=one.bias,
        bias_low=one.bias_interval[0],
        bias_high=one.bias_interval[1],
        sd=one.sd,
        limits_low=one.limits[0],
        limits_high=one.limits[1],
        lower_low=one.lower_interval[0],
        lower_high=one.lower_interval[1],
        upper_low=one.upper_interval[0],
        upper_high=one.upper_interval[1],
        rms_sd=one.rms_sd,
        rms_cv_percent=one.rms_cv,
        sem=one.sem,
        sdc=one.sdc,
        sdc_low=one.sdc_interval[0],
        sdc_high=one.sdc_interval[1],
        icc=one.icc,
    )


def check_unit(measure: str, unit: str) -> None:
    """Refuse a measure that knee3d does not take, or that is in another unit.

    Raises:
        ValueError: There is no such measure, or it has another unit.
    """
    if measure not in UNITS:
        raise ValueError(f"unknown measure {measure!r}; there are: {', '.join(UNITS)}")
    if unit != UNITS[measure]:
        raise ValueError(f"{measure} is in {UNITS[measure]}, not in {unit!r}")


def write_repeatability_csv(rows: Sequence[RepeatabilityRow], path: Path) -> None:
    """Write a line for each row; the cell of a number that is not known is empty."""
    names = [field.name for field in fields(RepeatabilityRow)]
    write_csv(path, names, ([getattr(row, name) for name in names] for row in rows))


def read_repeatability(path: Path) -> RepeatabilityResult:
    """Read a repeatability.json.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; knee3d repeatability writes it")
    try:
        return RepeatabilityResult.from_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no repeatability.json of knee3d ({error}); make it again") from error


def repeatability_table(rows: Iterable[RepeatabilityRow]) -> Table:
    """A table of the rows for the terminal; "-" stands for what the pairs do not suffice for."""
    rows = list(rows)
    table = quantities_table(
        "Repeatability: second minus first, and the smallest change that can be told from error (SDC)",
        ("pairs", "mean", "bias", "95 % limits", "RMS-CV", "SDC", "its 95 % interval", "ICC(2,1)"),
        _BELOW_0 if any(row.icc < 0 for row in rows) else None,
    )
    for row in rows:
        mean, bias, sdc = (format_amount(value, row.unit) for value in (row.mean, row.bias, row.sdc))
        table.add_row(
            *describe_row(row),
            _pairs(row),
            mean,
            bias,
            format_interval(row.limits_low, row.limits_high, row.unit),
            format_amount(row.rms_cv_percent, "%", " %"),
            sdc,
            format_interval(row.sdc_low, row.sdc_high, row.unit),
            format_amount(row.icc, "mm", " *" if row.icc < 0 else ""),
        )
    return table


def quantities_table(title: str, numbers: Iterable[str], caption: str | None) -> Table:
    """An empty table for the terminal: columns for the cells of `describe_row`, then for numbers."""
    table = Table("tissue", "region", "measure", title=title, caption=caption, caption_justify="left")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


class MeasureRow(Protocol):
    """A row that says what was measured."""

    @property
    def tissue(self) -> str:
        """The name of the tissue."""

    @property
    def region(self) -> str:
        """The name of a part of the tissue, or "whole"."""

    @property
    def measure(self) -> str:
        """The name of the measure."""

    @property
    def unit(self) -> str:
        """The unit of the measure."""


def describe_row(row: MeasureRow) -> tuple[str, str, str]:
    """Tissue, region, and measure with its unit, as they are looked at."""
    measure = f"{row.measure.replace('_', ' ')}, {UNIT_SIGNS[row.unit]}"
    return escape(row.tissue), escape(row.region), measure


def format_amount(value: float | None, unit: str, sign: str = "") -> str:
    """A number of a unit as it is looked at; "-" where it is not known."""
    words = format_number(value, DIGITS[unit])
    return words if words == "-" else words + sign


def format_interval(low: float | None, high: float | None, unit: str) -> str:
    """Its ends as they are looked at; "-" where they are not known."""
    words = format_amount(low, unit)
    return words if words == "-" else f"{words} to {format_amount(high, unit)}"


def _pairs(row: RepeatabilityRow) -> str:
    return f"{row.pairs} of {row.pairs + row.left_out}" if row.left_out else str(row.pairs)
