"""CaseResult: the result of one knee of many. Errors of one knee and errors that stop all of them. The run log."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from knee3d.atomic import NO_ROOM
from knee3d.lease import wait_for_lease
from knee3d.records import Record

_LEAST_ROOM = 1 << 16
AnyRecord = TypeVar("AnyRecord", bound=Record, covariant=True)


@dataclass(frozen=True)
class CaseResult(Generic[AnyRecord]):
    """The result of one knee of many.

    Attributes:
        case: The name of the knee.
        status: "done", "kept" (it was finished before, or by another process) or "failed".
        message: Why it failed, in one line; empty where it did not fail.
        record: The record that was written: a `SegmentationRecord` of `segment`, a `ReportRecord` of `make_reports`.
            None where it failed.
    """

    case: str
    status: str
    message: str = ""
    record: AnyRecord | None = None


class DiskFullError(OSError):
    """The disk is full: no knee can be written."""


@contextmanager
def checking_disk_space(out: Path) -> Iterator[None]:
    """Tell errors of a full disk from a knee's own, while what fills it is still there; not every library says so.

    Raises:
        DiskFullError: There was an error, and there is no room.
    """
    try:
        yield
    except Exception as error:
        if (isinstance(error, OSError) and error.errno in NO_ROOM) or shutil.disk_usage(out).free < _LEAST_ROOM:
            raise DiskFullError(f"no room left in {out}; finished knees stay: make room and run it again") from error
        raise


def check_writable(out: Path) -> None:
    """Refuse a place where nothing can be written, before hours go into what would be.

    Raises:
        ValueError: The folder, or the nearest one above it that is there, is read-only, full, or no folder; or bytes of
            its name are not UTF-8, which not every library can write to.
    """
    if not is_utf8_name(out):
        raise ValueError(f"the name of {ascii(str(out))} is not UTF-8; give another --out")
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is no folder; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"nothing can be written in {there}: it is read-only; give another --out")
    if shutil.disk_usage(there).free < _LEAST_ROOM:
        raise ValueError(f"no room left in {there}; make room, or give another --out")


def is_utf8_name(path: Path) -> bool:
    """Whether the name of a file is text, and not only bytes, as an old system may have written it."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def one_line_error(error: BaseException) -> str:
    """What went wrong, for one knee of many."""
    if isinstance(error, MemoryError):
        return "out of memory; give fewer --jobs"
    words = " ".join(str(error).split())
    if words and isinstance(error, ValueError | OSError | RuntimeError):
        return words
    return f"{type(error).__name__} {words}; please report it"


class RunLog:
    """A file of JSON lines that is added to, each line at once and under a lease: NFS appends for one machine only."""

    def __init__(self, path: Path) -> None:
        """Choose the file, which need not be there, in a folder that is.

        Raises:
            ValueError: The file is there and holds something else.
            OSError: It cannot be written.
        """
        with path.open("a+b") as file:
            file.seek(0)
            if file.read(1) not in (b"", b"{"):
                raise ValueError(f"{path} is there and is no log of knee3d; give another --out")
        self._path = path
        self._start = time.monotonic()

    def note(self, **content: Any) -> None:
        """Add a line: what is given, the time of day, and the seconds since the beginning."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        when = {"time": now, "at_s": round(time.monotonic() - self._start, 1)}
        # On a full disk the knees' own errors say so.
        with suppress(OSError), wait_for_lease(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(when | content) + "\n")
