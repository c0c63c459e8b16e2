"""Extract zip archives of DICOM for as long as they are read."""

import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knee3d.atomic import NO_ROOM

_ENCRYPTED = 1  # a bit of a member's flags
# A study of a knee is some hundred MB; DICOM pixels shrink to a third, headers and empty slices to a hundredth.
LARGEST_BYTES = 4 << 30
MOST_FILES = 100_000
LARGEST_RATIO = 200


class ArchiveError(ValueError):
    """A zip file that is broken, or not to be trusted; the text names it and the way out."""


@contextmanager
def extracted_archive(path: Path) -> Iterator[Path]:
    """The folder that `path` is, or a temporary one with the contents of the zip file that it is.

    Args:
        path: A folder, or a zip file.

    Raises:
        ArchiveError: The archive is corrupt or encrypted, links elsewhere, or unpacks to absurd sizes; of the last two
            nothing is unpacked. Members whose names lead out of the folder are unpacked within it, as `zipfile` does.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="knee3d-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _check(path, archive.infolist())
                archive.extractall(folder)
        except ArchiveError:
            raise
        except Exception as error:  # zipfile and its decoders raise nearly anything on bad bytes
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            raise ArchiveError(f"{path.name} is not a readable zip file ({error}); fetch it again") from error
        yield Path(folder)


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise ArchiveError(f"{path.name} is encrypted: unpack it by hand and give the folder")
    if any(stat.S_ISLNK(member.external_attr >> 16) for member in members):
        raise ArchiveError(f"{path.name} has a member that is a link: unpack it by hand and give the folder")
    size, packed = (sum(getattr(member, name) for member in members) for name in ("file_size", "compress_size"))
    if len(members) > MOST_FILES or size > LARGEST_BYTES or (size > 1 << 26 and size > LARGEST_RATIO * packed):
        raise ArchiveError(
            f"{path.name} would unpack to {len(members)} files of {size / 1e9:.1f} GB from {packed / 1e9:.3f} GB: that "
            "is no knee; unpack by hand what is needed of it, and give the folder"
        )
