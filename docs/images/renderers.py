"""Draw docs/images/renderers.png: one parametric knee in three planes, rendered by each renderer of phantoms.

`.venv/bin/python docs/images/renderers.py docs/images/renderers.png`
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.phantom.cohort import RENDERERS, parametric_shape, scan_anatomy
from knee3d.phantom.parametric_knee import parametric_knee

SEED, VOXEL_MM = 5, (0.36, 0.36, 0.7)
INCHES = 2.2
SHOWN = {Plane.AXIAL: 4, Plane.CORONAL: 2, Plane.SAGITTAL: 2}
"""The plate, by its label, through whose middle the slice of a plane lies."""


def main(out: Path) -> None:
    """Draw it.

    Args:
        out: The picture.
    """
    labels = parametric_knee(parametric_shape(VOXEL_MM), SEED)
    figure = Figure(figsize=(3 * INCHES, 2.1 * INCHES), facecolor="black", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for panels, renderer in zip(figure.subplots(2, 3), RENDERERS, strict=True):
        image, _ = scan_anatomy(labels, SEED, renderer)
        brightest = np.percentile(image.array, 99.7)
        for panel, plane in zip(panels, Plane, strict=True):
            number = int(np.median(np.nonzero(to_slices(labels, plane) == SHOWN[plane])[0]))
            height, width = (image.spacing_mm[axis] for axis in range(3) if axis != plane.axis)
            panel.imshow(
                to_slices(image, plane)[number], cmap="gray", vmin=0, vmax=brightest, aspect=height / width,
                interpolation="antialiased",
            )  # fmt: skip
            panel.set_title(f"{renderer}, {plane.value}", color="white", fontsize=8)
            panel.set_axis_off()
    figure.set_dpi(110)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., 0]
    Image.fromarray(np.ascontiguousarray(grey)).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
