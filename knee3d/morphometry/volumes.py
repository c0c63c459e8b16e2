"""Volumes of tissues in mm3."""

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.morphometry.level_set import crop_around_tissue, tissue_level_set


def tissue_volumes(labels: Volume, scheme: LabelScheme) -> np.ndarray:
    """Volume of each tissue: its voxels times the volume of one.

    Args:
        labels: Integers in 0 to `scheme.classes` - 1, three axes.
        scheme: What the labels mean.

    Returns:
        (tissues,) float64 in mm3, in the scheme's order; 0 for a tissue that is not there.

    Raises:
        ValueError: The labels are not integers, have channels, or are outside the scheme.
    """
    array = labels.array
    if array.ndim != 3 or array.dtype.kind not in "bui":
        raise ValueError(f"labels are integers with three axes, got {array.dtype} of shape {array.shape}")
    if array.min() < 0 or array.max() >= scheme.classes:
        raise ValueError(
            f"labels of scheme {scheme.name!r} lie in 0 to {scheme.classes - 1}, got {array.min()} to {array.max()}; "
            "map them with labels_to_classes first"
        )
    counts = np.bincount(array.ravel(), minlength=scheme.classes)[1:]
    return counts * labels.voxel_mm3


def partial_volumes(labels: Volume, probabilities: Volume) -> np.ndarray:
    """Volume of each tissue with voxels at its border counted in part, by its field (`morphometry.level_set`).

    Added up is the field of the tissue's own voxels and of those that touch them, by a face, an edge or a corner.
    Further away stands what the network is never quite sure of, which is small and adds up over an image.

    Args:
        labels: Integer classes, three axes.
        probabilities: (*shape, classes), floats, or uint8, where 255 is 1, on a part of the labels' grid.

    Returns:
        (classes - 1,) float64 in mm3.

    Raises:
        ValueError: The probabilities are not on a part of the labels' grid.
    """
    found = np.zeros(probabilities.array.shape[-1] - 1)
    for tissue in np.unique(labels.array[labels.array > 0]):
        part, known = crop_around_tissue(labels, int(tissue), probabilities, 2 * labels.spacing_mm.max())
        near = ndimage.maximum_filter(part.array == tissue, 3)
        found[tissue - 1] = tissue_level_set(part, int(tissue), known).array[near].sum(dtype=np.float64)
    return found * labels.voxel_mm3
