"""A knee that lies otherwise in the image: how much do its parts change that should not?

Labels are turned about each axis of the image, nearest voxels, and measured; parts are cut along the axes of the image
and along the knee's own. Of both directions and the three axes the largest change of each part is told.

    python tests/quantify/turned.py ../shared/data/labels/knee_b_label.nrrd    # some minutes
"""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from knee3d.geometry.box import bounding_box
from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.resampling import NEAREST, resample
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.knee_measurements import measure_knee
from knee3d.morphometry.measurement import WHOLE

SCHEME = SCHEMES["compartments"]
DEGREES = (5, 10, 20)
AXES = ("inferior", "posterior", "left")
SHOWN = {"volume": "volume", "thickness_mean": "thickness"}

Found = dict[tuple[str, str, str], float]
"""Tissue, part and measure -> value."""


def turned(labels: Volume, axis: int, degrees: float) -> Volume:
    """The same knee, turned about an axis of the grid through the middle of its tissue. The grid stays."""
    direction = labels.affine[:3, axis] / labels.spacing_mm[axis]
    box = bounding_box(labels.array > 0)
    middle = labels.affine @ [*((side.start + side.stop - 1) / 2 for side in box), 1]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * direction).as_matrix()
    turn[:3, 3] = middle[:3] - turn[:3, :3] @ middle[:3]
    return resample(Volume(labels.array, turn @ labels.affine), labels, NEAREST)


def cartilage(labels: Volume) -> Volume:
    """Of labels in pymskt's numbering, the three plates."""
    return labels.with_array(labels_to_classes(labels.array, LABEL_NAMES["pymskt"], SCHEME))


def parts(labels: Volume, own_axes: bool = True) -> Found:
    """Volume and mean thickness of each part, cut along the knee's own axes or the image's."""
    with nullcontext() if own_axes else patch("knee3d.morphometry.subregions.knee_axes", side_effect=ValueError):
        found = measure_knee(labels, SCHEME, Side.RIGHT)
    return {
        (one.tissue, one.region, one.measure): one.value
        for one in found.measures
        if one.region != WHOLE and one.measure in SHOWN
    }


def changes(labels: Volume, own_axes: bool) -> Iterator[tuple[int, int, Found]]:
    """Of each axis and angle, how much each value changes in percent: the larger change of both directions."""
    straight = parts(labels, own_axes)
    for axis, _ in enumerate(AXES):
        for degrees in DEGREES:
            both = [parts(turned(labels, axis, sign * degrees), own_axes) for sign in (-1, 1)]
            change = {key: [100 * (one[key] / value - 1) for one in both] for key, value in straight.items()}
            yield axis, degrees, {key: max(ones, key=abs) for key, ones in change.items()}


def main(path: Path) -> None:
    """Print a table for each way to cut."""
    labels = cartilage(to_canonical(read_volume(path)))
    for own_axes in (False, True):
        table = Table(title=f"change in %, cut along {'the own axes of the knee' if own_axes else 'axes of the image'}")
        table.add_column("part")
        rows: dict[tuple[str, str, str], list[str]] = {}
        for axis, degrees, change in changes(labels, own_axes):
            table.add_column(f"{AXES[axis]} {degrees}", justify="right")
            for key, value in change.items():
                rows.setdefault(key, []).append(f"{value:+.1f}")
        for (tissue, region, name), cells in rows.items():
            table.add_row(f"{tissue.split()[0]} {region}, {SHOWN[name]}", *cells)
        Console(width=150).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
