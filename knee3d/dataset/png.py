"""Slices <-> PNG files.

Images and masks are both 8-bit grey; a mask's pixel is its class number. A palette would look nicer in a picture
viewer, but decoders, `tf.io.decode_png` among them, turn palettes into colours and lose the numbers.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np


def slice_name(index: int) -> str:
    """File name of a slice, zero-padded so that names sort as slices do."""
    return f"{index:04d}.png"


def write_slices(slices: np.ndarray, folder: Path, threads: int = 2) -> None:
    """Write each slice as a PNG.

    Args:
        slices: (slices, height, width) uint8.
        folder: Made if absent.
        threads: OpenCV encodes outside Python's lock, so threads share the work.

    Raises:
        ValueError: The slices are not three-dimensional uint8.
        OSError: A file cannot be written.
    """
    with ThreadPoolExecutor(threads) as pool:
        for written in start_slices(slices, folder, pool):
            written.result()


def start_slices(slices: np.ndarray, folder: Path, pool: Executor) -> list[Future[None]]:
    """As `write_slices`, without waiting: the futures tell when each slice is on disk, or why it is not."""
    if slices.dtype != np.uint8 or slices.ndim != 3:
        raise ValueError(f"PNG slices must be (slices, height, width) uint8, got {slices.shape} {slices.dtype}")
    folder.mkdir(parents=True, exist_ok=True)

    def write(index: int) -> None:
        encoded, data = cv2.imencode(".png", np.ascontiguousarray(slices[index]))
        if not encoded:
            raise OSError(f"OpenCV cannot encode slice {index} of {folder}")
        (folder / slice_name(index)).write_bytes(data.data)

    return [pool.submit(write, index) for index in range(len(slices))]


def read_slices(paths: Sequence[Path], threads: int = 2) -> np.ndarray:
    """Read PNGs of one size into a stack.

    Returns:
        (slices, height, width) uint8, in the order of `paths`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not an 8-bit grey PNG or differs in size.
    """

    def read(path: Path) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise ValueError(f"{path} is not a readable 8-bit grey PNG; run knee3d prepare again")
        return pixels

    with ThreadPoolExecutor(threads) as pool:
        slices = list(pool.map(read, paths))
    sizes = {pixels.shape for pixels in slices}
    if len(sizes) != 1:
        raise ValueError(f"slices of {paths[0].parent if paths else 'no folder'} differ in size: {sorted(sizes)}")
    return np.stack(slices)
