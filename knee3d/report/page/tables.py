"""The tables of a page: measures, scores, confusion matrices. Text is escaped where it becomes HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from knee3d.anatomy.tissue import Scheme
from knee3d.postprocess.confusion import Scores
from knee3d.postprocess.ensemble import FUSED
from knee3d.quantify.measures import UNITS, WHOLE, Measure

UNKNOWN = "–"
EXPLAINED = {
    "Volume": "Voxels of the labels times the volume of one.",
    "Thickness": "Over the bone-cartilage interface where there is cartilage, by area. P5 to P95 are percentiles.",
    "Area": "Of the bone-cartilage interface.",
}
"""What stands below a table of measures."""
SIGNS = {"mm3": "mm³", "mm2": "mm²"}
DIGITS = {"mm3": 0, "mm2": 0, "mm": 2, "%": 1}
HEADINGS = {
    "volume": "Volume",
    "partial_volume": "Volume, borders in part",
    "thickness_mean": "Mean",
    "thickness_mean_tab": "Mean, bare bone as 0",
    "thickness_sd": "SD",
    "thickness_p5": "P5",
    "thickness_p25": "P25",
    "thickness_median": "Median",
    "thickness_p75": "P75",
    "thickness_p95": "P95",
    "covered_area": "Covered by cartilage",
    "subchondral_area": "Subchondral bone",
    "denuded_share": "Bare bone",
}
GROUPS = {
    "Volume": ("volume", "partial_volume"),
    "Thickness": tuple(name for name in UNITS if name.startswith("thickness")),
    "Area": ("covered_area", "subchondral_area", "denuded_share"),
}
"""Tables of measures, and the columns of each."""


def table(caption: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table whose first column names the rows.

    Args:
        caption: Above it; text.
        head: Of each column, the first one included; text.
        rows: Name and cells of each row: HTML, so that names can be indented.
        kind: Class of the table.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>' for name, cells in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def number(value: float, digits: int) -> str:
    """As text with thousands parted; `UNKNOWN` where it is not finite."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else UNKNOWN


def measures_tables(measures: Sequence[Measure], scheme: Scheme) -> str:
    """One table for each of `GROUPS` that something was measured of.

    Rows are tissues in the scheme's order, then their regions as they come; columns are measures with their units.
    """
    values = {(one.tissue, one.region, one.measure): one.value for one in measures}
    tissues = dict.fromkeys([*scheme.names, *(one.tissue for one in measures)])
    made = []
    for caption, group in GROUPS.items():
        columns = [name for name in group if any(name == one.measure for one in measures)]
        measured = dict.fromkeys((one.tissue, one.region) for one in measures if one.measure in columns)
        places = sorted(measured, key=lambda place: (list(tissues).index(place[0]), place[1] != WHOLE))
        rows = (
            (_place(*place, scheme), [_cell(name, values.get((*place, name), math.nan)) for name in columns])
            for place in places
        )
        if columns:
            head = [f"{HEADINGS[name]} ({SIGNS.get(UNITS[name], UNITS[name])})" for name in columns]
            found = table(caption, ["Tissue", *head], rows, "measures")
            made.append(f'<div>{found}<p class="hint">{EXPLAINED[caption]}</p></div>')
    return f'<div class="tables">{"".join(made)}</div>' if made else ""


def _cell(measure: str, value: float) -> str:
    return number(value, DIGITS[UNITS[measure]])


def _place(tissue: str, region: str, scheme: Scheme) -> str:
    if region != WHOLE:
        return f'<span class="part">{escape(region)}</span><span class="unseen"> of {escape(tissue)}</span>'
    known = tissue in scheme.names
    swatch = f'<i class="swatch tissue-{scheme.names.index(tissue) + 1}"></i>' if known else ""
    return f"{swatch}{escape(tissue)}"


def scores_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Dice: a row for each view, a column for each tissue."""
    tissues = list(dict.fromkeys(tissue for view in scores.values() for tissue in view))
    rows = (
        (_view(name), [number(view.get(tissue, math.nan), 4) for tissue in tissues]) for name, view in scores.items()
    )
    return table("Dice", ["View", *tissues], rows, "measures")


def confusion_table(name: str, scores: Scores) -> str:
    """Counts and shares of the true class: a row for each true class, a column for each found one."""
    names = ["background", *scores.names]
    sizes = scores.matrix.sum(axis=1)
    rows = (
        (escape(true), [_count(int(count), int(size)) for count in row])
        for true, row, size in zip(names, scores.matrix, sizes, strict=True)
    )
    caption = f"Voxels by true class (rows) and found class (columns): {name}"
    return table(caption, ["True class", *names], rows, "measures confusion")


def _count(count: int, size: int) -> str:
    if not size:
        return f"{count:,}"
    share = 100 * count / size
    words = "&lt; 0.01" if 0 < share < 0.01 else f"{share:.2f}"
    return f'{count:,} <small class="share-{math.ceil(share / 10)}">{words} %</small>'


def _view(name: str) -> str:
    return f"<strong>{escape(name)}</strong>" if name == FUSED else escape(name)


def pairs_table(caption: str, pairs: Mapping[str, str]) -> str:
    """Two columns: what, and what it is. The caption is heard and not seen: a heading says the same."""
    rows = ((escape(key), [escape(str(value))]) for key, value in pairs.items())
    return table(caption, ["What", "Value"], rows, "made")
