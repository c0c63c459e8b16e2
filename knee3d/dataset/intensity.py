"""Volume -> uint8, and the window used. Training and inference both pass here."""

from dataclasses import dataclass

import numpy as np

from knee3d.anatomy.volume import Volume

PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Window:
    """Intensities that become 0 and 255.

    Attributes:
        low: Becomes 0, as does all below.
        high: Becomes 255, as does all above.

    Raises:
        ValueError: `high` is not above `low`, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise ValueError(f"an intensity window needs low < high, both finite; got {self.low} to {self.high}")


def window_of(volume: Volume) -> Window:
    """One window for the whole volume, from its 0.5 and 99.5 percentiles.

    Slices are never windowed one by one: a slice's brightness would then depend on what else it shows.

    Raises:
        ValueError: The volume holds NaN or infinity, or has no contrast.
    """
    if not np.isfinite(volume.array).all():
        bad = int((~np.isfinite(volume.array)).sum())
        raise ValueError(f"{bad:,} voxels are NaN or infinite; mend the image (for example, set them to 0) first")
    low, high = np.percentile(volume.array, PERCENTILES)
    if high <= low:
        raise ValueError(f"the image has no contrast: its intensities from 0.5 % to 99.5 % are all {low:g}")
    return Window(float(low), float(high))


def to_uint8(volume: Volume, window: Window) -> Volume:
    """Intensities scaled linearly so that the window spans 0 to 255, rounded and clipped.

    Returns:
        Volume of uint8 on the same grid.
    """
    scaled = (volume.array.astype(np.float32) - np.float32(window.low)) * np.float32(255 / (window.high - window.low))
    return volume.with_array(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
