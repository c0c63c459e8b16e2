"""A folder of DICOM -> series and echoes -> Volume.

pydicom gives tags and pixels; geometry is made here, from ImagePositionPatient, ImageOrientationPatient and
PixelSpacing alone. Slice thickness, stated slice distance, instance numbers and file names are known to lie, so they
are not read. Neither is anything that says who the patient is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.volume import Volume

_HEADER_TAGS = ["Modality", "ImageType", "SOPClassUID", "NumberOfFrames", "SeriesInstanceUID", "SeriesNumber"]
_HEADER_TAGS += ["SeriesDescription", "EchoNumbers", "EchoTime"]
_PLACE_TAGS = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
_PIXEL_TAGS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel"]
_PIXEL_TAGS += ["PhotometricInterpretation", "PixelData"]
_OPTIONAL_TAGS = ["RescaleSlope", "RescaleIntercept", "Laterality", "ImageLaterality"]

_DICOMDIR = "1.2.840.10008.1.3.10"
_ENHANCED_MR = {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"}
# Spectroscopy, raw data and Siemens' own: modality MR, but nothing to look at.
_NO_PICTURE = {"1.2.840.10008.5.1.4.1.1.4.2", "1.2.840.10008.5.1.4.1.1.66", "1.3.12.2.1107.5.9.1"}

_COSINE_TOLERANCE = 1e-3  # 0.06 degrees: 0.1 mm across a knee
_MM_TOLERANCE = 1e-2
_GAP_TOLERANCE = 1e-2  # of the distance between slices


class DicomError(ValueError):
    """A folder of DICOM that cannot be taken as one volume; the text names files and the way out."""


@dataclass(frozen=True)
class Echo:
    """The files of one echo. `number` is EchoNumbers or, where that does not tell echoes apart, counts echo times."""

    number: int
    time_ms: float | None
    files: tuple[Path, ...]

    def __str__(self) -> str:
        time = "" if self.time_ms is None else f"{self.time_ms:g} ms, "
        return f"echo {self.number} ({time}{len(self.files)} files)"


@dataclass(frozen=True)
class Series:
    """One SeriesInstanceUID, its echoes by echo time."""

    uid: str
    number: int | None
    description: str
    echoes: tuple[Echo, ...]

    def __str__(self) -> str:
        return f"series {self.number} {self.description!r} {self.uid}: {', '.join(map(str, self.echoes))}"


@dataclass(frozen=True)
class Scan:
    """What a folder holds: MR series by number, and the files left aside with the reason."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class _Header:
    path: Path
    series: tuple[str, int | None, str]
    echo: tuple[float | None, int | None]


