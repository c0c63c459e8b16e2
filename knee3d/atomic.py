"""Files and folders that appear whole or not at all."""

import errno
import glob
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk is full."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; what is written there is renamed to `path` if the block succeeds.

    The temporary name ends like the wanted one, for writers that choose a format by the ending. Missing parent folders
    are made. On an error the temporary file is removed and whatever stood at `path` stays; a full disk, of which the
    system does not say which, is said with the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        with _full_disk_named(path):
            yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it takes the place of `path` if the block succeeds.

    On an error, and after a kill at any moment, what stood at `path` is there again. A full disk is said with the path.
    Where several processes may write the folder, only the one that holds its lease may do so: what others have left of
    it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(path)
    partial = partial_of(path)
    partial.mkdir()
    try:
        with _full_disk_named(path):
            yield partial
        replace_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Give a folder another's name; what stood there is gone only when the new one stands there."""
    _put_back(path)
    if path.exists():
        path.rename(_old(path))  # removing it in place could be interrupted half-way
    try:
        new.rename(path)
    finally:
        _put_back(path)


def partial_of(path: Path) -> Path:
    """A new temporary name beside a file or folder; `remove_partial` removes what a killed process leaves there."""
    return path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")


def remove_partial(path: Path) -> None:
    """Remove what killed processes have left of a file or folder under other names, or put it back in its place."""
    for partial in path.parent.glob(f".partial-????????-{glob.escape(path.name)}"):
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    _put_back(path)


def _put_back(path: Path) -> None:
    """Undo the first of the two renames of `replace_folder` where there was no second; else remove what is old."""
    old = _old(path)
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".old-{path.name}")
