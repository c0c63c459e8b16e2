"""How much of each tissue there is."""

import numpy as np
from scipy import ndimage

from knee3d.anatomy.tissue import Scheme
from knee3d.anatomy.volume import Volume


def tissue_volumes(labels: Volume, scheme: Scheme) -> np.ndarray:
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
            "map them with map_labels first"
        )
    counts = np.bincount(array.ravel(), minlength=scheme.classes)[1:]
    return counts * labels.voxel_mm3


def partial_volumes(labels: Volume, probabilities: Volume) -> np.ndarray:
    """Volume of each tissue with voxels at its border counted in part: their probability.

    Added up are the probabilities of the tissue's own voxels and of those that touch them, by a face, an edge or a
    corner. Further away stands what the network is never quite sure of, which is small and adds up over an image.

    Args:
        labels: Integer classes, three axes.
        probabilities: (*shape, classes), floats, or uint8, where 255 is 1, on a part of the labels' grid.

    Returns:
        (classes - 1,) float64 in mm3.

    Raises:
        ValueError: The probabilities are not on a part of the labels' grid.
    """
    part = labels.part(labels.box_of(probabilities))
    whole = 255 if probabilities.array.dtype == np.uint8 else 1
    found = []
    for tissue in range(1, probabilities.array.shape[-1]):
        around = ndimage.maximum_filter(part.array == tissue, 3)
        found.append(probabilities.array[..., tissue][around].sum(dtype=np.float64) / whole)
    return np.array(found) * labels.voxel_mm3
