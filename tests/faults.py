"""A process that is killed at a chosen moment, without a process: Python's own audit events stop what changes files.

From the chosen change on no thread opens for writing, renames, makes or removes anything below a folder any more,
until the block ends: what is on the disk then is what a kill at that moment leaves. What compiled libraries write by
themselves (OpenCV, SimpleITK, HDF5) goes on, as it lies in folders that do not count before they are renamed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.utime",
           "shutil.rmtree"}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """What a killed process would not have lived to see."""


class _Watch:
    """Counts changes below a folder, and lets none happen from a number on."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.last: int | None = None
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or not self._changes(event, arguments):
            return
        with self._lock:
            self.count += 1
            if self.last is not None and self.count >= self.last:
                raise Killed(f"{event} {arguments}")

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & WRITING:
                return False
        elif event not in CHANGES:
            return False
        return any(isinstance(one, str | os.PathLike) and os.fspath(one).startswith(str(self.folder))
                   for one in arguments[:2])  # fmt: skip


_watch = _Watch()
_hooked: list[bool] = []


@contextmanager
def watched(folder: Path, last: int | None = None) -> Iterator[_Watch]:
    """Count the changes of files below a folder; let none happen from the change of the number `last` on."""
    if not _hooked:
        sys.addaudithook(lambda event, arguments: _watch(event, arguments))  # a hook cannot be taken away again
        _hooked.append(True)
    _watch.folder, _watch.last, _watch.count = str(folder), last, 0
    try:
        yield _watch
    finally:
        _watch.folder = None


def changes_of(work: Callable[[], object], folder: Path) -> int:
    """How many changes of files below a folder some work makes."""
    with watched(folder) as watch:
        work()
    return watch.count


def killed_at(number: int, work: Callable[[], object], folder: Path) -> None:
    """Do some work until it is about to make its change of this number, counted from 1."""
    with watched(folder, number) as watch:
        try:
            work()
        except BaseException:
            if watch.count < number:
                raise


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of finished knees; not of pictures, in which a few pixels may differ by a grey level."""
    files = [path for case in folder.glob("[!.]*/") for path in case.rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix != ".png"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
