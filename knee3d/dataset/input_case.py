"""InputCase: a knee to be segmented. Find the knees of a path: one knee, a folder of knees, or a table."""

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from knee3d.dataset.discovery import NO_NAMES, discover_cases, file_stem, is_dicom_folder, safe_case_name
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import Side
from knee3d.io.image_source import DEFAULT_OPTIONS, ImageSource, ReadOptions
from knee3d.io.paths import files_read_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputCase:
    """A knee to be worked on.

    Attributes:
        case: What it is called in outputs; unique among those that came in together, and fit to be a folder's name.
        source: Where it is.
        patient: Pseudonym, where a table says it.
    """

    case: str
    source: ImageSource
    patient: str = ""


def find_cases(
    path: Path, case: str | None = None, side: Side = Side.UNKNOWN, choice: ReadOptions = DEFAULT_OPTIONS
) -> tuple[InputCase, ...]:
    """The knees that a path stands for.

    A table (.csv) stands for its rows; a file, a zip, or a folder with DICOM files of its own for one knee; any other
    folder for the knees that are found in it, see `discover_cases`, or for one if a case, a side or a series is given.

    Args:
        path: What the user points at.
        case: What a single knee is to be called; by default as its path, or the folder around a "dicom" or "image".
        side: Which knee it is.
        choice: What the path does not say; echo and spacing are those of all knees.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: The table is wrong, or no knee was found, or a case or side is given for several knees.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a knee, a folder of knees, or a table (knees.csv)")
    if path.suffix.lower() == ".csv":
        if case or side is not Side.UNKNOWN:
            raise ValueError(f"{path} names its knees and their sides itself; leave --case and --side out")
        knees = read_manifest(path, must_exist=False)
        choices = [replace(choice, series=knee.series or choice.series) for knee in knees]
        sources = [ImageSource(knee.image, knee.side, own) for knee, own in zip(knees, choices, strict=True)]
        return tuple(InputCase(knee.case, source, knee.patient) for knee, source in zip(knees, sources, strict=True))
    if case and safe_case_name(case) != case:
        raise ValueError(f"case {case!r} cannot be a folder's name; use letters, digits, '.', '_' and '-'")
    one = (InputCase(case or case_name(path), ImageSource(path, side, choice)),)
    if path.is_file() or is_dicom_folder(path) or choice.series is not None:
        return one
    discovery = discover_cases(path)
    found = discovery.knees
    if case or side is not Side.UNKNOWN:
        if len(found) > 1:
            raise ValueError(f"{path} holds {len(found)} knees; leave --case and --side out, or give one of them")
        place = path if found[0].image.is_dir() else found[0].image
        return (replace(one[0], source=replace(one[0].source, path=place)),)
    if discovery.without_knee:
        some = ", ".join(map(str, discovery.without_knee[:5]))
        log.warning("no knee is in %d folders with files: %s", len(discovery.without_knee), some)
    if len(found) == 1:
        is_series = found[0].image.is_dir()
        return (InputCase(one[0].case, ImageSource(path if is_series else found[0].image, found[0].side, choice)),)
    return tuple(InputCase(knee.case, ImageSource(knee.image, knee.side, choice)) for knee in found)


def content_fingerprint(path: Path) -> str:
    """A fingerprint of what a source holds, whatever its files are called.

    Args:
        path: What a user may call an image, see `files_read_for`.

    Raises:
        OSError: A file cannot be read, or there is none.
    """
    digests = sorted(file_digest(file) for file in files_read_for(path))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def stat_fingerprint(path: Path) -> str:
    """A fingerprint of the places, sizes and times of the files of an image. If it is the same, so is the content.

    Args:
        path: As `content_fingerprint` has it.

    Raises:
        OSError: There is no such file.
    """
    stats = [(str(one.absolute()), one.stat()) for one in sorted(files_read_for(path))]
    told = [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """A hash of what a file holds."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def case_name(path: Path) -> str:
    """What a path is called, or, where that is only what it holds, such as dicom, the nearest folder above it."""
    whole = Path(os.path.abspath(path))  # a link has its own name
    names = [whole.name if path.is_dir() else file_stem(whole), *(folder.name for folder in whole.parents)]
    return safe_case_name(next((name for name in names if name and name.lower() not in NO_NAMES), names[0]))
