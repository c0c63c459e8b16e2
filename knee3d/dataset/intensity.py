"""Convert intensities to pixels and back, with one intensity window for each volume.

A pixel of 16 bits has the one of 8 bits as its upper byte, so that whoever drops the lower one, as decoders do, sees
the same picture.
"""

import logging
import math
from dataclasses import dataclass

import cv2
import numpy as np

from knee3d.geometry.volume import Volume

log = logging.getLogger(__name__)

WINDOW_RULE = "foreground, version 2"
"""The name and version of the way in which `find_window` finds a window. A network is used only on images whose windows
were found in the same way as those of its training."""
SHARE = 0.995
"""The part of the foreground that is not brighter than the window."""
MOST_BLOCKS = 1 << 19
"""So many of a volume are looked at: a knee of OAI's size has 3 million."""
THICK_MM = 2.0
"""Voxels this long are no parts of a block, see `voxel_blocks`: it would show more than one tissue."""
VOXEL_MM = (0.05, 20.0)
"""The smallest and the largest distance between voxels of a knee in mm: what is beyond was given in another unit."""
WIDEST_MM = 220.0
"""A single knee is not wider, from one side of the skin to the other."""
_FILLED = 0.05  # of the voxels of the fullest sagittal slice: a slice with fewer shows noise and no tissue
_ROUNDS = 100  # the level is found in about ten
BITS = (8, 16)
_STEPS = 255  # between 8-bit pixels


@dataclass(frozen=True)
class IntensityWindow:
    """Intensities that become black and white.

    Attributes:
        low: Becomes 0 in 8 bits, as does all below.
        high: Becomes 255 in 8 bits, as does all above.
        rule: The name of the way in which the window was found, see `WINDOW_RULE`; empty where a record does not tell.

    Raises:
        ValueError: `high` is not above `low`, or one of them is not finite.
    """

    low: float
    high: float
    rule: str = WINDOW_RULE

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise ValueError(f"an intensity window needs low < high, both finite; got {self.low} to {self.high}")


def find_window(volume: Volume) -> IntensityWindow:
    """One window for the whole volume, from the intensities of its foreground, so that air around it changes nothing.

    The foreground is all blocks of voxels, see `voxel_blocks`, that are brighter than `foreground_threshold`. The
    brightest 0.5 % of its voxels lie above the window. The window begins at 0, where scanners see no signal. It does
    not where the darkest intensities of the whole volume are far from 0, lower than minus a twentieth of the window's
    end or higher than a quarter of it: then as many voxels lie below the window as above it.

    Slices are never windowed one by one: a slice's brightness would then depend on what else it shows.

    Args:
        volume: It holds finite numbers, and no padding, see `replace_padding`.

    Raises:
        ValueError: The volume has no contrast.
    """
    blocks = voxel_blocks(volume)
    values, counted = _distribution(blocks[_is_foreground(blocks)])
    high = float(values[np.searchsorted(counted, SHARE * counted[-1])])
    darkest, of_all = _distribution(blocks)
    low = float(darkest[np.searchsorted(of_all, (1 - SHARE) * counted[-1], side="right")])
    if -high / 20 <= low <= high / 4:
        low = 0.0
    if high <= low:
        raise ValueError(f"the image has no contrast: its intensities are nearly all {low:g}")
    return IntensityWindow(low, high)


