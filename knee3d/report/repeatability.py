"""Repeatability as a table, as CSV and JSON, and as Bland-Altman plots."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from rich.markup import escape
from rich.table import Table

from knee3d.atomic import whole_file
from knee3d.morphometry.change import SmallestDetectableChange
from knee3d.morphometry.measurement import UNITS, WHOLE
from knee3d.morphometry.repeatability import Quantity, RepeatabilityStatistics
from knee3d.report.tables import UNIT_SIGNS, format_number, write_csv

DIGITS = {"mm3": 1, "mm2": 1, "mm": 3, "%": 2}
"""Behind the point, of numbers that are looked at; files hold more of them."""
PAGE_INCHES = (11.69, 8.27)
COLUMNS, ROWS = 3, 2
BAND_OPACITY = 0.1
_PLACES = {"left": 0.075, "right": 0.935, "bottom": 0.11, "top": 0.93, "wspace": 0.55, "hspace": 0.35}
"""Of the plots on a page: the same for all, where finding them for each takes most of the time."""
_POINT, _BIAS, _LIMIT = "#1b2a41", "#0072b2", "#b3261e"
_KEYS = ("tissue", "region", "measure", "unit")
_INTERVALS = ("bias_interval", "limits", "lower_interval", "upper_interval", "sdc_interval")
_NAMED = {"rms_cv": "rms_cv_percent"}
"""Numbers in another unit than their measure say so in files."""
_BELOW_0 = "* below 0: the knees differ less from each other than their repetitions do, so read it as 0"


def repeatability_rows(found: Mapping[Quantity, RepeatabilityStatistics]) -> list[dict[str, Any]]:
    """A mapping for each measure, ready for JSON: tissue, region, measure, unit, `RepeatabilityStatistics`.

    Intervals are two numbers each, "sdc_low" and "sdc_high" for `sdc_interval`.
    """
    rows = []
    for quantity, one in found.items():
        row: dict[str, Any] = quantity_name(quantity)
        for name, value in asdict(one).items():
            if name in _INTERVALS:
                row |= zip((f"{name.removesuffix('_interval')}_{end}" for end in ("low", "high")), value, strict=True)
            else:
                row[_NAMED.get(name, name)] = value
        rows.append(row)
    return rows


def quantity_name(quantity: Quantity) -> dict[str, str]:
    """What was measured as the first columns of a row: tissue, region, measure, unit."""
    return dict(zip(_KEYS, (*quantity, UNITS[quantity[-1]]), strict=True))


def write_repeatability_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `repeatability_rows`, a line each; what is not known is empty."""
    write_csv(path, tuple(rows[0]) if rows else _KEYS, ([*row.values()] for row in rows))


def read_smallest_detectable_changes(path: Path) -> tuple[dict[Quantity, SmallestDetectableChange], dict[str, str]]:
    """Read the smallest detectable changes of a repeatability.json, and how its knees were made.

    Returns:
        What was measured to the smallest change of it; and what `made_by` holds there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; knee3d repeatability writes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {}
        for row in content["measures"]:
            tissue, region, measure = (str(row[key]) for key in _KEYS[:3])
            if row["unit"] != UNITS[measure]:
                raise ValueError(f"{measure} is in {UNITS[measure]}")
            sdc, low, high = (
                math.nan if row[key] is None else float(row[key]) for key in ("sdc", "sdc_low", "sdc_high")
            )
            found[tissue, region, measure] = SmallestDetectableChange(sdc, low, high, int(row["pairs"]))
        made_by = {str(name): str(words) for name, words in content["made_by"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no repeatability.json of knee3d ({error}); make it again") from error
    return found, made_by


def repeatability_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """`repeatability_rows` for the terminal; "-" for what the pairs do not suffice for."""
    rows = list(rows)
    table = quantities_table(
        "Repeatability: second minus first, and the smallest change that can be told from error (SDC)",
        ("pairs", "mean", "bias", "95 % limits", "RMS-CV", "SDC", "its 95 % interval", "ICC(2,1)"),
        _BELOW_0 if any(_is_below_0(row["icc"]) for row in rows) else None,
    )
    for row in rows:
        unit = row["unit"]
        mean, bias, sdc = (format_amount(row[key], unit) for key in ("mean", "bias", "sdc"))
        table.add_row(
            *describe_row(row),
            _pairs(row),
            mean,
            bias,
            format_interval(row["limits_low"], row["limits_high"], unit),
            format_amount(row["rms_cv_percent"], "%", " %"),
            sdc,
            format_interval(row["sdc_low"], row["sdc_high"], unit),
            format_amount(row["icc"], "mm", " *" if _is_below_0(row["icc"]) else ""),
        )
    return table


def _is_below_0(value: float | None) -> bool:
    return value is not None and value < 0


def quantities_table(title: str, numbers: Iterable[str], caption: str | None) -> Table:
    """An empty table for the terminal: columns for the cells of `describe_row`, then for numbers."""
    table = Table("tissue", "region", "measure", title=title, caption=caption, caption_justify="left")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def describe_row(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Tissue, region, and measure with its unit, as they are looked at."""
    measure = f"{row['measure'].replace('_', ' ')}, {UNIT_SIGNS[row['unit']]}"
    return escape(row["tissue"]), escape(row["region"]), measure


