"""Thickness of a cartilage plate along the normals of the bone-cartilage interface.

From each corner of the interface a ray goes along the normal, and thickness is the length of the ray's first run
within the cartilage, as in Maier et al. 2017 and pymskt (Gatti 2022). The field in which the run is measured is finer
than voxels, and so is its length. With the bone segmented the interface is the bone's surface. Without, it is inferred:
that side of the cartilage's own surface which looks to where the bone must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyvista as pv
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from knee3d.geometry.orientation import CANONICAL, reorient
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import FEMORAL, PATELLAR, TIBIAL_CARTILAGES
from knee3d.morphometry.femoral_axes import fit_circle_centre
from knee3d.morphometry.mesh import mask_surface

THICKNESS = "thickness_mm"
"""Point data of `BoneCartilageInterface.mesh`."""
STEP_MM = 0.05
BACK_MM = 1.0
"""A ray begins so far on the other side of the interface: a smoothed surface lies within voxels of the true one."""
GAP_MM = 1.0
"""Cartilage that begins further from the interface is not its own."""
REACH_MM = 8.0
"""No cartilage of a knee is thicker: a ray that is still within it runs along the sheet, and does not count."""
SMOOTH: Mapping[str, Any] = {"smoothing": 60, "pass_band": 0.03}
"""Of the interface: its normals are then within 3 degrees of a curved surface's, not within 14."""
FACING = 0.6
"""Least cosine between a ray and the normal of the sheet: at its rim a ray would run along it."""
RAYS = 4096
"""At a time."""
WINDOW_MM = 3.0
"""Standard deviation of the window in which the sheet's own direction is found."""
COARSE_MM = 1.0
"""Of the grid on which it is found."""


@dataclass(frozen=True, eq=False)
class BoneCartilageInterface:
    """The bone-cartilage interface of one plate.

    Attributes:
        points: (n, 3) float64, RAS mm.
        triangles: (m, 3) corners.
        thickness_mm: (n,) float64; 0 where bone is bare, NaN where there is cartilage of unknown thickness, as a
            ray does not leave it or runs along the sheet.
        within: (n,) bool, whether the corner is subchondral bone: covered, or bare with cartilage all around.
        inferred: Whether the bone was not there to tell the interface.
    """

    points: np.ndarray
    triangles: np.ndarray
    thickness_mm: np.ndarray
    within: np.ndarray
    inferred: bool

    @property
    def areas_mm2(self) -> np.ndarray:
        """(n,) float64, of each corner: a third of its triangles."""
        corners = self.points[self.triangles]
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        return np.bincount(self.triangles.ravel(), np.repeat(areas / 3, 3), minlength=len(self.points))

    @property
    def has_cartilage(self) -> bool:
        """Whether there is any triangle with cartilage on it."""
        return bool((self.thickness_mm > 0)[self.triangles].all(axis=1).any())

    def mirrored(self) -> BoneCartilageInterface:
        """Reflected at x = 0, where the canonical knee is the mirror image of a left one."""
        return replace(self, points=self.points * [-1, 1, 1], triangles=self.triangles[:, ::-1])

    def mesh(self) -> pv.PolyData:
        """The subchondral bone as triangles in RAS mm, with point data `THICKNESS`."""
        kept = self.part(self.within)
        mesh = pv.PolyData.from_regular_faces(kept.points, kept.triangles)
        mesh.point_data[THICKNESS] = kept.thickness_mm
        return mesh

    def part(self, some: np.ndarray) -> BoneCartilageInterface:
        """The triangles between some of the corners.

        Args:
            some: (n,) bool.
        """
        whole = some[self.triangles].all(axis=1)
        used, corners = np.unique(self.triangles[whole], return_inverse=True)
        return BoneCartilageInterface(
            self.points[used], corners.reshape(-1, 3), self.thickness_mm[used], self.within[used], self.inferred
        )


