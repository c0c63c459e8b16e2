"""What happened, as JSON objects in a file, one a line; later runs add to it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Diary:
    """A file of JSON lines that is added to, each line at once."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ValueError: The file is there and holds something else.
            OSError: It cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with path.open("rb") as file:
                if file.read(1) not in (b"", b"{"):
                    raise ValueError(f"{path} is there and is no log of knee3d; give another --log")
        self._file = path.open("a", encoding="utf-8")
        self._start = time.monotonic()

    def note(self, **content: Any) -> None:
        """Add a line: what is given, the time of day, and the seconds since the beginning."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        when = {"time": now, "at_s": round(time.monotonic() - self._start, 1)}
        with suppress(OSError):  # on a full disk the knees' own errors say so
            self._file.write(json.dumps(when | content) + "\n")
            self._file.flush()

    def __enter__(self) -> Diary:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()