def scan(folder: Path) -> Scan:
    """List the MR series below `folder` by their headers; no pixel is read.

    Args:
        folder: Searched with its subfolders; hidden files are passed over without a word.

    Returns:
        Series and echoes, and what was skipped: files that are not DICOM, not MR, localizers, or without a picture.

    Raises:
        DicomError: A file is corrupt, or an enhanced multi-frame image, which this version does not read.
        NotADirectoryError: `folder` is missing or no folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the DICOM files of the series")
    headers: dict[str, list[_Header]] = {}
    skipped = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        header = _read_header(path)
        if isinstance(header, _Header):
            headers.setdefault(header.series[0], []).append(header)
        else:
            skipped.append((path, header))
    series = (Series(*group[0].series, echoes=_echoes(group)) for group in headers.values())
    order = sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))
    return Scan(tuple(order), tuple(skipped))


def read_series(folder: Path, series: str | None = None, echo: int | str | None = None) -> tuple[Volume, Side]:
    """The volume in a folder of classic single-frame MR files.

    Args:
        folder: Searched with its subfolders.
        series: SeriesInstanceUID or series number; needed where more than one series could be meant.
        echo: Number of the echo, or "rss" for the root sum of squares over all; needed where there is more than one.

    Returns:
        The volume, indexed (column, row, slice) with slices along their normal, int16 (int32 for 16 bits unsigned);
        float32 where the files rescale or echoes are combined. And the side of the knee, if the files name it.

    Raises:
        DicomError: The choice is ambiguous, or the files do not make one regular grid.
        NotADirectoryError: `folder` is missing or no folder.
    """
    stacks = [[_read_slice(path) for path in one.files] for one in _choose(folder, series, echo)]
    side = _side_of([one for stack in stacks for one in stack])
    volumes = [_to_volume(stack) for stack in stacks]
    if len(volumes) == 1:
        return volumes[0], side
    if not all(volume.same_grid(volumes[0]) for volume in volumes):
        raise DicomError(f"the echoes in {folder} differ in shape or place and have no sum; choose one by --echo N")
    squares = sum(volume.array.astype(np.float64) ** 2 for volume in volumes)
    return volumes[0].with_array(np.sqrt(squares).astype(np.float32)), side


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    try:
        yield
    except DicomError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly anything on bad bytes
        raise DicomError(f"cannot read {path.name}: {error}; replace it by a fresh export, or remove it") from error


def _read_header(path: Path) -> _Header | str:
    """What sorts the file into a series, or the reason to skip it."""
    with _blaming(path):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        except InvalidDicomError:
            if path.suffix.lower() == ".dcm":
                raise
            return "not DICOM"
        kind, types = header.get("SOPClassUID"), header.get("ImageType") or []
        if header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
            return "a DICOM directory"
        if header.Modality != "MR":
            return f"modality {header.Modality}, not MR"
        if "LOCALIZER" in ([types] if isinstance(types, str) else types):
            return "a localizer"
        if kind in _NO_PICTURE:
            return "no picture"
        if kind in _ENHANCED_MR or int(header.get("NumberOfFrames") or 1) > 1:
            raise DicomError(
                f"{path.name} is an enhanced multi-frame file, this version reads classic single-frame ones; convert "
                "the series with dcm2niix and give the NIfTI file, or with emf2sf and give the folder"
            )
        number, echo, time = header.get("SeriesNumber"), header.get("EchoNumbers"), header.get("EchoTime")
        series = str(header.SeriesInstanceUID), None if number is None else int(number)
        echo_key = None if time is None else round(float(time), 3), int(echo) if isinstance(echo, int) else None
        return _Header(path, (*series, str(header.get("SeriesDescription") or "")), echo_key)


def _echoes(headers: Sequence[_Header]) -> tuple[Echo, ...]:
    groups: dict[tuple[float | None, int | None], list[Path]] = {}
    for header in headers:
        groups.setdefault(header.echo, []).append(header.path)
    keys = sorted(groups, key=lambda key: (key[0] or 0, key[1] or 0))
    stated = [number for _, number in keys if number is not None]
    numbers = stated if len(set(stated)) == len(keys) else range(1, len(keys) + 1)
    return tuple(Echo(number, key[0], tuple(groups[key])) for number, key in zip(numbers, keys, strict=True))


def _choose(folder: Path, series: str | None, echo: int | str | None) -> tuple[Echo, ...]:
    """The echo that is meant, or all that are to be combined."""
    found = scan(folder)
    if not found.series:
        skipped = "; ".join(f"{path.name}: {reason}" for path, reason in found.skipped[:4])
        count = f"{len(found.skipped)} files skipped ({skipped})" if skipped else "no file at all"
        raise DicomError(f"no MR images in {folder}, {count}; give the folder that holds the series")
    # A lone picture cannot be a volume, so it does not stand in the way of the series that can.
    meant = [one for one in found.series if any(len(echo.files) > 1 for echo in one.echoes)] or list(found.series)
    if series is not None:
        meant = [one for one in found.series if series in (one.uid, str(one.number))]
    if len(meant) != 1:
        count = "more than one series" if series is None else f"{len(meant)} series that match {series!r}"
        listing = "\n  ".join(map(str, found.series))
        raise DicomError(f"{folder} holds {count}; choose by --series, its number or UID:\n  {listing}")
    if echo == "rss":
        chosen, fits = meant[0].echoes, len(meant[0].echoes) > 1
    else:
        chosen = tuple(one for one in meant[0].echoes if echo is None or str(one.number) == str(echo))
        fits = len(chosen) == 1
    if not fits:
        count = "more than one echo" if echo is None else f"no echo {echo!r}"
        way = "choose by --echo N, or combine several by --echo rss"
        raise DicomError(f"{folder} holds {count}; {way}:\n  {meant[0]}")
    return chosen


@dataclass(frozen=True, eq=False)
class _Slice:
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


def _read_slice(path: Path) -> _Slice:
    with _blaming(path):
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
        return _Slice(path, position, cosines, spacing, _stored_pixels(data), rescale, side)


def _stored_pixels(data: pydicom.Dataset) -> np.ndarray:
    """(rows, columns), of the smallest signed type that holds all the header allows; MONOCHROME1 turned to 2."""
    bits = int(data.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    dtype = next(kind for kind in (np.int16, np.int32, np.int64) if high <= np.iinfo(kind).max)
    pixels = data.pixel_array.astype(dtype)
    return low + high - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels


def _side_of(slices: Sequence[_Slice]) -> Side:
    named = {one.side: one.path.name for one in slices if one.side is not Side.UNKNOWN}
    if len(named) > 1:
        which = f"right in {named[Side.RIGHT]}, left in {named[Side.LEFT]}"
        raise DicomError(f"the series says both sides: {which}; separate the two knees, or correct Laterality")
    return next(iter(named), Side.UNKNOWN)


def _to_volume(slices: Sequence[_Slice]) -> Volume:
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


def _check_agreement(slices: Sequence[_Slice], what: str, values: Sequence, tolerance: float) -> None:
    """Every slice's numbers are within `tolerance` of those that most slices share."""
    table = np.array(values, dtype=np.float64)
    close = (np.abs(table[:, None] - table) <= tolerance).all(axis=-1)
    usual = int(close.sum(axis=1).argmax())
    odd = np.flatnonzero(~close[usual]).tolist()
    if odd:
        raise DicomError(
            f"{what} must be one in a series; most files have {table[usual].tolist()}, but {table[odd[0]].tolist()} is "
            f"in {_names([slices[i] for i in odd])}; move those files elsewhere, or choose another --series"
        )


def _check_gaps(ordered: Sequence[_Slice], heights: np.ndarray) -> None:
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


def _check_line(ordered: Sequence[_Slice], places: np.ndarray, heights: np.ndarray) -> None:
    """Slices lie straight above each other; a sheared stack is no volume of perpendicular axes."""
    beside = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    odd = np.flatnonzero(beside > _MM_TOLERANCE + _COSINE_TOLERANCE * np.abs(heights - np.median(heights))).tolist()
    if odd:
        raise DicomError(
            f"slices must lie straight above each other, but {_names([ordered[i] for i in odd])} lie up to "
            f"{beside.max():.2f} mm sideways; separate what is more than one series, or resample the stack"
        )


def _names(slices: Sequence[_Slice]) -> str:
    names = ", ".join(one.path.name for one in slices[:4])
    return names if len(slices) <= 4 else f"{names} and {len(slices) - 4} more"
