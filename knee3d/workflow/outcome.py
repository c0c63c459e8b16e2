"""What became of one knee of many, and how to tell its own errors from those that stop them all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knee3d.atomic import NO_ROOM

_LEAST_ROOM = 1 << 16


@dataclass(frozen=True)
class Outcome:
    """What became of a knee.

    Attributes:
        case: Which.
        status: "done", "kept" (it was finished before, or by another process) or "failed".
        message: Why it failed, in a line.
        record: What segmentation.json holds; empty where it failed.
    """

    case: str
    status: str
    message: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


class NoRoom(OSError):
    """The disk is full: no knee can be written."""


@contextmanager
def watching_room(out: Path) -> Iterator[None]:
    """Tell errors of a full disk from a knee's own, while what fills it is still there; not every library says so.

    Raises:
        NoRoom: There was an error, and there is no room.
    """
    try:
        yield
    except Exception as error:
        if (isinstance(error, OSError) and error.errno in NO_ROOM) or shutil.disk_usage(out).free < _LEAST_ROOM:
            raise NoRoom(f"no room left in {out}; finished knees stay: make room and run it again") from error
        raise


def in_a_line(error: BaseException) -> str:
    """What went wrong, for one knee of many."""
    if isinstance(error, MemoryError):
        return "out of memory; give fewer --jobs"
    words = " ".join(str(error).split())
    if words and isinstance(error, ValueError | OSError | RuntimeError):
        return words
    return f"{type(error).__name__} {words}; please report it"
