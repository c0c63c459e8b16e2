"""Draw the subregions of cartilage."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knee3d.labels.label_scheme import FEMORAL
from knee3d.morphometry.subregions import REGIONS, FemoralLandmarks
from knee3d.morphometry.thickness import BoneCartilageInterface

DPI = 110
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2")
_LINE: dict[str, Any] = {"color": "#222222", "linewidth": 1.0, "linestyle": (0, (4, 3))}


def subregions_picture(interfaces: Mapping[str, BoneCartilageInterface], landmarks: FemoralLandmarks) -> bytes:
    """Bone-cartilage interfaces seen from below, each part in its colour, with the lines that part them.

    Args:
        interfaces: Cartilage to interface; those without parts are left out.
        landmarks: Where the cuts are.

    Returns:
        A PNG.
    """
    shown = {name: interface for name, interface in interfaces.items() if name in REGIONS}
    figure = Figure(figsize=(4.6 * max(1, len(shown)), 4.8), dpi=DPI, layout="constrained")
    for number, (name, interface) in enumerate(shown.items(), start=1):
        _panel(figure.add_subplot(1, len(shown), number), name, interface, landmarks)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, name: str, interface: BoneCartilageInterface, landmarks: FemoralLandmarks) -> None:
    covered = interface.thickness_mm > 0
    points = interface.points[covered]
    along = landmarks.along(points)
    numbers = landmarks.region(name, points)
    for number, region in enumerate(REGIONS[name]):
        some = along[numbers == number]
        axes.scatter(some[:, 2], some[:, 1], s=1.5, color=COLOURS[number], rasterized=True)
        if len(some):
            place = np.median(some[:, [2, 1]], axis=0)
            axes.annotate(
                region, place, ha="center", va="center", fontsize=9, bbox={"fc": "white", "alpha": 0.8, "lw": 0}
            )
    axes.axvline(landmarks.notch.medial, **_LINE)
    if name == FEMORAL:
        _femoral_cuts(axes, landmarks)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_title(name, fontsize=11)
    axes.set_xlabel("mm towards medial")
    axes.set_ylabel("mm to posterior")


def _femoral_cuts(axes: Axes, landmarks: FemoralLandmarks) -> None:
    """The front of the notch, and on each condyle where the central part ends."""
    axes.axhline(landmarks.notch.posterior, **_LINE)
    low, high = axes.get_xlim()
    medial, lateral = landmarks.cuts()
    middle = landmarks.notch.medial
    for start, stop, cut in ((middle, high, medial), (low, middle, lateral)):
        axes.plot([start, stop], [cut, cut], **_LINE)
    axes.set_xlim(low, high)
