"""A folder of DICOM -> series and echoes -> Volume: what is there, and which files are meant.

Nothing that says who the patient is is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.volume import Volume
from knee3d.dataset.stack import DicomError, blaming, read_slice, side_of, stack_slices

_HEADER_TAGS = ["Modality", "ImageType", "SOPClassUID", "NumberOfFrames", "SeriesInstanceUID", "SeriesNumber"]
_HEADER_TAGS += ["SeriesDescription", "EchoNumbers", "EchoTime"]
_DICOMDIR = "1.2.840.10008.1.3.10"
_ENHANCED_MR = {"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3", "1.2.840.10008.5.1.4.1.1.4.4"}
# Spectroscopy, raw data and Siemens' own: modality MR, but nothing to look at.
_NO_PICTURE = {"1.2.840.10008.5.1.4.1.1.4.2", "1.2.840.10008.5.1.4.1.1.66", "1.3.12.2.1107.5.9.1"}


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
    stacks = [[read_slice(path) for path in one.files] for one in _choose(folder, series, echo)]
    side = side_of([one for stack in stacks for one in stack])
    volumes = [stack_slices(stack) for stack in stacks]
    if len(volumes) == 1:
        return volumes[0], side
    if not all(volume.same_grid(volumes[0]) for volume in volumes):
        raise DicomError(f"the echoes in {folder} differ in shape or place and have no sum; choose one by --echo N")
    squares = sum(volume.array.astype(np.float64) ** 2 for volume in volumes)
    return volumes[0].with_array(np.sqrt(squares).astype(np.float32)), side


def _read_header(path: Path) -> _Header | str:
    """What sorts the file into a series, or the reason to skip it."""
    with blaming(path):
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
