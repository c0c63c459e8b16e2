"""Write slices as PNG files and read them.

Images are grey of 8 bits, or 16 on request; masks are 8-bit grey, and a pixel is its class number. A palette would look
nicer in a picture viewer, but decoders, `tf.io.decode_png` among them, turn palettes into colours and lose the numbers.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

_TYPES = (np.uint8, np.uint16)
_AT_ONCE = 8  # slices that a thread writes before it is asked again: asking costs as much as a small slice


def slice_name(index: int) -> str:
    """File name of a slice, zero-padded so that names sort as slices do."""
    return f"{index:04d}.png"


def write_slices_in_background(slices: np.ndarray, folder: Path, pool: Executor) -> list[Future[None]]:
    """Begin to write each slice as a PNG.

    Args:
        slices: (slices, height, width) uint8 or uint16.
        folder: Made if absent.
        pool: Its threads share the work, as OpenCV encodes outside Python's lock.

    Returns:
        Each tells when a few of the slices are on disk, or raises OSError where they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _turned(slices)

    def write(first: int) -> None:
        for index in range(first, min(first + _AT_ONCE, len(pictures))):
            encoded, data = cv2.imencode(".png", _with_whole_rows(pictures[index]))
            if not encoded:
                raise OSError(f"OpenCV cannot encode slice {index} of {folder}")
            (folder / slice_name(index)).write_bytes(data.data)

    return [pool.submit(write, first) for first in range(0, len(slices), _AT_ONCE)]


def _turned(slices: np.ndarray) -> np.ndarray:
    """The same slices, but if each is scattered over the whole memory, laid one after the other by OpenCV.

    OpenCV turns matrices in blocks that fit a cache: ten times faster than NumPy's copy of each slice.
    """
    if slices.strides[0] != slices.itemsize:
        return slices
    count, height, width = slices.shape
    scattered = np.ascontiguousarray(slices.transpose(2, 1, 0)).reshape(-1, count)
    return cv2.transpose(scattered).reshape(count, width, height).transpose(0, 2, 1)


def _with_whole_rows(picture: np.ndarray) -> np.ndarray:
    """The same picture with rows that are contiguous, as OpenCV wants them."""
    if picture.strides[0] != picture.itemsize:
        return np.ascontiguousarray(picture)
    return np.asarray(cv2.transpose(np.ascontiguousarray(picture.T)))


def read_slices(paths: Sequence[Path]) -> np.ndarray:
    """Read PNGs of one size into a stack.

    Returns:
        (slices, height, width) uint8 or uint16, in the order of `paths`.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not a grey PNG, or differs in size or bits.
    """

    def read(path: Path) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype not in _TYPES or pixels.ndim != 2:
            raise ValueError(f"{path} is not a readable grey PNG; run knee3d prepare again")
        return pixels

    with ThreadPoolExecutor(2) as pool:
        slices = list(pool.map(read, paths))
    kinds = {(*pixels.shape, 8 * pixels.itemsize) for pixels in slices}
    if len(kinds) != 1:
        raise ValueError(f"slices of {paths[0].parent} differ in height, width or bits: {sorted(kinds)}")
    return np.stack(slices)
