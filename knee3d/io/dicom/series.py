"""Find the series and echoes in a folder of DICOM, and read the one that is asked for."""

import filecmp
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.grid import SliceGrid, regular_grid
from knee3d.io.dicom.headers import DicomError, Frame, collect_pydicom_warnings, may_be_truncated_dicom, read_frames
from knee3d.io.dicom.pixels import read_pixels
from knee3d.io.paths import files_below

log = logging.getLogger(__name__)

RSS = "rss"
_LOST = "is empty, cut off or a link to nothing, and may have been a slice; fetch or export it again, or remove it"
_NO_SERIES = "lacks SeriesInstanceUID, which other files here have; export the series again, or move the file elsewhere"


@dataclass(frozen=True)
class SeriesSelector:
    """What a folder of DICOM alone does not say.

    Attributes:
        series: SeriesInstanceUID or series number; None where only one series can be meant.
        echo: Number of the echo, or "rss" for the root sum of squares over all; None where there is only one.
        any_modality: Whether images count that are of another modality than MR, or of none.
        incomplete: Whether a series may have fewer images than its headers say.
    """

    series: str | None = None
    echo: str | None = None
    any_modality: bool = False
    incomplete: bool = False

    def __post_init__(self) -> None:
        for name in ("series", "echo"):  # numbers are written as text in DICOM, and people write them as numbers
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else str(value))


PLAIN = SeriesSelector()


@dataclass(frozen=True)
class Echo:
    """The pictures of one echo. `number` is EchoNumbers or, where that does not tell echoes apart, counts times."""

    number: int
    time_ms: float | None
    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        time = "" if self.time_ms is None else f"{self.time_ms:g} ms, "
        return f"echo {self.number} ({time}{len(self.frames)} images)"


@dataclass(frozen=True)
class Series:
    """One SeriesInstanceUID, its echoes by echo time. The description may name a person: it goes to no message."""

    uid: str
    number: int | None
    description: str
    echoes: tuple[Echo, ...]

    @property
    def place(self) -> str:
        """Where its first file lies."""
        return min(str(frame.path) for echo in self.echoes for frame in echo.frames)

    def __str__(self) -> str:
        sides = sorted({frame.side for echo in self.echoes for frame in echo.frames} - {Side.UNKNOWN})
        side = f", side {' and '.join(sides)}" if sides else ""
        return f"series {self.number} {self.uid}: {', '.join(map(str, self.echoes))}{side}"


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds.

    Attributes:
        series: MR series by number.
        skipped: Files left aside, with the reason: not DICOM, not MR, localizers, without a picture, screenshots in a
            series of slices, exact copies.
        broken: What is wrong with files that are, or may have been, DICOM and cannot be read: each may be a slice.
        remark: What is odd in headers, without quoting what they hold, as that may name a person; empty if nothing is.
    """

    series: tuple[Series, ...]
    skipped: tuple[tuple[Path, str], ...]
    broken: tuple[DicomError, ...]
    remark: str = ""

    @property
    def frames(self) -> list[Frame]:
        """The frames of all echoes of all series."""
        return [frame for series in self.series for echo in series.echoes for frame in echo.frames]


def scan_folder(folder: Path, any_modality: bool = False) -> FolderScan:
    """List the MR series below `folder` by their headers; no pixel is read.

    Args:
        folder: Searched with its subfolders; hidden files are passed over without a word.
        any_modality: Whether images of another modality, or of none, count as MR.

    Raises:
        NotADirectoryError: `folder` is missing or no folder.
        OSError: A folder below it cannot be listed.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the DICOM files of the series")
    files = files_below(folder, strict=True)
    lost = [path for path in files if may_be_truncated_dicom(path)]
    found: dict[str, list[Frame]] = {}
    skipped: list[tuple[Path, str]] = []
    broken: list[DicomError] = []
    with collect_pydicom_warnings() as heard:
        for path in sorted(set(files) - set(lost)):
            try:
                frames = read_frames(path, any_modality)
            except DicomError as error:
                broken.append(error)
                continue
            if isinstance(frames, str):
                skipped.append((path, frames))
            else:
                found.setdefault(frames[0].series[0], []).extend(frames)
    remark = next((text for text in heard if "encoding" in text), "values in headers are odd, and read as they are")
    remark = f"{remark} ({len(heard)} such remarks on its files)" if heard else ""
    if found:
        broken += [DicomError(f"{path.name} {_LOST}") for path in lost]
    else:
        skipped += [(path, "empty") for path in lost]
    if len(found) > 1:
        broken += [DicomError(f"{one.path.name} {_NO_SERIES}") for one in found.pop("", [])]
    series = [_series(frames, skipped) for frames in found.values()]
    order = sorted(series, key=lambda one: (one.number is None, one.number or 0, one.place, one.uid))
    return FolderScan(tuple(order), tuple(skipped), tuple(broken), remark)


def _series(frames: Sequence[Frame], skipped: list[tuple[Path, str]]) -> Series:
    """One series of its frames. Screenshots, which have colours and no place, and copies are added to `skipped`."""
    slices = [one for one in frames if not one.colour or one.position.size] or list(frames)
    copies = _copies(slices)
    skipped += [(one.path, "a colour picture without a place") for one in frames if one not in slices]
    skipped += [(path, "an exact copy of another file") for path in sorted(copies)]
    return Series(*frames[0].series, echoes=_echoes([one for one in slices if one.path not in copies]))


def _copies(frames: Sequence[Frame]) -> set[Path]:
    """Files that are byte for byte another file of the same SOPInstanceUID."""
    first: dict[str, Path] = {}
    again = {one.path: first.setdefault(one.instance, one.path) for one in frames if one.instance}
    return {path for path, other in again.items() if path != other and filecmp.cmp(path, other, shallow=False)}


