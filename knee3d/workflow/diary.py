"""What happened, as JSON objects in a file, one a line; later runs add to it, and other processes at the same time."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knee3d.lease import in_turn


class Diary:
    """A file of JSON lines that is added to, each line at once and under a lease: NFS appends for one machine only."""

    def __init__(self, path: Path) -> None:
        """Choose the file, which need not be there.

        Raises:
            ValueError: The file is there and holds something else.
            OSError: It cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            with path.open("rb") as file:
                if file.read(1) not in (b"", b"{"):
                    raise ValueError(f"{path} is there and is no log of knee3d; give another --log")
        path.open("a").close()
        self._path = path
        self._start = time.monotonic()

    def note(self, **content: Any) -> None:
        """Add a line: what is given, the time of day, and the seconds since the beginning."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        when = {"time": now, "at_s": round(time.monotonic() - self._start, 1)}
        # On a full disk the knees' own errors say so.
        with suppress(OSError), in_turn(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(when | content) + "\n")