def format_amount(value: float | None, unit: str, sign: str = "") -> str:
    """A number of a unit as it is looked at; "-" where it is not known."""
    words = format_number(value, DIGITS[unit])
    return words if words == "-" else words + sign


def format_interval(low: float | None, high: float | None, unit: str) -> str:
    """Its ends as they are looked at; "-" where they are not known."""
    words = format_amount(low, unit)
    return words if words == "-" else f"{words} to {format_amount(high, unit)}"


def _pairs(row: Mapping[str, Any]) -> str:
    return f"{row['pairs']} of {row['pairs'] + row['left_out']}" if row["left_out"] else str(row["pairs"])


def bland_altman_figure(
    pairs: Mapping[Quantity, tuple[np.ndarray, np.ndarray]],
    found: Mapping[Quantity, RepeatabilityStatistics],
    path: Path,
) -> None:
    """Bland-Altman plots as vector PDF, six a page: differences over means, with bias and limits of agreement.

    Bands around the lines are their 95 % intervals. Text stays text. The same numbers give the same bytes.

    Args:
        pairs: See `morphometry.repeatability.pair_measurements`.
        found: The `repeatability_statistics` of each. Measures without a pair are left out.
        path: The PDF.

    Raises:
        ValueError: There is no pair of any measure.
    """
    drawn = [quantity for quantity, one in found.items() if one.pairs]
    if not drawn:
        raise ValueError("there is no pair to draw")
    # TrueType outlines: Type 3 fonts, the default, are refused by journals. No date: it would change the bytes.
    about = {"CreationDate": None, "Title": "Bland-Altman plots"}
    with rc_context({"pdf.fonttype": 42}), whole_file(path) as partial, PdfPages(partial, metadata=about) as pages:
        for start in range(0, len(drawn), COLUMNS * ROWS):
            some = drawn[start : start + COLUMNS * ROWS]
            figure = Figure(figsize=PAGE_INCHES)
            panels = figure.subplots(ROWS, COLUMNS, squeeze=False, gridspec_kw=_PLACES).ravel()
            for panel, quantity in zip(panels, some, strict=False):
                _panel(panel, quantity, pairs[quantity], found[quantity])
            for panel in panels[len(some) :]:
                panel.set_axis_off()
            _legend(figure)
            pages.savefig(figure)


def _legend(figure: Figure) -> None:
    """What lines and bands are, below all plots of a page."""
    lines = [Line2D([], [], color=_BIAS, label="bias"),
             Line2D([], [], color=_LIMIT, linestyle="--", label="95 % limits of agreement")]  # fmt: skip
    bands = [Patch(color=colour, alpha=BAND_OPACITY, linewidth=0, label=f"95 % interval of {words}")
             for colour, words in ((_BIAS, "the bias"), (_LIMIT, "each limit"))]  # fmt: skip
    figure.legend(handles=[*lines, *bands], loc="lower center", ncols=4, frameon=False, fontsize=8)


def _panel(axes: Axes, quantity: Quantity, pair: tuple[np.ndarray, np.ndarray], found: RepeatabilityStatistics) -> None:
    tissue, region, measure = quantity
    unit = UNITS[measure]
    sign = UNIT_SIGNS[unit]
    first, second = pair
    axes.plot((first + second) / 2, second - first, "o", color=_POINT, markersize=4, markeredgewidth=0, alpha=0.8)
    _line(axes, found.bias, found.bias_interval, _BIAS, "-", f"bias\n{format_amount(found.bias, unit)}")
    if found.pairs > 1:
        intervals = (found.lower_interval, found.upper_interval)
        for words, limit, interval in zip(("\N{MINUS SIGN}", "+"), found.limits, intervals, strict=True):
            _line(axes, limit, interval, _LIMIT, "--", f"{words}1.96 SD\n{format_amount(limit, unit)}")
    where = tissue if region == WHOLE else f"{tissue}, {region}"
    axes.set_title(f"{fill(where, 40)}\n{measure.replace('_', ' ')}, n = {found.pairs}", fontsize=9)
    axes.set_xlabel(f"mean of both ({sign})", fontsize=8)
    axes.set_ylabel(f"second \N{MINUS SIGN} first ({sign})", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(x=0.12)
    heights = [height for height in (*(second - first).tolist(), *found.limits) if math.isfinite(height)]
    room = 0.5 * (max(heights) - min(heights)) or 1
    axes.set_ylim(min(heights) - room, max(heights) + room)  # bands of few pairs may reach far beyond
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, height: float, interval: tuple[float, float], colour: str, style: str, words: str) -> None:
    axes.axhline(height, color=colour, linestyle=style, linewidth=1)
    if math.isfinite(interval[0]):
        axes.axhspan(*interval, color=colour, alpha=BAND_OPACITY, linewidth=0)
    place = axes.get_yaxis_transform()
    axes.text(
        1.02, height, words.replace("-", "\N{MINUS SIGN}"), transform=place, color=colour, fontsize=7, va="center"
    )