def interface_on_bone(cartilage: Volume, bone: Volume) -> BoneCartilageInterface:
    """Thickness on the surface of the bone.

    Args:
        cartilage: The plate's field, float32, see `morphometry.level_set`.
        bone: The bone's field on the same grid.

    Raises:
        ValueError: One of them is nowhere 0.5 or more.
    """
    mesh = mask_surface(bone, **SMOOTH)
    points, normals = np.asarray(mesh.points, dtype=np.float64), np.asarray(mesh.point_normals, dtype=np.float64)
    thickness, near = np.zeros(len(points)), _near(points, cartilage)
    across = np.abs((sheet_normals(cartilage, points[near]) * normals[near]).sum(axis=1)) > FACING
    lengths = thickness_along_rays(cartilage, points[near], normals[near])
    thickness[near] = np.where(across | (lengths == 0), lengths, np.nan)
    interface = BoneCartilageInterface(
        points, mesh.regular_faces, thickness, np.ones(len(points), dtype=bool), inferred=False
    )
    return _subchondral(interface)


def interface_without_bone(cartilage: Volume, tissue: str) -> BoneCartilageInterface:
    """Thickness on that side of a plate's own surface which faces the bone.

    Rays go along the normal of the sheet, the direction in which the cartilage around a place is thinnest; of its two
    signs one points to the bone, see `directions_towards_bone`. Where bone is bare, nothing tells.

    Args:
        cartilage: The plate's field, float32, see `morphometry.level_set`.
        tissue: Its name.

    Raises:
        ValueError: Nothing is known of this tissue's bone, or the field is nowhere 0.5 or more.
    """
    mesh = mask_surface(cartilage, **SMOOTH)
    points, outward = np.asarray(mesh.points, dtype=np.float64), np.asarray(mesh.point_normals, dtype=np.float64)
    towards = directions_towards_bone(cartilage, tissue, points)
    normals = sheet_normals(cartilage, points)
    normals *= np.where((normals * towards).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    facing = (outward * normals).sum(axis=1) > FACING
    whole = facing[mesh.regular_faces].all(axis=1)
    used, triangles = np.unique(mesh.regular_faces[whole], return_inverse=True)
    points, normals = points[used], normals[used]
    lengths = thickness_along_rays(cartilage, points, -normals)
    return BoneCartilageInterface(
        points, triangles.reshape(-1, 3), lengths, np.ones(len(points), dtype=bool), inferred=True
    )


def sheet_normals(field: Volume, points: np.ndarray) -> np.ndarray:
    """The direction in which a sheet is thinnest, at some places; its sign is any.

    Args:
        field: float32.
        points: (n, 3) RAS mm.

    Returns:
        (n, 3) float64 of length 1.
    """
    steps = np.maximum(1, np.rint(COARSE_MM / field.spacing_mm)).astype(int)
    smooth = ndimage.gaussian_filter(field.array, steps / 4)
    coarse = np.pad(smooth[tuple(slice(None, None, step) for step in steps)], 1).astype(np.float64)
    spacing = steps * field.spacing_mm
    sigma = WINDOW_MM / spacing
    places = np.tensordot(field.affine[:3, :3] * steps, np.indices(coarse.shape, dtype=np.float64), axes=1)  # RAS mm

    index = points @ np.linalg.inv(field.affine)[:3, :3].T + np.linalg.inv(field.affine)[:3, 3]
    index = (index / steps + 1).T

    def mean(weighted: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(ndimage.gaussian_filter(weighted, sigma), index, order=1, mode="nearest")

    total = np.maximum(mean(coarse), 1e-9)
    first = np.stack([mean(coarse * place) / total for place in places], axis=-1)
    spread = np.empty((len(points), 3, 3))
    for row in range(3):
        for column in range(row, 3):
            second = mean(coarse * places[row] * places[column]) / total
            spread[:, row, column] = spread[:, column, row] = second - first[:, row] * first[:, column]
    normals: np.ndarray = np.linalg.eigh(spread)[1][:, :, 0]
    return normals


def directions_towards_bone(field: Volume, tissue: str, points: np.ndarray) -> np.ndarray:
    """Roughly where the bone lies from each point.

    From femoral cartilage it is the middle of the condyles (of a circle around its sagittal profile), from tibial
    cartilage below, from patellar cartilage in front.

    Args:
        field: Where the axes of the body are told from.
        tissue: Name of the plate.
        points: (n, 3) RAS mm on its surface.

    Returns:
        (n, 3) float64, of any length.

    Raises:
        ValueError: Nothing is known of this tissue's bone.
    """
    axes = reorient(field, CANONICAL).affine[:3, :3]
    inferior, posterior, _ = (axes / np.linalg.norm(axes, axis=0)).T
    if tissue == FEMORAL:
        across = np.stack([inferior, posterior])
        profile = points @ across.T
        return (fit_circle_centre(profile) - profile) @ across
    if tissue in TIBIAL_CARTILAGES:
        return np.broadcast_to(inferior, points.shape)
    if tissue == PATELLAR:
        return np.broadcast_to(-posterior, points.shape)
    raise ValueError(f"where the bone of {tissue!r} lies is not known; thickness needs plates told apart, or bones")


def thickness_along_rays(field: Volume, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Length of each ray's first run where the field is at least 0.5.

    Args:
        field: float32.
        points: (n, 3) RAS mm; rays begin `BACK_MM` before.
        directions: (n, 3) of length 1.

    Returns:
        (n,) float64 in mm, to a fraction of `STEP_MM`; 0 where none begins within `GAP_MM` after the point, NaN where
        one does that does not end within `REACH_MM`.
    """
    places = np.arange(-BACK_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    to_index, lengths = np.linalg.inv(field.affine), np.zeros(len(points))
    for start in range(0, len(points), RAYS):
        some = slice(start, start + RAYS)
        where = points[some, None] + places[:, None] * directions[some, None]
        index = np.moveaxis(where @ to_index[:3, :3].T + to_index[:3, 3], -1, 0)
        lengths[some] = _first_run(ndimage.map_coordinates(field.array, index, order=1, mode="grid-constant"), places)
    return lengths


def _first_run(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(rays, steps) of a field -> length of the first run at 0.5 or more; its ends are interpolated."""
    inside = values >= 0.5
    first = inside.argmax(axis=1)
    after = ~inside & (np.arange(len(places)) > first[:, None])
    stop = after.argmax(axis=1)
    begins = inside.any(axis=1) & (places[first] <= GAP_MM)
    lengths = _crossing(values, places, stop) - _crossing(values, places, first)
    return np.where(begins, np.where(after.any(axis=1), lengths, np.nan), 0.0)


def _crossing(values: np.ndarray, places: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Where a ray passes 0.5 on its way to a sample."""
    rays, before = np.arange(len(values)), np.maximum(number - 1, 0)
    low, high = values[rays, before].astype(np.float64), values[rays, number].astype(np.float64)
    step = high - low
    share = np.divide(0.5 - low, step, out=np.ones_like(step), where=step != 0)
    return places[before] + np.clip(share, 0, 1) * (places[number] - places[before])


def _near(points: np.ndarray, field: Volume) -> np.ndarray:
    """Which points lie so close to where the field is 0.5 or more that a ray may meet it in time."""
    reach = np.ceil((GAP_MM + BACK_MM) / field.spacing_mm).astype(int) + 1
    close = ndimage.maximum_filter(field.array >= 0.5, tuple((2 * reach + 1).tolist()))
    to_index = np.linalg.inv(field.affine)
    index = np.rint(points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
    inside = (index >= 0).all(axis=1) & (index < field.shape).all(axis=1)
    return inside & close[tuple(np.clip(index, 0, np.array(field.shape) - 1).T)]


def _subchondral(interface: BoneCartilageInterface) -> BoneCartilageInterface:
    """Bare bone counts where it is an island in cartilage.

    That is a connected piece of it that touches cartilage, other than the largest one, which is the rest of the bone.
    Walls of hollows within the bone touch none.
    """
    bare, triangles = interface.thickness_mm == 0, interface.triangles
    pieces, areas = _pieces(triangles, bare), interface.areas_mm2
    edge = triangles[bare[triangles].any(axis=1) & ~bare[triangles].all(axis=1)]
    touching = np.unique(pieces[edge[bare[edge]]])
    sizes = np.bincount(pieces[bare], areas[bare], minlength=1) if bare.any() else np.zeros(1)
    islands = touching[touching != touching[sizes[touching].argmax()]] if touching.size else touching
    return replace(interface, within=~bare | np.isin(pieces, islands))


def _pieces(triangles: np.ndarray, some: np.ndarray) -> np.ndarray:
    """The number of the connected piece of each corner, among some of them."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    edges = edges[some[edges].all(axis=1)]
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(len(some), len(some)))
    return connected_components(graph, directed=False)[1]
