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
    array = volume.array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{bad:,} voxels are NaN or infinite; mend the image (for example, set them to 0) first")
    low, high = _percentiles(array)
    if high <= low:
        raise ValueError(f"the image has no contrast: its intensities from 0.5 % to 99.5 % are all {low:g}")
    return Window(low, high)


def to_uint8(volume: Volume, window: Window) -> Volume:
    """Intensities scaled linearly so that the window spans 0 to 255, rounded and clipped.

    Returns:
        Volume of uint8 on the same grid.
    """
    slabs = int(np.argmax(np.abs(volume.array.strides)))  # one after the other in memory, each small enough for a cache
    pixels = np.empty_like(volume.array, dtype=np.uint8)
    scale = np.float32(255 / (window.high - window.low))
    for source, target in zip(np.moveaxis(volume.array, slabs, 0), np.moveaxis(pixels, slabs, 0), strict=True):
        scaled = (source.astype(np.float32) - np.float32(window.low)) * scale
        target[...] = np.clip(np.rint(scaled), 0, 255)
    return volume.with_array(pixels)


def _percentiles(array: np.ndarray) -> tuple[float, float]:
    """As `np.percentile` has them; 16-bit integers, of which a knee has 20 million, are counted and not sorted."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        low, high = np.percentile(array, PERCENTILES)
        return float(low), float(high)
    lowest = int(np.iinfo(array.dtype).min)
    unsigned = array.view(np.dtype(f"u{array.dtype.itemsize}"))
    size = 1 << 8 * array.dtype.itemsize
    counts = np.roll(np.bincount(unsigned.ravel(order="K"), minlength=size), lowest)
    ranks = np.array(PERCENTILES) / 100 * (array.size - 1)
    below, above = (
        np.searchsorted(counts.cumsum(), which, side="right") + lowest for which in (np.floor(ranks), np.ceil(ranks))
    )
    low, high = below + (above - below) * (ranks % 1)
    return float(low), float(high)
