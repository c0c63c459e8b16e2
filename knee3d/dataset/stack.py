"""Files of one DICOM stack -> Volume.

pydicom gives tags and pixels; geometry is made here, from ImagePositionPatient, ImageOrientationPatient and
PixelSpacing alone. Slice thickness, stated slice distance, instance numbers and file names are known to lie, so they
are not read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.volume import Volume

_PLACE_TAGS = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
_PIXEL_TAGS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"]
_PIXEL_TAGS += ["PhotometricInterpretation", "PixelData"]
_OPTIONAL_TAGS = ["RescaleSlope", "RescaleIntercept", "Laterality", "ImageLaterality"]

_COSINE_TOLERANCE = 1e-3  # 0.06 degrees: 0.1 mm across a knee
_MM_TOLERANCE = 1e-2
_GAP_TOLERANCE = 1e-2  # of the distance between slices


class DicomError(ValueError):
    """A folder of DICOM that cannot be taken as one volume; the text names files and the way out."""


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Whatever goes wrong in the block becomes a `DicomError` that names `path`."""
    try:
        yield
    except DicomError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly anything on bad bytes
        raise DicomError(f"cannot read {path.name}: {error}; replace it by a fresh export, or remove it") from error


@dataclass(frozen=True, eq=False)
class Slice:
    """One file: its place in LPS mm, (rows, columns) pixels, and the value of a pixel as slope and intercept."""

    path: Path
    position: np.ndarray
    cosines: np.ndarray
    spacing: np.ndarray
    pixels: np.ndarray
    rescale: tuple[float, float]
    side: Side

    def __post_init__(self) -> None:
        numbers = np.concatenate([self.position, self.cosines, self.spacing])
        usable = (self.position.size, self.cosines.size, self.spacing.size) == (3, 6, 2)
        usable = usable and bool(np.isfinite(numbers).all()) and self.spacing.min() > 0
        pair = self.cosines.reshape(-1, 3)
        if not usable or np.abs(pair @ pair.T - np.eye(2)).max() > _COSINE_TOLERANCE:
            raise DicomError(
                f"{self.path.name} has no usable place: ImagePositionPatient {self.position}, ImageOrientationPatient "
                f"{self.cosines}, PixelSpacing {self.spacing}; expected 3 numbers, two perpendicular unit vectors and "
                "2 numbers above 0; export the series again"
            )


def read_slice(path: Path) -> Slice:
    """One file, decoded.

    Raises:
        DicomError: It is corrupt, lacks a place or pixels, is a colour picture, or contradicts itself about the side.
    """
    with blaming(path):
        data = pydicom.dcmread(path, specific_tags=_PLACE_TAGS + _PIXEL_TAGS + _OPTIONAL_TAGS)
        missing = [name for name in _PLACE_TAGS + _PIXEL_TAGS if name not in data or data[name].is_empty]
        if missing:
            raise DicomError(f"{path.name} lacks {', '.join(missing)}: cut off or stripped; export the series again")
        if data.SamplesPerPixel != 1 or data.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
            raise DicomError(f"{path.name} is a colour picture; a volume needs grey images, choose another --series")
        slope, intercept, *sides = (data.get(name) for name in _OPTIONAL_TAGS)
        stated = {str(side or "").strip().upper() for side in sides} & {"R", "L"}
        if len(stated) > 1:
            raise DicomError(f"{path.name} says both right and left; correct Laterality or ImageLaterality")
        position, cosines, spacing = (np.atleast_1d(np.array(data[name].value, dtype=float)) for name in _PLACE_TAGS)
        rescale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
        side = Side("".join(stated))
        return Slice(path, position, cosines, spacing, _stored_pixels(data), rescale, side)


