"""Draw docs/images/model-voxels.png: scores and seconds against the voxels of a model.

Reads benchmarks/model_spacing.json, which `benchmarks/model_spacing.py FOLDER summary` writes.

`.venv/bin/python docs/images/model-voxels.py docs/images/model-voxels.png`
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DATA = Path(__file__).parents[2] / "benchmarks" / "model_spacing.json"
PANELS = {
    "femoral cartilage": ("Dice of femoral cartilage", (0.4, 1.0)),
    "femoral volume": ("volume error, %", None),
    "femoral thickness": ("thickness error, mm", None),
}
"""What is drawn of each model: the measure, its axis and the limits of that."""
ROWS = {
    ("curve", "leg"): ("trained, other renderer", "#c2410c", "o-"),
    ("curve", "random-fields"): ("trained, same renderer", "#0369a1", "s-"),
    ("limit", ""): ("perfect network", "#6b7280", "^--"),
}
"""Question and renderer to a name, a colour and a mark."""


def main(out: Path) -> None:
    """Draw it.

    Args:
        out: The picture.
    """
    data: dict[str, list[dict[str, Any]]] = json.loads(DATA.read_text())
    models = list(dict.fromkeys(row["model"] for row in data["curve"]))
    places = {model: number for number, model in enumerate(sorted(models, key=_area))}
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    panels = figure.subplots(1, len(PANELS) + 1)
    for panel, (measure, (title, limits)) in zip(panels, PANELS.items(), strict=False):
        for (question, renderer), (name, colour, mark) in ROWS.items():
            rows = [row for row in data[question] if row["renderer"] == renderer]
            rows.sort(key=lambda row: places[row["model"]])
            values = [row[measure] for row in rows]
            panel.plot([places[row["model"]] for row in rows], values, mark, color=colour, label=name, markersize=4)
        panel.set_title(title, fontsize=9)
        if limits is None:
            panel.axhline(0, color="#d1d5db", linewidth=0.8, zorder=0)
        else:
            panel.set_ylim(limits)
    for way, colour, mark in (("whole", "#111827", "o-"), ("fast", "#9333ea", "s-")):
        timed = [row for row in data["seconds"] if way in row]
        rows = sorted(timed, key=lambda row: places[row["model"]])
        panels[-1].plot([places[row["model"]] for row in rows], [row[way] for row in rows], mark, color=colour,
                        label={"whole": "whole knee", "fast": "--fast"}[way], markersize=4)  # fmt: skip
    panels[-1].set_title("seconds a knee, 2 cores", fontsize=9)
    panels[-1].set_ylim(0)
    for panel in panels:
        panel.set_xticks(list(places.values()), [_named(model) for model in places], rotation=45, ha="right")
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=7, frameon=False, loc="lower left")
    panels[-1].legend(fontsize=7, frameon=False)
    figure.set_dpi(110)
    FigureCanvasAgg(figure).print_png(out)


def _area(model: str) -> float:
    return 0.0 if model == "native" else float(model.split(",")[0])


def _named(model: str) -> str:
    return "native" if model == "native" else " x ".join(model.split(","))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
