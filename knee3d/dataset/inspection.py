"""List the volumes that can be read from a path, and the problems of those that cannot."""

import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.dataset.intensity import check_one_knee, replace_padding
from knee3d.geometry.orientation import Side, acquired_plane, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.archive import extracted_archive
from knee3d.io.dicom.grid import SliceGrid, regular_grid
from knee3d.io.dicom.series import Echo, Series, check_complete, scan_folder
from knee3d.io.image_source import DEFAULT_OPTIONS, ReadOptions, read_image

log = logging.getLogger(__name__)


def inspect(path: Path, choice: ReadOptions = DEFAULT_OPTIONS) -> dict[str, Any]:
    """List what could be read from a folder of DICOM, a zip of it, or a volume file.

    Args:
        path: What a user may call an image.
        choice: Its spacing is used where a file has none, and whether images of any modality count; nothing is chosen.

    Returns:
        Ready for JSON: "skipped", reason to number of files; "broken", what is wrong with others; and "volumes", series
        by number and their echoes by time. Of each volume: its name (of the file, or the number of the series), path
        (of the file, or the folder of the series), uid, description (as the scanner wrote it, for eyes only: it may
        name a person), echo and time_ms (None for a file), images, shape (along the file's axes), spacing_mm, plane (in
        which slices were taken), side (as far as DICOM says), and the problem why it cannot be read; empty if it can.
        Of DICOM headers are read, and no pixel.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ArchiveError: A zip file is broken or hostile.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}")
    if path.is_file() and path.suffix.lower() != ".zip":
        head = {"name": path.name, "path": str(path), "uid": "", "description": "", "echo": None, "time_ms": None}
        volume = head | {"images": 1} | _place(lambda: _checked(path, choice))
        return {"volumes": [volume], "skipped": {}, "broken": []}
    with extracted_archive(path) as folder:
        found = scan_folder(folder, choice.any_modality)
        if found.remark:
            log.warning("%s: %s", path, found.remark)
        volumes = [_echo(series, echo, folder, path) for series in found.series for echo in series.echoes]
    skipped = dict(Counter(reason for _, reason in found.skipped))
    return {"volumes": volumes, "skipped": skipped, "broken": [str(error) for error in found.broken]}


def _checked(path: Path, choice: ReadOptions) -> tuple[Volume, Side]:
    """An image that can be segmented, and its side.

    Raises:
        ValueError: As `read_image` and `network_image`.
    """
    volume = read_image(path, choice)
    check_one_knee(replace_padding(to_canonical(volume)))
    return volume, volume.side


def _echo(series: Series, echo: Echo, folder: Path, path: Path) -> dict[str, Any]:
    """What is told of an echo of a series, whose files lie in a folder, which may be what `path` was unpacked to."""

    def grid() -> tuple[SliceGrid, Side]:
        found = regular_grid(echo.frames)
        check_complete(series)
        return found, found.side

    place = Path(os.path.commonpath([frame.path.parent for frame in echo.frames])).relative_to(folder)
    return {
        "name": str(series.number),
        "path": str(path / place),
        "uid": series.uid,
        "description": series.description,
        "echo": echo.number,
        "time_ms": echo.time_ms,
        "images": len(echo.frames),
        **_place(grid),
    }


def _place(find: Callable[[], tuple[Volume | SliceGrid, Side]]) -> dict[str, Any]:
    """Where a volume lies, or why that cannot be found."""
    try:
        found, side = find()
    except ValueError as error:
        return {"shape": None, "spacing_mm": None, "plane": None, "side": "", "problem": str(error)}
    spacing = np.linalg.norm(found.affine[:3, :3], axis=0).round(4)
    return {
        "shape": found.shape,
        "spacing_mm": tuple(spacing.tolist()),
        "plane": acquired_plane(found.affine).value,
        "side": side.value,
        "problem": "",
    }
