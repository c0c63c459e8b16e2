"""KneePage: the content of the page of one knee, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyvista as pv

from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.morphometry.measurement import Measurement
from knee3d.postprocess.confusion_matrix import OverlapScores

THICKNESS = "thickness_mm"
"""Point data of the meshes in `KneePage.thickness`."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False, kw_only=True)
class KneePage:
    """All that is known of one knee. What is not known is left out, and the page says nothing of it.

    Attributes:
        case: Name of the case.
        side: "R", "L", or "" where it is not known.
        labels: uint8 classes of the scheme, three axes in any order, in the scanner's place (not mirrored).
        scheme: What they mean.
        image: uint8, on the grid of the labels; None shows labels alone.
        meshes: Tissue to its closed surface, triangles in RAS mm.
        thickness: Cartilage to its bone-cartilage interface, triangles in RAS mm, with point data `THICKNESS`.
        maps: "probability", "disagreement", "thickness" or another name to floats on a grid of their own; NaN or 0 is
            nothing.
        measures: Volumes, thickness and areas.
        scores: View, "fused" among them, to tissue or "foreground" to Dice; None where the truth is not known.
        confusion: View to its confusion matrix; None where the truth is not known.
        flags: What looks wrong, in words.
        unchecked: What could not be looked at, in words; empty where all was.
        notes: What to bear in mind, in words.
        made: How it was made: models, weights, versions, settings. Of no one's identity.
        seen: That the networks know this patient, in words; empty where they do not, as far as is known.
        pictures: Title to PNG, for print and for machines that cannot draw in three dimensions.

    Raises:
        ValueError: Something does not fit: the message says what.
    """

    case: str
    side: str
    labels: Volume
    scheme: LabelScheme
    image: Volume | None = None
    meshes: Mapping[str, pv.PolyData] = field(default_factory=dict)
    thickness: Mapping[str, pv.PolyData] = field(default_factory=dict)
    maps: Mapping[str, Volume] = field(default_factory=dict)
    measures: Sequence[Measurement] = ()
    scores: Mapping[str, Mapping[str, float]] | None = None
    confusion: Mapping[str, OverlapScores] | None = None
    flags: Sequence[str] = ()
    unchecked: str = ""
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    seen: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.side not in set(Side):
            raise ValueError(f"side of {self.case!r} is 'R', 'L' or '' where it is not known, got {self.side!r}")
        _check_voxels(self.labels, self.image, self.scheme)
        _check_meshes(self.meshes, self.thickness, self.scheme)
        for name, volume in self.maps.items():
            if volume.array.ndim != 3 or volume.array.dtype.kind != "f":
                raise ValueError(f"map {name!r} has floats along three axes, got {_kind(volume)}")
        for title, picture in self.pictures.items():
            if not picture.startswith(_PNG):
                raise ValueError(f"picture {title!r} is not a PNG; a page shows no other format")


def _check_voxels(labels: Volume, image: Volume | None, scheme: LabelScheme) -> None:
    if labels.array.ndim != 3 or labels.array.dtype != np.uint8:
        raise ValueError(f"labels are uint8 with three axes, got {_kind(labels)}")
    if labels.array.max() >= scheme.classes:
        raise ValueError(
            f"labels of scheme {scheme.name!r} lie in 0 to {scheme.classes - 1}, got {labels.array.max()}; map them "
            "with labels_to_classes first"
        )
    if image is not None and (image.array.dtype != np.uint8 or not image.same_grid(labels)):
        raise ValueError(f"the image is uint8 on the labels' grid of shape {labels.shape}, got {_kind(image)}")


def _check_meshes(meshes: Mapping[str, pv.PolyData], thickness: Mapping[str, pv.PolyData], scheme: LabelScheme) -> None:
    for name, mesh in [*meshes.items(), *thickness.items()]:
        if name not in scheme.names:
            raise ValueError(
                f"a mesh of {name!r}, which scheme {scheme.name!r} does not have: {', '.join(scheme.names)}"
            )
        if not mesh.n_cells or not mesh.is_all_triangles:
            raise ValueError(f"the mesh of {name!r} has no triangles, or not only triangles; leave it out, or cut it")
    for name, mesh in thickness.items():
        if THICKNESS not in mesh.point_data:
            raise ValueError(f"the interface of {name!r} has no point data {THICKNESS!r}")


def _kind(volume: Volume) -> str:
    return f"{volume.array.dtype} of shape {volume.array.shape}"
