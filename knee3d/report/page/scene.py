"""The scene of the viewer of a page: volumes, surfaces, colours, first position."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyvista as pv
from scipy.spatial import KDTree

from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import Tissue
from knee3d.report.page.colour_maps import BARE, NOTHING, THICKNESS, find_colour_map
from knee3d.report.page.content import THICKNESS as THICKNESS_DATA
from knee3d.report.page.content import KneePage
from knee3d.report.page.embedded_files import gzip_bytes, mz3_bytes, nifti_bytes
from knee3d.report.page.picture import box_around_labels, make_page_image
from knee3d.report.templates import base64_text

VIEWS = {Side.RIGHT: (215, 15), Side.LEFT: (145, 15), Side.UNKNOWN: (180, 15)}
"""From the front, lateral and a little above: 180 is the front, more is to the patient's right."""
MOST_TRIANGLES = 20_000
"""Of a surface: a plate of cartilage is drawn a few hundred pixels wide."""


def make_scene(page: KneePage) -> dict[str, Any]:
    """Everything that the page's script hands to the viewer, ready for JSON.

    Returns:
        {"image": volume, "labels": volume, "done": what was done to the picture, in words, "start": RAS mm to look at
        first, "view": degrees around and above from which to see surfaces first, "planes": their names in the viewer's
        order, "tissues": [{"name", "colour", "mesh", "thickness"}] in class order, "maps": [{"name", "title", "unit",
        "low", "high", "smooth", "colours", "volume"}]}. Volumes are NIfTI and meshes MZ3 files, gzipped, as base64; a
        mesh may be None. Without an image its volume is black.
    """
    box = box_around_labels(page.labels)
    labels = page.labels.part(box)
    image = page.image if page.image is not None else page.labels.with_array(np.zeros_like(page.labels.array))
    picture = make_page_image(image, box)
    return {
        "image": base64_text(picture.packed),
        "done": picture.words if page.image is not None else "",
        "labels": _packed(labels, labels=True),
        "start": _busiest(labels),
        "view": VIEWS[Side(page.side)],
        "planes": [plane.value for plane in Plane],
        "tissues": [_tissue(page, tissue) for tissue in page.scheme.tissues],
        "maps": [_map(name, volume) for name, volume in page.maps.items()],
    }


def decimate_mesh(mesh: pv.PolyData, most: int = MOST_TRIANGLES) -> pv.PolyData:
    """A surface with fewer triangles to look at: about so many, or what its topology needs. Data at points are lost.

    Of a femoral cartilage 20,000 of 162,000 triangles lie within 0.05 mm (root mean square) of where all do. Quadrics
    would come closer and take longer; an edge or two may be left open, which no eye sees.
    """
    bare = pv.PolyData.from_regular_faces(np.asarray(mesh.points), mesh.regular_faces)
    if bare.n_cells <= most:
        return bare
    return bare.decimate_pro(1 - most / bare.n_cells, preserve_topology=True)


def double_sided(mesh: pv.PolyData) -> pv.PolyData:
    """A sheet with a second one upon it that faces the other way: viewers draw triangles from their front alone."""
    points, corners = np.asarray(mesh.points), np.asarray(mesh.regular_faces)
    behind = corners[:, ::-1] + len(points)
    return pv.PolyData.from_regular_faces(np.concatenate([points, points]), np.concatenate([corners, behind]))


def thickness_colours(points: np.ndarray, mesh: pv.PolyData) -> np.ndarray:
    """(points, 3) uint8: the colour of the thickness at the nearest point of a mesh; bare bone is grey."""
    _, nearest = KDTree(np.asarray(mesh.points)).query(points)
    values = THICKNESS.bytes_of(np.asarray(mesh.point_data[THICKNESS_DATA], dtype=np.float64)[nearest])
    colours = THICKNESS.colours[values, :3]
    colours[values == NOTHING] = BARE
    return colours


def _tissue(page: KneePage, tissue: Tissue) -> dict[str, Any]:
    name = tissue.name
    found: dict[str, Any] = {"name": name, "colour": list(tissue.colour), "mesh": None, "thickness": None}
    if name in page.meshes:
        found["mesh"] = base64_text(gzip_bytes(mz3_bytes(decimate_mesh(page.meshes[name]))))
    if name in page.thickness:
        surface = decimate_mesh(page.thickness[name])
        if page.thickness[name].n_open_edges:
            surface = double_sided(surface)
        colours = thickness_colours(np.asarray(surface.points), page.thickness[name])
        found["thickness"] = base64_text(gzip_bytes(mz3_bytes(surface, colours)))
    return found


def _map(name: str, volume: Volume) -> dict[str, Any]:
    look = find_colour_map(name, volume)
    coded = volume.with_array(look.bytes_of(volume.array))
    return {
        "name": name,
        "title": look.title,
        "unit": look.unit,
        "low": look.low,
        "high": look.high,
        "smooth": look.smooth,
        "colours": look.colours.tolist(),
        "volume": _packed(coded.part(box_around_labels(coded, margin_mm=0)), labels=not look.smooth),
    }


def _packed(volume: Volume, labels: bool) -> str:
    """With a rim of nothing around it: a viewer draws the voxels of a border as far as there is image."""
    affine = volume.affine.copy()
    affine[:, 3] = volume.affine @ [-1, -1, -1, 1]
    return base64_text(gzip_bytes(nifti_bytes(Volume(np.pad(volume.array, 1), affine), labels)))


def _busiest(labels: Volume) -> list[float]:
    """RAS mm of the voxel of tissue nearest to where the slices with most tissue meet; the middle if there is none."""
    index = np.argwhere(labels.array > 0)
    if not len(index):
        return (labels.affine @ [*(size // 2 for size in labels.shape), 1])[:3].tolist()
    meeting = np.array([np.bincount(along).argmax() for along in index.T])
    away = (index - meeting) * labels.spacing_mm
    return (labels.affine @ [*index[(away**2).sum(axis=1).argmin()], 1])[:3].tolist()
