"""Convert masks with a channel for each tissue to labels."""

import logging

import numpy as np

log = logging.getLogger(__name__)


def labels_from_channels(channels: np.ndarray, name: str) -> np.ndarray:
    """One label for each voxel.

    Args:
        channels: (i, j, k, c) of 0 and 1, or probabilities; a voxel belongs to the channels above 0.5.
        name: Of the file, for messages.

    Returns:
        (i, j, k) uint8: 0 for background, and 1, 2, ... in the order of the channels. A first channel that holds
        whatever the others leave is background and does not count. Overlap as in `first_channel`.

    Raises:
        ValueError: There are more than 255 channels, or values other than 0 to 1.
    """
    if not 0 < channels.shape[-1] < 256:
        raise ValueError(f"{name}: expected up to 255 channels, got an array of shape {channels.shape}")
    low, high = float(channels.min()), float(channels.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{name}: channels of a mask hold 0 to 1, these hold {low:g} to {high:g}; is it an image?")
    inside = channels > 0.5
    others = inside[..., 1:].any(axis=-1)
    if channels.shape[-1] > 1 and np.array_equal(inside[..., 0], ~others):
        inside = inside[..., 1:]
    return first_channel(inside, name)


def first_channel(inside: np.ndarray, name: str) -> np.ndarray:
    """The first channel that each voxel lies in.

    Args:
        inside: (i, j, k, c) bool, up to 255 channels.
        name: Of the file, for messages.

    Returns:
        (i, j, k) uint8: 1 for the first channel; 0 where there is none. The log says how many voxels lie in several.
    """
    overlap = int((inside.sum(axis=-1) > 1).sum())
    if overlap:
        log.warning("%s: %d voxels lie in more than one channel and go to the first of them", name, overlap)
    return np.where(inside.any(axis=-1), inside.argmax(axis=-1) + 1, 0).astype(np.uint8)
