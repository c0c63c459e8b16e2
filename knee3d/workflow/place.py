"""Where results go: never over what someone else put there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

MADE_BY = "knee3d"
"""Key that the JSON file of every result has, with the version: by it a folder is known as ours."""


def check_place(out: Path, record: str, others: Sequence[str]) -> None:
    """Refuse to replace files that were not written by the command whose record lies beside them.

    Args:
        out: The folder that is to be filled.
        record: Name of the JSON file that the command writes before all others.
        others: Names of these.

    Raises:
        ValueError: One of the files is there, and the record is not there or not ours.
    """
    there = [name for name in (record, *others) if (out / name).exists()]
    if there and not _is_ours(out / record):
        raise ValueError(f"{out / there[0]} is there and is not knee3d's; move it away, or give another --out")


def _is_ours(record: Path) -> bool:
    try:
        return MADE_BY in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
