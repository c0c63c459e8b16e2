"""The border of a tissue finer than voxels: a field of 0 to 1 that is 0.5 at the border."""

import numpy as np
from scipy import ndimage

from knee3d.geometry.box import bounding_box, box_intersection, box_relative_to
from knee3d.geometry.volume import Volume

BLUR_VOXELS = 0.6
"""Standard deviation: steps of a mask become a slope, and a sheet of one voxel still reaches 0.5."""
MARGIN_MM = 4.0
"""Around a plate that is measured: rays begin in its bone."""
SURE = 0.9
"""Quantile of the field over a tissue's voxels that says how sure views together are where they are sure of it."""
CLEARLY = np.float32(0.01)
"""How far from 0.5 a voxel is whose label says otherwise than its probabilities."""


def crop_around_tissue(
    labels: Volume, tissue: int, probabilities: Volume | None = None, margin_mm: float = MARGIN_MM
) -> tuple[Volume, Volume | None]:
    """Labels and probabilities of the box that holds a tissue, and what is around it.

    Args:
        labels: Integer classes, three axes.
        tissue: A class that is there.
        probabilities: (*part, classes) on a part of the labels' grid: the box ends where they do. None has none.
        margin_mm: How much around it.

    Raises:
        ValueError: There is no such tissue, or the probabilities are not on a part of the labels' grid.
    """
    box = bounding_box(labels.array == tissue, np.ceil(margin_mm / labels.spacing_mm).astype(int))
    if box is None:
        raise ValueError(f"there is no tissue {tissue} in the labels")
    if probabilities is None:
        return labels.part(box), None
    inner = labels.box_of(probabilities)
    box = box_intersection(box, inner)
    return labels.part(box), probabilities.part(box_relative_to(box, inner))


def tissue_level_set(labels: Volume, tissue: int, probabilities: Volume | None = None) -> Volume:
    """The field of a tissue: of its probabilities where they are known, otherwise of its labels.

    Args:
        labels: Integer classes, three axes.
        tissue: The class.
        probabilities: (*shape, classes) on the same grid.
    """
    if probabilities is None:
        return level_set_from_labels(labels.with_array(labels.array == tissue))
    return level_set_from_probabilities(probabilities, labels, tissue)


def level_set_from_labels(inside: Volume) -> Volume:
    """The field of a mask: its steps made a slope, see `BLUR_VOXELS`.

    Args:
        inside: bool, three axes.

    Returns:
        float32 on the same grid.
    """
    blurred = ndimage.gaussian_filter(inside.array.astype(np.float32), BLUR_VOXELS, mode="nearest", truncate=4)
    return inside.with_array(blurred)


def level_set_from_probabilities(probabilities: Volume, labels: Volume, tissue: int) -> Volume:
    """The field of a tissue: its probability over the sum of it and the largest other one.

    0.5 lies where both are as large, which is where the most probable class changes, also where three tissues meet.
    Inside, the field is stretched so that it reaches 1 where the tissue is found most surely (`SURE`). Where one view
    of several misses a tissue, fused probabilities stay near 0.6 in the middle of it and fall to 0 outside, so that
    0.5 would lie just inside of its outermost voxels instead of between them and the next.
    Voxels whose labels were decided otherwise, by thresholds or by cleaning, are put on their label's side of 0.5.

    Args:
        probabilities: (*shape, classes), floats in [0, 1], or uint8, where 255 is 1.
        labels: Integer classes on the same grid.
        tissue: The class.

    Returns:
        float32 on the same grid.

    Raises:
        ValueError: The grids differ, or the tissue is none of the classes.
    """
    classes = probabilities.array.shape[-1]
    if not probabilities.same_grid(labels) or not 0 < tissue < classes:
        raise ValueError(f"tissue {tissue} of {classes} classes on a grid of {probabilities.shape}, not {labels.shape}")
    own = probabilities.array[..., tissue].astype(np.float32)
    other = np.zeros_like(own)
    for number in range(classes):
        if number != tissue:
            np.maximum(other, probabilities.array[..., number], out=other)
    field = own / np.maximum(own + other, np.float32(1e-6))
    inside = labels.array == tissue
    sure = np.quantile(field[inside], SURE) if inside.any() else 1.0
    if sure > 0.5:
        field = np.where(field > 0.5, np.minimum(0.5 + (field - 0.5) * np.float32(0.5 / (sure - 0.5)), 1), field)
    field = np.where(inside, np.maximum(field, 0.5 + CLEARLY), np.minimum(field, 0.5 - CLEARLY))
    return labels.with_array(field.astype(np.float32, copy=False))
