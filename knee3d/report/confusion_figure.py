"""Draw confusion matrices.

Drawn with matplotlib's objects, never pyplot, so that nothing is global.
"""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from knee3d.atomic import whole_file
from knee3d.postprocess.confusion_matrix import OverlapScores

DPI = 200
CELL_INCHES = (1.05, 0.62)
PANEL_INCHES = (2.6, 1.7)


def confusion_figure(scores: Mapping[str, OverlapScores], path: Path) -> None:
    """One confusion matrix per view, as in the paper: three planes and what they give together.

    Each cell has its count and its share of the row (of the true class); the colour is the square root of the share,
    because background is almost everything and errors are what is looked for.

    Args:
        scores: View name to scores, in the order of the panels.
        path: Where to write; the ending says the format (.png, .pdf, .svg).

    Raises:
        ValueError: There is no view, or matplotlib does not know the ending.
    """
    if not scores:
        raise ValueError("a confusion figure needs the scores of at least one view")
    columns = len(scores) if len(scores) < 4 else (len(scores) + 1) // 2
    rows = -(-len(scores) // columns)
    classes = max(len(view.names) for view in scores.values()) + 1
    width, height = (max(side * classes, least) for side, least in zip(CELL_INCHES, PANEL_INCHES, strict=True))
    layout = ConstrainedLayoutEngine(h_pad=0.12)  # more, or what stands below a panel touches the title of the next
    figure = Figure(figsize=(columns * width + 2.6, rows * (height + 0.9) + 0.8), dpi=DPI, layout=layout)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, view) in zip(panels, scores.items(), strict=False):
        image = _confusion_panel(panel, name, view)
    for panel in panels[len(scores) :]:
        panel.set_axis_off()
    bar = figure.colorbar(image, ax=panels.tolist(), shrink=0.7, aspect=30, pad=0.02, label="share of the true class")
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1], labels=["0", "1 %", "10 %", "25 %", "50 %", "100 %"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    undated: dict[str, Any] = {"metadata": {"CreationDate": None}} if path.suffix == ".pdf" else {}
    with whole_file(path) as partial:
        figure.savefig(partial, **undated)


def _confusion_panel(axes: Axes, name: str, scores: OverlapScores) -> AxesImage:
    matrix = scores.matrix
    sizes = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, sizes, out=np.zeros(matrix.shape), where=sizes > 0)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    for (i, j), count in np.ndenumerate(matrix):
        colour = "white" if shares[i, j] > 0.35 else "#1b2a41" if count else "#9aa5b1"
        share = _percent(shares[i, j]) if sizes[i, 0] else "\N{EN DASH}"
        cell: dict[str, Any] = {
            "xy": (j, i),
            "textcoords": "offset points",
            "ha": "center",
            "va": "center",
            "color": colour,
        }
        axes.annotate(f"{count:,}", xytext=(0, 6), fontsize=8.5, weight="bold", **cell)
        axes.annotate(share, xytext=(0, -7), fontsize=7, **cell)
    labels = [fill(label, 11) for label in ("background", *scores.names)]
    axes.set_xticks(range(len(labels)), labels, fontsize=7.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    axes.set_xticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", fontsize=8.5)
    axes.set_ylabel("true", fontsize=8.5)
    axes.set_title(f"{name}\nforeground Dice {scores.foreground_dice:.4f}", fontsize=10.5, pad=8)
    return image


def _percent(share: float) -> str:
    percent = 100 * share
    return "< 0.01 %" if 0 < percent < 0.005 else f"{percent:.2f} %"
