"""Cartilage as a sheet: which way it faces, and on which side its bone is."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from knee3d.anatomy.orientation import CANONICAL, reorient
from knee3d.anatomy.tissue import FEMORAL, PATELLAR, TIBIAL_CARTILAGES
from knee3d.anatomy.volume import Volume

WINDOW_MM = 3.0
"""Standard deviation of the window in which the sheet's own direction is found."""
COARSE_MM = 1.0
"""Of the grid on which it is found."""


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


def towards_bone(field: Volume, tissue: str, points: np.ndarray) -> np.ndarray:
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
        return (circle_centre(profile) - profile) @ across
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
