"""What lies at a path: every volume that could be read from it, and what stands in the way of those that cannot."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knee3d.anatomy.orientation import Side, acquired_plane
from knee3d.anatomy.plane import Plane
from knee3d.dataset.dicom.grid import regular_grid
from knee3d.dataset.dicom.headers import DicomError
from knee3d.dataset.dicom.series import Echo, Scan, Series, scan
from knee3d.dataset.files.archive import unpacked
from knee3d.dataset.source import ANY, Choice, read_image


@dataclass(frozen=True)
class Finding:
    """A volume, or what should have been one.

    Attributes:
        name: File name, or number of the series.
        path: The file, or the folder of the series, from what was looked at: "." is that itself.
        uid: SeriesInstanceUID; empty for a file.
        description: SeriesDescription as the scanner wrote it, for eyes only: it may name a person.
        echo: Number of the echo; None for a file.
        time_ms: Echo time.
        images: Pictures in it.
        shape: Voxels along the file's axes; None where there is a problem.
        spacing_mm: Between them.
        plane: In which slices were taken; None where there is a problem.
        side: Of the knee, as far as DICOM says.
        problem: Why it cannot be read; empty if it can.
    """

    name: str
    path: str
    uid: str
    description: str
    echo: int | None
    time_ms: float | None
    images: int
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    plane: Plane | None
    side: Side
    problem: str


@dataclass(frozen=True)
class Inspection:
    """Findings, and the files beside them: skipped ones counted by reason, and what is wrong with broken ones."""

    findings: tuple[Finding, ...]
    skipped: dict[str, int]
    broken: tuple[str, ...]


def inspect(path: Path, choice: Choice = ANY) -> Inspection:
    """List what could be read from a folder of DICOM, a zip of it, or a volume file.

    Args:
        path: What a user may call an image.
        choice: Its spacing is used where a file has none; nothing is chosen.

    Returns:
        Series by number and their echoes by time. Of DICOM headers are read, and no pixel.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ArchiveError: A zip file is broken or hostile.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    if path.is_file() and path.suffix.lower() != ".zip":
        return Inspection((_file(path, choice),), {}, ())
    with unpacked(path) as folder:
        return _folder(scan(folder), folder)


def _file(path: Path, choice: Choice) -> Finding:
    head = (path.name, ".", "", "", None, None, 1)
    try:
        volume, side = read_image(path, choice)
    except ValueError as error:
        return Finding(*head, None, None, None, Side.UNKNOWN, str(error))
    spacing = _rounded(volume.spacing_mm)
    plane = acquired_plane(volume.affine)
    return Finding(*head, volume.shape, spacing, plane, side, "")


def _folder(found: Scan, folder: Path) -> Inspection:
    skipped: dict[str, int] = {}
    for _, reason in found.skipped:
        skipped[reason] = skipped.get(reason, 0) + 1
    findings = tuple(_echo(series, echo, folder) for series in found.series for echo in series.echoes)
    return Inspection(findings, skipped, tuple(map(str, found.broken)))


def _echo(series: Series, echo: Echo, folder: Path) -> Finding:
    place = Path(os.path.commonpath([frame.path.parent for frame in echo.frames])).relative_to(folder).as_posix()
    head = (str(series.number), place, series.uid, series.description, echo.number, echo.time_ms, len(echo.frames))
    try:
        grid = regular_grid(echo.frames)
    except DicomError as error:
        return Finding(*head, None, None, None, Side.UNKNOWN, str(error))
    spacing = _rounded(np.linalg.norm(grid.affine[:3, :3], axis=0))
    return Finding(*head, grid.shape, spacing, acquired_plane(grid.affine), grid.side, "")


def _rounded(spacing: np.ndarray) -> tuple[float, float, float]:
    first, second, third = spacing.round(4).tolist()
    return first, second, third


def rows(inspection: Inspection, path: Path) -> Iterator[dict[str, object]]:
    """Findings for JSON, their paths from where `path`, which was looked at, is seen."""
    for one in inspection.findings:
        plane = one.plane and one.plane.value
        yield vars(one) | {"path": str(path / one.path), "plane": plane, "side": one.side.value}