def voxel_blocks(volume: Volume) -> np.ndarray:
    """Blocks of 2 x 2 x 2 voxels, in whose mean there is less noise; along an axis of thick slices, of 1 voxel.

    Args:
        volume: Of numbers. What is left over at the ends of axes, less than a block, is left out; of more than
            `MOST_BLOCKS` blocks, evenly spaced ones are taken.

    Returns:
        (i, j, k, voxels), the blocks along the axes of the volume and the voxels of each.
    """
    thin = zip(volume.spacing_mm, volume.shape, strict=True)
    sizes = [2 if mm < THICK_MM and count > 1 else 1 for mm, count in thin]
    counts = [count // size for count, size in zip(volume.shape, sizes, strict=True)]
    step = math.ceil((math.prod(counts) / MOST_BLOCKS) ** (1 / 3)) or 1
    chosen, shape = volume.array, []
    for axis in np.argsort(np.abs(volume.array.strides))[::-1]:  # what lies together in memory last
        begins = np.arange(0, counts[axis], step) * sizes[axis]
        chosen = np.take(chosen, (begins[:, None] + np.arange(sizes[axis])).ravel(), axis)
    for count, size in zip(chosen.shape, sizes, strict=True):
        shape += [count // size, size]
    grouped = chosen.reshape(shape).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(grouped).reshape(*grouped.shape[:3], -1)


def _is_foreground(blocks: np.ndarray) -> np.ndarray:
    """(i, j, k) bool: blocks whose mean is above `foreground_threshold`, or the brightest if there is none."""
    means = blocks.mean(axis=-1, dtype=np.float32)
    bright = means > foreground_threshold(*_distribution(means))
    return bright if bright.any() else means == means.max()


def foreground_threshold(values: np.ndarray, counted: np.ndarray) -> float:
    """The intensity between background and foreground: half of the median of all brighter voxels.

    Intensities are measured from the darkest one, leaving out the darkest voxel in 10,000. Only brighter voxels count,
    so the level does not depend on how much background there is. Source: AFNI's 3dClipLevel (Cox 1996).

    Args:
        values: The sorted intensities of a volume, (n,).
        counted: How many voxels have each of these intensities or a lower one, (n,) integers.
    """
    darkest = float(values[np.searchsorted(counted, 1e-4 * counted[-1], side="right")])
    level = float(np.average(values, weights=np.diff(counted, prepend=0))) - darkest
    for _ in range(_ROUNDS):
        background = _count_up_to(darkest + level, values, counted)
        median = float(values[np.searchsorted(counted, (background + counted[-1]) / 2)]) - darkest
        if level == median / 2:
            break
        level = median / 2
    return darkest + level


def check_one_knee(volume: Volume) -> None:
    """Refuse a single slice, voxels of absurd sizes, and an image of both legs, as coils for two knees make it.

    Args:
        volume: In canonical axes, without padding.

    Raises:
        ValueError: An axis has fewer than two voxels, or voxels that are no knee's, or the foreground, see
            `find_window`, is wider than a knee.
    """
    if min(volume.shape) < 2:
        raise ValueError(f"it is a single slice of {volume.shape} voxels; a volume has several")
    if volume.spacing_mm.min() < VOXEL_MM[0] or volume.spacing_mm.max() > VOXEL_MM[1]:
        sizes = " x ".join(f"{mm:g}" for mm in volume.spacing_mm)
        raise ValueError(f"its voxels have {sizes} mm, so its header has another unit than mm; correct it")
    width = float(volume.spacing_mm[2])
    if volume.shape[2] * width <= WIDEST_MM:
        return
    filled = _is_foreground(voxel_blocks(volume)).mean(axis=(0, 1))
    tissue = np.flatnonzero(filled > _FILLED * filled.max())
    across = float(np.ptp(tissue) + 1) * volume.shape[2] * width / filled.size if tissue.size else 0.0
    if across > WIDEST_MM:
        raise ValueError(
            f"it shows tissue over {across:.0f} mm from right to left, so both knees; crop the image to one, in 3D "
            "Slicer for example"
        )


def _count_up_to(level: float, values: np.ndarray, counted: np.ndarray) -> int:
    """How many voxels have an intensity up to a level; all but one where none is brighter."""
    place = int(np.searchsorted(values, level, side="right"))
    return min(int(counted[place - 1]) if place else 0, int(counted[-1]) - 1)


def replace_padding(volume: Volume, name: str = "image") -> Volume:
    """The same volume, in which padding has the darkest intensity of all other voxels.

    Padding is a value that no scanner measured, such as -1024 around the field of view. It is recognised as the lowest
    or the highest value of a volume, if at least one voxel in 1000 has it, if it is more frequent on the six faces of
    the volume than within, and if it is far from all other values: farther than the range of 99 % of them, or than a
    quarter of that range if it is negative and they are not.

    Args:
        volume: Its voxels are numbers of any type, which is kept.
        name: Of the knee, for what is said of it.

    Raises:
        ValueError: The volume holds NaN or infinity, or no numbers but true and false.
    """
    array = volume.array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"an image has real numbers, this one has {array.dtype}; is it a mask?")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{bad:,} voxels are NaN or infinite; mend the image (for example, set them to 0) first")
    for value in (array.min(), array.max()):
        padded = array == value
        share = padded.mean()
        if share < 1e-3 or share == 1 or _on_faces(padded) < share:
            continue
        measured = array[~padded]
        darkest = measured.min()
        nearest = float(darkest if value < darkest else measured.max())
        span = float(np.ptp(np.percentile(measured[:: max(1, measured.size >> 20)], [0.5, 99.5])))
        room = 0.25 if value < 0 <= nearest else 1
        if abs(nearest - float(value)) > room * span > 0:
            told = (name, 100 * share, value, darkest)
            log.warning("%s: %.1f %% of voxels are %g, far from all others; taken as %g", *told)
            return volume.with_array(np.where(padded, darkest, array))
    return volume


def _on_faces(padded: np.ndarray) -> float:
    """Share of the voxels on the six faces."""
    faces = [np.moveaxis(padded, axis, 0)[end] for axis in range(3) for end in (0, -1)]
    return float(np.mean([face.mean() for face in faces]))


def to_pixels(volume: Volume, window: IntensityWindow, bits: int = 8) -> Volume:
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


def to_intensities(volume: Volume, window: IntensityWindow) -> Volume:
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


def _distribution(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted intensities, and how many voxels have each or less; of more than 4 million floats evenly spaced ones.

    16-bit integers are counted and not sorted.
    """
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        some = array.ravel(order="K")[:: max(1, array.size >> 22)]
        return np.sort(some), np.arange(1, some.size + 1)
    lowest = int(np.iinfo(array.dtype).min)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    unsigned = array.view(np.dtype(f"u{array.dtype.itemsize}")).ravel()
    size = 1 << 8 * array.dtype.itemsize
    # OpenCV counts in float32, which is exact up to 2 ** 24.
    parts = [unsigned[start : start + (1 << 24)] for start in range(0, unsigned.size, 1 << 24)]
    counts = sum(cv2.calcHist([part], [0], None, [size], [0, size]).astype(np.int64) for part in parts)
    counts = np.roll(np.ravel(counts), lowest)
    there = np.flatnonzero(counts)
    return there + lowest, counts[there].cumsum()
