"""Intensities <-> pixels, and the window used. Training and inference both pass here.

A pixel of 16 bits has the one of 8 bits as its upper byte, so that whoever drops the lower one, as decoders do, sees
the same picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from knee3d.anatomy.volume import Volume

PERCENTILES = (0.5, 99.5)
BITS = (8, 16)
_STEPS = 255  # between 8-bit pixels


@dataclass(frozen=True)
class Window:
    """Intensities that become black and white.

    Attributes:
        low: Becomes 0 in 8 bits, as does all below.
        high: Becomes 255 in 8 bits, as does all above.

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


def to_pixels(volume: Volume, window: Window, bits: int = 8) -> Volume:
    """Intensities scaled linearly so that the window spans 0 to 255, clipped and rounded (halves up).

    Args:
        volume: Of numbers.
        window: What spans the grey values.
        bits: 8; or 16 for 256 times finer pixels, whose upper bytes are those of 8 bits.

    Returns:
        Volume of uint8 or uint16 on the same grid.

    Raises:
        ValueError: `bits` are others.
    """
    if bits not in BITS:
        raise ValueError(f"pixels have 8 or 16 bits, not {bits}")
    slabs = int(np.argmax(np.abs(volume.array.strides)))  # one after the other in memory, each small enough for a cache
    pixels = np.empty_like(volume.array, dtype=f"u{bits // 8}")
    scale, finer = np.float32(_STEPS / (window.high - window.low)), np.float32(1 << (bits - 8))
    for source, target in zip(np.moveaxis(volume.array, slabs, 0), np.moveaxis(pixels, slabs, 0), strict=True):
        scaled = source.astype(np.float32)
        scaled -= np.float32(window.low)
        scaled *= scale
        np.clip(scaled, 0, _STEPS, out=scaled)
        scaled += np.float32(0.5)
        scaled *= finer
        target[...] = scaled  # what follows the point falls off
    return volume.with_array(pixels)


def to_intensities(volume: Volume, window: Window) -> Volume:
    """The way back: the middle of what became each pixel.

    Args:
        volume: uint8 or uint16, as from `to_pixels`.
        window: That was used.

    Returns:
        Volume of float32 on the same grid. Intensities within the window come back within half a step, (high - low) /
        510 for 8 bits and 256 times less for 16; those beyond it, 1 % of voxels, as its limits.
    """
    steps = 256 if volume.array.dtype == np.uint16 else 1
    values = np.arange(256 * steps, dtype=np.float64)
    grey = np.clip((values + 0.5) / steps - 0.5, 0, _STEPS)
    table = (window.low + grey * (window.high - window.low) / _STEPS).astype(np.float32)
    return volume.with_array(table[volume.array])


def _percentiles(array: np.ndarray) -> tuple[float, float]:
    """As `np.percentile` has them; 16-bit integers, of which a knee has 20 million, are counted and not sorted."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        low, high = np.percentile(array, PERCENTILES)
        return float(low), float(high)
    lowest = int(np.iinfo(array.dtype).min)
    unsigned = array.view(np.dtype(f"u{array.dtype.itemsize}")).ravel(order="K")
    size = 1 << 8 * array.dtype.itemsize
    # OpenCV counts in float32, which is exact up to 2 ** 24.
    parts = [unsigned[start : start + (1 << 24)] for start in range(0, unsigned.size, 1 << 24)]
    counts = sum(cv2.calcHist([part], [0], None, [size], [0, size]).astype(np.int64) for part in parts)
    counts = np.roll(np.ravel(counts), lowest)
    ranks = np.array(PERCENTILES) / 100 * (array.size - 1)
    below, above = (
        np.searchsorted(counts.cumsum(), which, side="right") + lowest for which in (np.floor(ranks), np.ceil(ranks))
    )
    low, high = below + (above - below) * (ranks % 1)
    return float(low), float(high)
