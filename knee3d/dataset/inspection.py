"""List the volumes that can be read from a path, and the problems of those that cannot."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from knee3d.dataset.intensity import check_one_knee, replace_padding
from knee3d.geometry.orientation import Side, acquired_plane, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.io.archive import extracted_archive
from knee3d.io.dicom.grid import SliceGrid, regular_grid
from knee3d.io.dicom.series import Echo, Series, check_complete, scan_folder
from knee3d.io.image_source import DEFAULT_OPTIONS, ReadOptions, read_image
from knee3d.records import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundVolume:
    """A volume file, or one echo of a DICOM series.

    Attributes:
        name: The name of the file, or the number of the series.
        path: The file, or the folder of the series.
        uid: The SeriesInstanceUID; empty for a file.
        description: What the scanner wrote about the series. It may name a person: show it, and do not keep it.
        echo: The number of the echo; None for a file.
        time_ms: The echo time; None for a file, and where DICOM does not say it.
        images: The number of DICOM images; 1 for a file.
        shape: The number of voxels along the axes of the file; None where the volume cannot be read.
        spacing_mm: The distance between voxels along the same axes; None where the volume cannot be read.
        plane: The plane in which slices were taken; None where the volume cannot be read.
        side: The side of the knee; empty where it is not known.
        problem: Why the volume cannot be read; empty where it can be read.
    """

    name: str
    path: str
    uid: str
    description: str
    echo: int | None
    time_ms: float | None
    images: int
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    plane: Plane | None = None
    side: Side = Side.UNKNOWN
    problem: str = ""


@dataclass(frozen=True)
class Inspection(Record):
    """What could be read from a path.

    Attributes:
        volumes: Series by number and their echoes by time, or the one file.
        skipped: The reason why files were left aside, to the number of these files.
        broken: What is wrong with files that are damaged, a sentence for each.
    """

    volumes: tuple[FoundVolume, ...]
    skipped: Mapping[str, int]
    broken: tuple[str, ...]


def inspect(path: Path, choice: ReadOptions = DEFAULT_OPTIONS) -> Inspection:
    """List what could be read from a folder of DICOM, a zip of it, or a volume file.

    Args:
        path: What a user may call an image.
        choice: Its spacing is used where a file has none, and whether images of any modality count; nothing is chosen.

    Returns:
        The volumes that could be read, and what is wrong with the others. Of DICOM, headers are read, and no pixel.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ArchiveError: A zip file is broken or hostile.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    if path.is_file() and path.suffix.lower() != ".zip":
        volume = FoundVolume(name=path.name, path=str(path), uid="", description="", echo=None, time_ms=None, images=1)
        return Inspection((_with_place(volume, lambda: _checked(path, choice)),), {}, ())
    with extracted_archive(path) as folder:
        found = scan_folder(folder, choice.any_modality)
        if found.remark:
            log.warning("%s: %s", path, found.remark)
        volumes = tuple(_echo(series, echo, folder, path) for series in found.series for echo in series.echoes)
    skipped = dict(Counter(reason for _, reason in found.skipped))
    return Inspection(volumes, skipped, tuple(str(error) for error in found.broken))


def _checked(path: Path, choice: ReadOptions) -> tuple[Volume, Side]:
    """An image that can be segmented, and its side.

    Raises:
        ValueError: As `read_image` and `network_image`.
    """
    volume = read_image(path, choice)
    check_one_knee(replace_padding(to_canonical(volume)))
    return volume, volume.side


def _echo(series: Series, echo: Echo, folder: Path, path: Path) -> FoundVolume:
    """What is told of an echo of a series, whose files lie in a folder, which may be what `path` was unpacked to."""

    def grid() -> tuple[SliceGrid, Side]:
        found = regular_grid(echo.frames)
        check_complete(series)
        return found, found.side

    place = Path(os.path.commonpath([frame.path.parent for frame in echo.frames])).relative_to(folder)
    volume = FoundVolume(
        name=str(series.number),
        path=str(path / place),
        uid=series.uid,
        description=series.description,
        echo=echo.number,
        time_ms=echo.time_ms,
        images=len(echo.frames),
    )
    return _with_place(volume, grid)


def _with_place(volume: FoundVolume, find: Callable[[], tuple[Volume | SliceGrid, Side]]) -> FoundVolume:
    """The volume with where it lies, or with why that cannot be found."""
    try:
        found, side = find()
    except ValueError as error:
        return replace(volume, problem=str(error))
    rows, columns, slices = np.linalg.norm(found.affine[:3, :3], axis=0).round(4).tolist()
    return replace(
        volume,
        shape=found.shape,
        spacing_mm=(rows, columns, slices),
        plane=acquired_plane(found.affine),
        side=side,
    )
