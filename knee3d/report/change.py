"""Tables of change between two visits, for the terminal and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from knee3d.morphometry.change import ChangeVerdict, MeasurementChange, SmallestDetectableChange
from knee3d.morphometry.repeatability import Quantity
from knee3d.report.repeatability import describe_row, format_amount, quantities_table, quantity_name
from knee3d.report.tables import is_known, write_csv

_QUANTITY = itemgetter("tissue", "region", "measure")
_BEYOND = (ChangeVerdict.BEYOND, ChangeVerdict.JUST_BEYOND)
_NARROWLY = (ChangeVerdict.JUST_BEYOND, ChangeVerdict.JUST_WITHIN)


def change_rows(
    found: Iterable[MeasurementChange], smallest: Mapping[Quantity, SmallestDetectableChange] | None = None
) -> list[dict[str, Any]]:
    """A mapping for each measure, ready for JSON.

    Args:
        found: What has changed.
        smallest: The smallest changes that can be told from error; None where that is not known.
    """
    rows = []
    for one in found:
        error = (smallest or {}).get(one.quantity)
        rows.append({
            **quantity_name(one.quantity),
            "baseline": one.baseline,
            "followup": one.followup,
            "change": one.change,
            "change_percent": one.percent,
            "smallest_detectable_change": error.sdc if error else None,
            "smallest_low": error.low if error else None,
            "smallest_high": error.high if error else None,
            "pairs": error.pairs if error else None,
            "verdict": one.verdict(error).value,
        })  # fmt: skip
    return rows


def write_change_csv(knees: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Write `change_rows` of knees, a line each.

    Args:
        knees: Names of a knee at baseline and at follow-up, and its rows.
        path: The CSV file.
    """
    first = next((rows[0] for _, _, rows in knees if rows), {})
    lines = ([baseline, followup, *row.values()] for baseline, followup, rows in knees for row in rows)
    write_csv(path, ("baseline_case", "followup_case", *first), lines)


def change_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """`change_rows` of a knee for the terminal; columns of error only where it is known.

    Measures that neither visit has are left out, and counted.
    """
    with_error = any(row["smallest_detectable_change"] is not None for row in rows)
    columns = ("baseline", "follow-up", "change", "%", *(("SDC",) if with_error else ()))
    table = quantities_table(escape(title), columns, _caption(rows))
    if with_error:
        table.add_column("is it change?", no_wrap=True)
    for row in filter(_is_measured, rows):
        unit = row["unit"]
        cells = [format_amount(row[key], unit) for key in ("baseline", "followup", "change")]
        cells.append(format_amount(row["change_percent"], "%"))
        if with_error:
            cells += [format_amount(row["smallest_detectable_change"], unit), row["verdict"]]
        table.add_row(*describe_row(row), *cells)
    return table


def knees_change_table(knees: Sequence[Sequence[Mapping[str, Any]]]) -> Table:
    """`change_rows` of many knees, together: means, and how many knees have less or more beyond error.

    Measures that no visit has are left out, and counted.
    """
    every = [row for rows in knees for row in rows]
    groups: dict[Quantity, list[Mapping[str, Any]]] = {}
    for row in filter(_is_measured, every):
        groups.setdefault(_QUANTITY(row), []).append(row)
    title = f"Change of {len(knees)} knees: means over knees, and knees beyond error"
    columns = ("knees", "baseline", "change", "SD of change", "%", "less", "more", "cannot tell")
    table = quantities_table(title, columns, _caption(every))
    for rows in groups.values():
        unit = rows[0]["unit"]
        known = [row for row in rows if is_known(row["change"])]
        beyond = [row["change"] < 0 for row in known if row["verdict"] in _BEYOND]
        unsure = sum(row["verdict"] == ChangeVerdict.UNKNOWN for row in rows)
        baseline, change, percent = (_mean(row[key] for row in known) for key in ("baseline", "change",
                                                                                  "change_percent"))  # fmt: skip
        spread = float(np.std([row["change"] for row in known], ddof=1)) if len(known) > 1 else None
        table.add_row(
            *describe_row(rows[0]),
            str(len(known)),
            format_amount(baseline, unit),
            format_amount(change, unit),
            format_amount(spread, unit),
            format_amount(percent, "%"),
            str(sum(beyond)),
            str(len(beyond) - sum(beyond)),
            str(unsure),
        )
    return table


def _caption(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What to bear in mind below a table; nothing where there is nothing."""
    every, measured = (set(map(_QUANTITY, some)) for some in (rows, filter(_is_measured, rows)))
    missing = len(every - measured)
    left_out = f"Left out: {missing} measures that no visit has." if missing else None
    return "\n".join(filter(None, (_by_chance(rows), left_out))) or None


def _is_measured(row: Mapping[str, Any]) -> bool:
    return is_known(row["baseline"]) or is_known(row["followup"])


def _by_chance(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """How to read so many verdicts; nothing where there are none."""
    known = [row for row in rows if row["verdict"] != ChangeVerdict.UNKNOWN]
    if not known:
        return None
    beyond = sum(row["verdict"] in _BEYOND for row in known)
    words = (
        f"{beyond} of {len(known)} changes are larger than their SDC. Where nothing has changed, chance alone makes "
        "about 1 in 20 so, and more if the SDC is from few pairs: name the measures that count beforehand."
    )
    if any(row["verdict"] in _NARROWLY for row in known):
        words += "\nNarrowly: the change lies within the 95 % interval of the SDC, which is known no better."
    return words


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if is_known(value)]
    return float(np.mean(numbers)) if numbers else None
