"""Probabilities -> labels."""

import numpy as np

from knee3d.anatomy.volume import Volume


def decide(probabilities: Volume) -> Volume:
    """The most probable class of each voxel; of equals, the lower number, so that doubt goes to background.

    Args:
        probabilities: (*shape, classes), at most 256 classes.

    Returns:
        uint8 labels on the same grid.

    Raises:
        ValueError: There is no class axis.
    """
    if probabilities.array.ndim != 4:
        raise ValueError(f"probabilities have a last axis of classes, got shape {probabilities.array.shape}")
    labels = np.empty(probabilities.shape, dtype=np.uint8)
    for slab, values in zip(labels, probabilities.array, strict=True):
        slab[...] = values.argmax(axis=-1)
    return probabilities.with_array(labels)