def check_complete(series: Series) -> None:
    """Refuse a series of classic files of which some are missing by their own numbers.

    ImagesInAcquisition tells how many there are, and InstanceNumber which. Where numbers go beyond, or are not given,
    they count something else, and nothing is checked.

    Raises:
        DicomError: Numbers are missing.
    """
    told = {frame.number for echo in series.echoes for frame in echo.frames if frame.index is None}
    numbers, count = {number for number, _ in told}, max((many or 0 for _, many in told), default=0)
    counting = [number for number in numbers if number is not None and 1 <= number <= count]
    if len(counting) == len(numbers) < count:
        first = next(number for number in range(1, count + 1) if number not in numbers)
        raise DicomError(
            f"series {series.number} should have {count} images by its headers, {count - len(numbers)} are missing, "
            f"such as number {first}; fetch the series again, or take what is there by --incomplete"
        )


def read_series(folder: Path, choice: SeriesSelector = PLAIN) -> tuple[Volume, Side]:
    """The volume in a folder of MR files, classic or enhanced.

    Args:
        folder: It is searched with its subfolders.
        choice: It says what is meant where the folder holds several series or echoes.

    Returns:
        The volume, indexed (column, row, slice) with slices along their normal, see `read_pixels`; float32 where
        echoes are combined. And the side of the knee, if the files name it.

    Raises:
        DicomError: The choice is ambiguous, a file is corrupt, or the files do not make one regular grid.
        NotADirectoryError: `folder` is missing or no folder.
    """
    grids = find_slice_grids(folder, choice)
    if not all(_same(grid, grids[0]) for grid in grids):
        raise DicomError(f"the echoes in {folder} differ in shape or place and have no sum; choose one by --echo N")
    if len(grids) == 1:
        return read_pixels(grids[0]), grids[0].side
    squares = np.zeros(grids[0].shape)
    for grid in grids:
        squares += read_pixels(grid).array.astype(np.float64) ** 2
    return Volume(np.sqrt(squares).astype(np.float32), grids[0].affine), grids[0].side


def find_slice_grids(folder: Path, choice: SeriesSelector = PLAIN, again: bool = False) -> list[SliceGrid]:
    """The grid of the echo that is meant, or of all that are to be combined; arguments and errors as `read_series`.

    Args:
        folder: As in `read_series`.
        choice: As in `read_series`.
        again: Whether the folder was read before, and what is odd in it was said then.
    """
    found = scan_folder(folder, choice.any_modality)
    if found.remark and not again:
        log.warning("%s: %s", folder, found.remark)
    if found.broken:
        raise found.broken[0]
    if not found.series:
        skipped = "; ".join(f"{path.name}: {reason}" for path, reason in found.skipped[:4])
        count = f"{len(found.skipped)} files skipped ({skipped})" if skipped else "no file at all"
        others = any("modality" in reason for _, reason in found.skipped)
        way_out = "read images of any modality by --any-modality, or " if others else ""
        raise DicomError(f"no MR images in {folder}, {count}; {way_out}give the folder that holds the series")
    if found.skipped and not again:
        reasons = sorted({reason for _, reason in found.skipped})
        log.info("%s: %d files left aside (%s)", folder, len(found.skipped), ", ".join(reasons))
    series = _choose_series(found.series, folder, choice.series)
    chosen = _choose_echoes(series, folder, choice.echo)
    if not choice.incomplete:
        check_complete(series)
    return [regular_grid(one.frames) for one in chosen]


def _same(a: SliceGrid, b: SliceGrid) -> bool:
    return a.shape == b.shape and np.allclose(a.affine, b.affine, atol=1e-3)


def _echoes(frames: Sequence[Frame]) -> tuple[Echo, ...]:
    groups: dict[tuple[float | None, int | None], list[Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.echo, []).append(frame)
    keys = sorted(groups, key=lambda key: (key[0] or 0, key[1] or 0))
    stated = [number for _, number in keys if number is not None]
    numbers = stated if len(set(stated)) == len(keys) else range(1, len(keys) + 1)
    return tuple(Echo(number, key[0], tuple(groups[key])) for number, key in zip(numbers, keys, strict=True))


def _choose_series(found: Sequence[Series], folder: Path, series: str | None) -> Series:
    meant = [one for one in found if any(map(_may_be_volume, one.echoes))] or list(found)
    if series is not None:
        meant = [one for one in found if series in (one.uid, str(one.number))]
    if len(meant) != 1:
        count = "more than one series" if series is None else f"{len(meant)} series that match {series!r}"
        listing = "\n  ".join(map(str, found))
        raise DicomError(
            f"{folder} holds {count}; give the folder of one of them, or its number or UID (--series, or a column "
            f"series of a table; knee3d inspect shows more):\n  {listing}"
        )
    return meant[0]


def _may_be_volume(echo: Echo) -> bool:
    """Lone pictures and screenshots do not stand in the way of the series that is meant."""
    return len(echo.frames) > 1 and not all(frame.colour for frame in echo.frames)


def _choose_echoes(series: Series, folder: Path, echo: str | None) -> tuple[Echo, ...]:
    if echo == RSS:
        chosen, fits = series.echoes, len(series.echoes) > 1
    else:
        chosen = tuple(one for one in series.echoes if echo is None or str(one.number) == echo)
        fits = len(chosen) == 1
    if not fits:
        count = "more than one echo" if echo is None else f"no echo {echo!r}"
        way = "choose by --echo N, or combine several by --echo rss"
        raise DicomError(f"{folder} holds {count}; {way}:\n  {series}")
    return chosen
