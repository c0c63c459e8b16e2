"""Bland-Altman plots as vector PDF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from knee3d.atomic import whole_file
from knee3d.morphometry.measurement import UNITS, WHOLE
from knee3d.morphometry.repeatability import Quantity, RepeatabilityStatistics
from knee3d.report.repeatability import format_amount
from knee3d.report.tables import UNIT_SIGNS

PAGE_INCHES = (11.69, 8.27)
COLUMNS, ROWS = 3, 2
BAND_OPACITY = 0.1
_PLACES = {"left": 0.075, "right": 0.935, "bottom": 0.11, "top": 0.93, "wspace": 0.55, "hspace": 0.35}
"""Of the plots on a page: the same for all, where finding them for each takes most of the time."""
_POINT, _BIAS, _LIMIT = "#1b2a41", "#0072b2", "#b3261e"


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
