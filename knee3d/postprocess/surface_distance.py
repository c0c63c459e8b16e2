"""Distances between the surfaces of two segmentations, in millimetres.

Definitions differ between programs, so they are named. These are Nikolov et al. 2021, computed by the package of its
authors (google-deepmind/surface-distance): each piece of surface, a cut through a 2 x 2 x 2 neighbourhood of voxels,
counts with its area.

    assd_mm   mean of the two means of distance, truth to prediction and back, each weighted by area
    hd95_mm   the larger of the two 95th percentiles of distance by area
    nsd       normalised surface Dice: share of both surfaces' area that lies within a tolerance of the other

What MedPy and MONAI call ASSD is another measure: each voxel of a surface counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume

TOLERANCES_MM = (0.5, 1.0)


@dataclass(frozen=True)
class SurfaceScores:
    """Surface distances of one tissue.

    Attributes:
        assd_mm: Average symmetric surface distance.
        hd95_mm: Robust Hausdorff distance.
        nsd: Tolerance in mm to normalised surface Dice.
        reason: Why they are NaN, where they are.
    """

    assd_mm: float
    hd95_mm: float
    nsd: dict[float, float]
    reason: str = ""


def surface_scores(
    truth: Volume, labels: Volume, tissue: int, tolerances_mm: Sequence[float] = TOLERANCES_MM
) -> SurfaceScores:
    """Compare the surfaces of one tissue.

    Args:
        truth: Integer labels.
        labels: The same grid.
        tissue: Its number.
        tolerances_mm: For `nsd`.

    Returns:
        NaN in every place, and the reason, where a side has none of the tissue: there is no surface to measure from.

    Raises:
        ValueError: The grids differ, or are so sheared that axes are not perpendicular.
    """
    from surface_distance import metrics

    first, second, spacing = _masks(truth, labels, tissue)
    if not first.any() or not second.any():
        nan = float("nan")
        absent = "truth and prediction" if not first.any() and not second.any() else (
            "prediction" if first.any() else "truth")  # fmt: skip
        return SurfaceScores(nan, nan, dict.fromkeys(tolerances_mm, nan), f"absent from {absent}")
    distances = metrics.compute_surface_distances(first, second, spacing)
    forth, back = metrics.compute_average_surface_distance(distances)
    return SurfaceScores(
        float((forth + back) / 2),
        float(metrics.compute_robust_hausdorff(distances, 95)),
        {limit: float(metrics.compute_surface_dice_at_tolerance(distances, limit)) for limit in tolerances_mm},
    )


def _masks(truth: Volume, labels: Volume, tissue: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Both masks, cut to the box around either with a voxel to spare, and the voxels' size: seconds become tenths."""
    if not truth.same_grid(labels):
        raise ValueError(f"truth of shape {truth.shape} and labels of shape {labels.shape} lie on different grids")
    spacing = truth.spacing_mm
    cosines = (truth.affine[:3, :3] / spacing).T @ (truth.affine[:3, :3] / spacing)
    if np.abs(cosines - np.eye(3)).max() > 1e-2:
        raise ValueError("surface distances need perpendicular axes; this grid is sheared")
    both = (truth.array == tissue) | (labels.array == tissue)
    box = ndimage.find_objects(both.astype(np.uint8), max_label=1)[0] or (slice(0, 1),) * 3
    wider = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
    padded = (np.pad(volume.array[wider] == tissue, 1) for volume in (truth, labels))
    return next(padded), next(padded), tuple(spacing.tolist())
