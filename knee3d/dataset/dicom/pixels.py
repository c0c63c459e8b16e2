"""Grid -> Volume: the pixels of its frames, decoded by pydicom."""

from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.tag import Tag

from knee3d.anatomy.volume import Volume
from knee3d.dataset.dicom.grid import Grid
from knee3d.dataset.dicom.headers import DicomError, Frame, blaming

_TAGS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"]
_TAGS += ["PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "PixelData"]
_TAGS += ["ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
_WANTED = [Tag(name) for name in _TAGS]  # looked up once, and not for each file


def read_pixels(grid: Grid) -> Volume:
    """Decode every frame of a grid.

    Returns:
        Indexed (column, row, slice); int16, int32 or int64, the smallest that holds what the headers allow, MONOCHROME1
        turned to 2; float32 where a file rescales.

    Raises:
        DicomError: A file has no pixels, too few, or cannot be decoded.
    """
    frames = grid.frames
    dtype = np.result_type(*{_dtype(one.bits) for one in frames})
    rescaled = any(one.rescale != (1, 0) for one in frames)
    columns, rows, count = grid.shape
    pixels = np.empty((count, rows, columns), np.float32 if rescaled else dtype)
    places: dict = {}
    for place, one in enumerate(frames):
        places.setdefault(one.path, []).append(place)
    for where in places.values():
        decoded = _decode([frames[place] for place in where])
        for place, picture in zip(where, decoded, strict=True):
            slope, intercept = frames[place].rescale
            pixels[place] = picture.astype(np.float64) * slope + intercept if rescaled else picture
    return Volume(pixels.T, grid.affine)


def _dtype(bits: int) -> np.dtype:
    highest = 2 ** (-bits - 1) - 1 if bits < 0 else 2**bits - 1
    return np.dtype(next(kind for kind in (np.int16, np.int32, np.int64) if highest <= np.iinfo(kind).max))


def _decode(frames: Sequence[Frame]) -> list[np.ndarray]:
    """(rows, columns) of each of some frames of one file."""
    path = frames[0].path
    with blaming(path):
        data = pydicom.dcmread(path, specific_tags=_WANTED)
        if "PixelData" not in data or data["PixelData"].is_empty:
            raise DicomError(f"{path.name} lacks PixelData: cut off or stripped; export the series again")
        # What `data.pixel_array` does, without copies.
        decoded, _ = get_decoder(data.file_meta.TransferSyntaxUID).as_array(data, raw=True, view_only=True)  # type: ignore[arg-type]
        stored = decoded.reshape(-1, *frames[0].shape)
        return [_upright(stored[one.index or 0], one) for one in frames]


def _upright(pixels: np.ndarray, frame: Frame) -> np.ndarray:
    """MONOCHROME1, where the largest value is black, turned to MONOCHROME2."""
    if not frame.inverted:
        return pixels
    bits = abs(frame.bits)
    return (-1 if frame.bits < 0 else 2**bits - 1) - pixels
