"""List the files that a path stands for: itself, all below it, or a header and its data."""

import glob
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from knee3d.io.text_header import read_header_fields

log = logging.getLogger(__name__)

NIFTI_HEADER = ".hdr"
HEADERS = (".nhdr", ".mhd", NIFTI_HEADER)
"""Endings of files whose voxels lie in a second file beside them."""


def folders_below(folder: Path, strict: bool = False) -> Iterator[Path]:
    """A folder and all below it, in alphabetical order; one to which several links lead comes once.

    Args:
        folder: Links to folders are followed.
        strict: Whether a folder that cannot be listed is an error; by default it is left out, and the log says so.

    Raises:
        OSError: A folder cannot be listed.
    """

    def unreadable(error: OSError) -> None:
        if strict:
            raise error
        log.warning("left out: %s cannot be listed (%s)", error.filename, error.strerror)

    seen = set()
    for place, below, _ in os.walk(folder, followlinks=True, onerror=unreadable):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above would never end
            below.clear()
            continue
        seen.add(real)
        below.sort()
        yield Path(place)


def files_below(folder: Path, strict: bool = False) -> list[Path]:
    """The files of a folder and of all below it, sorted; not hidden ones. Links that lead nowhere count as files.

    Args:
        folder: As `folders_below` has it.
        strict: As `folders_below` has it.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = (path for place in folders_below(folder, strict) for path in place.iterdir())
    named = (path for path in found if not path.name.startswith("."))
    return sorted(path for path in named if path.is_file() or (path.is_symlink() and not path.exists()))


def files_read_for(path: Path) -> list[Path]:
    """The files that are read where a user names a path: those below a folder, a file, or a header and its data."""
    if path.is_dir():
        return [one for one in files_below(path) if one.is_file()]
    if path.suffix.lower() not in HEADERS or not path.is_file():
        return [path]
    told = {} if path.suffix.lower() == NIFTI_HEADER else read_header_fields(path)
    named = path.parent / (told.get("elementdatafile") or told.get("datafile") or "")
    # Of a list or a pattern of files, each may be meant.
    beside = [named] if named.is_file() else path.parent.glob("*" if told else f"{glob.escape(path.stem)}.*")
    return sorted({path, *(one for one in beside if one.is_file() and not one.name.startswith("."))})