def _stored_pixels(data: pydicom.Dataset) -> np.ndarray:
    """(rows, columns), of the smallest signed type that holds all the header allows; MONOCHROME1 turned to 2."""
    bits = int(data.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    dtype = next(kind for kind in (np.int16, np.int32, np.int64) if high <= np.iinfo(kind).max)
    pixels = data.pixel_array.astype(dtype)
    return low + high - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels


def side_of(slices: Sequence[Slice]) -> Side:
    """The side that some slice names, unknown if none does.

    Raises:
        DicomError: Some name right and some left.
    """
    named = {one.side: one.path.name for one in slices if one.side is not Side.UNKNOWN}
    if len(named) > 1:
        which = f"right in {named[Side.RIGHT]}, left in {named[Side.LEFT]}"
        raise DicomError(f"the series says both sides: {which}; separate the two knees, or correct Laterality")
    return next(iter(named), Side.UNKNOWN)


def stack_slices(slices: Sequence[Slice]) -> Volume:
    """The regular grid that the slices make, whatever order they come in.

    Returns:
        Indexed (column, row, slice), affine to RAS mm; int16 or int32, float32 where the files rescale.

    Raises:
        DicomError: There are fewer than 2 slices, they differ in size, spacing or orientation, lie at one place, leave
            gaps, or do not lie straight above each other.
    """
    if len(slices) < 2:
        raise DicomError(f"a volume needs at least 2 slices, there is only {_names(slices)}; choose another --series")
    _check_agreement(slices, "rows and columns", [one.pixels.shape for one in slices], 0)
    _check_agreement(slices, "PixelSpacing", [one.spacing for one in slices], 1e-4)
    _check_agreement(slices, "ImageOrientationPatient", [one.cosines for one in slices], _COSINE_TOLERANCE)
    cosines = slices[0].cosines.reshape(2, 3)
    cosines = cosines / np.linalg.norm(cosines, axis=1, keepdims=True)
    normal = np.cross(cosines[0], cosines[1])
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in ordered])
    _check_gaps(ordered, positions @ normal)
    _check_line(ordered, positions @ cosines.T, positions @ normal)
    affine = np.eye(4)
    affine[:3, 0] = cosines[0] * slices[0].spacing[1]  # to the next column goes the distance between columns
    affine[:3, 1] = cosines[1] * slices[0].spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    affine[:3, 3] = positions[0]
    pixels = np.stack([one.pixels for one in ordered])
    if any(one.rescale != (1, 0) for one in ordered):
        slope, intercept = np.array([one.rescale for one in ordered]).T[:, :, None, None]
        pixels = (pixels * slope + intercept).astype(np.float32)
    return Volume(pixels.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # from DICOM's LPS to RAS


def _check_agreement(slices: Sequence[Slice], what: str, values: Sequence, tolerance: float) -> None:
    """Every slice's numbers are within `tolerance` of those that most slices share."""
    table = np.array(values, dtype=np.float64)
    close = np.all(np.abs(table[:, None] - table) <= tolerance, axis=-1)
    usual = int(close.sum(axis=1).argmax())
    odd = np.flatnonzero(~close[usual]).tolist()
    if odd:
        raise DicomError(
            f"{what} must be one in a series; most files have {table[usual].tolist()}, but {table[odd[0]].tolist()} is "
            f"in {_names([slices[i] for i in odd])}; move those files elsewhere, or choose another --series"
        )


def _check_gaps(ordered: Sequence[Slice], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    same = np.flatnonzero(gaps < _MM_TOLERANCE).tolist()
    if same:
        where = "; ".join(_names(ordered[i : i + 2]) for i in same[:3])
        raise DicomError(
            f"slices lie at the same place: {where} ({len(same)} such pairs); remove copies of files, and separate "
            "magnitude from phase and time points from each other"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_MM_TOLERANCE, _GAP_TOLERANCE * usual)).tolist()
    if odd:
        where = "; ".join(f"{gaps[i]:.3f} mm between {_names(ordered[i : i + 2])}" for i in odd[:3])
        raise DicomError(
            f"slices must be evenly spaced, most are {usual:.3f} mm apart, but {where} ({len(odd)} such gaps); add the "
            "missing files, or separate what is more than one series"
        )


def _check_line(ordered: Sequence[Slice], places: np.ndarray, heights: np.ndarray) -> None:
    """Slices lie straight above each other; a sheared stack is no volume of perpendicular axes."""
    beside = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    odd = np.flatnonzero(beside > _MM_TOLERANCE + _COSINE_TOLERANCE * np.abs(heights - np.median(heights))).tolist()
    if odd:
        raise DicomError(
            f"slices must lie straight above each other, but {_names([ordered[i] for i in odd])} lie up to "
            f"{beside.max():.2f} mm sideways; separate what is more than one series, or resample the stack"
        )


def _names(slices: Sequence[Slice]) -> str:
    names = ", ".join(one.path.name for one in slices[:4])
    return names if len(slices) <= 4 else f"{names} and {len(slices) - 4} more"
