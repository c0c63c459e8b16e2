"""Draw docs/images/journey.png: what the networks of the three planes say of a test knee, and what becomes of it.

After `make demo`, `.venv/bin/python docs/images/journey.py runs/demo docs/images/journey.png`.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from knee3d.dataset.case_collection import Split, load_cases
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import ProbabilityWriter
from knee3d.inference.trained_models import load_models
from knee3d.report.rendering import BACKGROUND, render_labels

PAPER = "#{:02x}{:02x}{:02x}".format(*BACKGROUND)
INK = "#e8ecf2"
INCHES = 3.2


def main(run: Path, out: Path) -> None:
    """Draw it.

    Args:
        run: What `knee3d demo` left.
        out: The picture.
    """
    dataset, trained = load_cases(run / "dataset"), load_models(run / "models")
    case = dataset.of_split(Split.TEST)[0]
    image = dataset.image(case)
    said: dict[str, Volume] = {}
    opinion = trained.ensemble.predict(image, case.name, keep=ProbabilityWriter(np.float32, said.__setitem__))
    figure = Figure(figsize=(4 * INCHES, 1.12 * INCHES), facecolor=PAPER, layout="constrained")
    panels = figure.subplots(1, 4)
    for panel, plane in zip(panels, Plane, strict=False):
        tissue = to_slices(opinion.labels, plane) > 0
        number = int(tissue.sum(axis=(1, 2)).argmax())
        probability = 1 - np.moveaxis(said[plane.value].array[..., 0], plane.axis, 0)[number]
        height, width = (image.spacing_mm[axis] for axis in range(3) if axis != plane.axis)
        panel.imshow(to_slices(image, plane)[number], cmap="gray", aspect=height / width)
        seen = np.ma.masked_less(probability, 0.05)
        panel.imshow(seen, cmap="inferno", vmin=0, vmax=1, alpha=0.75, aspect=height / width)
        panel.set_title(f"the {plane.value} network", color=INK, fontsize=11)
    panels[-1].imshow(render_labels(opinion.labels, dataset.scheme, (640, 640)))
    panels[-1].set_title("fused", color=INK, fontsize=11)
    for panel in panels:
        panel.set_axis_off()
    FigureCanvasAgg(figure)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
