"""How much of each tissue there is."""

import numpy as np

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
