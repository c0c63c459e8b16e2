"""Cartilage without its bone: which side of the sheet the bone is on, and the interface inferred from it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from knee3d.anatomy.orientation import CANONICAL, reorient
from knee3d.anatomy.tissue import FEMORAL, PATELLAR, TIBIAL_CARTILAGES
from knee3d.anatomy.volume import Volume
from knee3d.quantify.mesh import surface
from knee3d.quantify.thickness import Interface, along_rays

WINDOW_MM = 3.0
"""Standard deviation of the window in which the sheet's own direction is found."""
COARSE_MM = 1.0
"""Of the grid on which it is found."""
FACING = 0.6
"""Least cosine between the surface's normal and the sheet's: less is the sheet's rim."""


def inferred(cartilage: Volume, tissue: str) -> Interface:
    """Thickness on that side of a plate's own surface which faces the bone.

    The sheet's normal is the direction of least spread of the cartilage around a place, and of its two signs that
    which points to the bone: from femoral cartilage to the middle of the condyles (of a circle around its sagittal
    profile), from tibial cartilage down, from patellar cartilage to the front. Where bare bone is, nothing tells.

    Args:
        cartilage: The plate's field, float32, see `quantify.field`.
        tissue: Its name.

    Raises:
        ValueError: Nothing is known of this tissue's bone, or the field is nowhere 0.5 or more.
    """
    mesh = surface(cartilage)
    points, outward = np.asarray(mesh.points, dtype=np.float64), np.asarray(mesh.point_normals, dtype=np.float64)
    towards = _towards_bone(cartilage, tissue, points)
    normals = sheet_normals(cartilage, points)
    normals *= np.where((normals * towards).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    facing = (outward * normals).sum(axis=1) > FACING
    whole = facing[mesh.regular_faces].all(axis=1)
    used, triangles = np.unique(mesh.regular_faces[whole], return_inverse=True)
    points, normals = points[used], normals[used]
    lengths = along_rays(cartilage, points, -normals)
    return Interface(points, triangles.reshape(-1, 3), lengths, np.ones(len(points), dtype=bool), inferred=True)


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
    places = [axis * mm for axis, mm in zip(np.indices(coarse.shape), spacing, strict=True)]

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
    thinnest = np.linalg.eigh(spread)[1][:, :, 0]
    return thinnest @ (field.affine[:3, :3] / field.spacing_mm).T


def _towards_bone(field: Volume, tissue: str, points: np.ndarray) -> np.ndarray:
    """(n, 3): roughly where the bone lies from each point."""
    axes = reorient(field, CANONICAL).affine[:3, :3]
    inferior, posterior, _ = (axes / np.linalg.norm(axes, axis=0)).T
    if tissue == FEMORAL:
        sagittal = np.stack([inferior, posterior])
        profile = points @ sagittal.T
        return (circle_centre(profile) - profile) @ sagittal
    if tissue in TIBIAL_CARTILAGES:
        return np.broadcast_to(inferior, points.shape)
    if tissue == PATELLAR:
        return np.broadcast_to(-posterior, points.shape)
    raise ValueError(f"where the bone of {tissue!r} lies is not known; thickness needs plates told apart, or bones")


def circle_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the circle that fits points best, by least squares of x2 + y2 = 2ax + 2by + c (Kasa 1976).

    Args:
        points: (n, 2).

    Returns:
        (2,) float64.
    """
    middle = points.mean(axis=0)
    around = points - middle
    columns = np.column_stack([2 * around, np.ones(len(around))])
    return np.linalg.lstsq(columns, (around**2).sum(axis=1), rcond=None)[0][:2] + middle
