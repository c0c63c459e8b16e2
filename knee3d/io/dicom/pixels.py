"""Decode the pixels of the frames of a grid with pydicom."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from knee3d.geometry.volume import Volume
from knee3d.io.dicom.grid import SliceGrid
from knee3d.io.dicom.headers import DicomError, Frame, collect_pydicom_warnings, errors_naming

log = logging.getLogger(__name__)

_TAGS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"]
_TAGS += ["PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "PixelData"]
_TAGS += ["ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
_WANTED = [Tag(name) for name in _TAGS]  # looked up once, and not for each file


def read_pixels(grid: SliceGrid) -> Volume:
    """Decode every frame of a grid.

    Returns:
        Indexed (column, row, slice); int16, int32 or int64, the smallest that holds what the headers allow, MONOCHROME1
        turned to 2; float32 where a file rescales. Voxels that the headers call padding have the lowest value of the
        others. A rescale slope of 0 counts as 1.

    Raises:
        DicomError: A file has no pixels, too few, or cannot be decoded.
    """
    frames = grid.frames
    dtype = np.result_type(*{_dtype(one.bits) for one in frames})
    slopes, intercepts = np.array([one.rescale for one in frames]).T
    if not slopes.all():
        log.warning("%s: RescaleSlope is 0 in %d images; taken as 1", _folder(frames), np.count_nonzero(slopes == 0))
        slopes[slopes == 0] = 1
    rescaled = bool((slopes != 1).any() or intercepts.any())
    columns, rows, count = grid.shape
    pixels = np.empty((count, rows, columns), np.float32 if rescaled else dtype)
    padded = np.zeros(pixels.shape, bool) if any(one.padding for one in frames) else None
    places: dict = {}
    for place, one in enumerate(frames):
        places.setdefault(one.path, []).append(place)
    for where in places.values():
        decoded = _decode([frames[place] for place in where])
        for place, stored in zip(where, decoded, strict=True):
            picture, range_of_padding = _upright(stored, frames[place]), frames[place].padding
            pixels[place] = picture.astype(np.float64) * slopes[place] + intercepts[place] if rescaled else picture
            if padded is not None and range_of_padding:
                padded[place] = (stored >= range_of_padding[0]) & (stored <= range_of_padding[1])
    if padded is not None and padded.any() and not padded.all():
        pixels[padded] = lowest = pixels[~padded].min()
        log.info("%s: %.1f %% of voxels are padding; taken as %g", _folder(frames), 100 * padded.mean(), lowest)
    return Volume(pixels.T, grid.affine)


def _folder(frames: Sequence[Frame]) -> Path:
    return frames[0].path.parent


def _dtype(bits: int) -> np.dtype:
    highest = 2 ** (-bits - 1) - 1 if bits < 0 else 2**bits - 1
    return np.dtype(next(kind for kind in (np.int16, np.int32, np.int64) if highest <= np.iinfo(kind).max))


def _decode(frames: Sequence[Frame]) -> list[np.ndarray]:
    """Stored values, (rows, columns), of each of some frames of one file."""
    path = frames[0].path
    with errors_naming(path), collect_pydicom_warnings():
        data = pydicom.dcmread(path, specific_tags=_WANTED, force=True)
        if "PixelData" not in data or data["PixelData"].is_empty:
            raise DicomError(f"{path.name} lacks PixelData: cut off or stripped; export the series again")
        # Files without a preamble do not say it.
        plain = ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian
        syntax = data.file_meta.TransferSyntaxUID = data.file_meta.get("TransferSyntaxUID", plain)
        # What `data.pixel_array` does, without copies.
        decoded, _ = get_decoder(syntax).as_array(data, raw=True, view_only=True)  # type: ignore[arg-type]
        stored = decoded.reshape(-1, *frames[0].shape)
        return [stored[one.index or 0] for one in frames]


def _upright(pixels: np.ndarray, frame: Frame) -> np.ndarray:
    """MONOCHROME1, where the largest value is black, turned to MONOCHROME2."""
    if not frame.inverted:
        return pixels
    bits = abs(frame.bits)
    return (-1 if frame.bits < 0 else 2**bits - 1) - pixels
