"""The page of many knees, the worst first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knee3d.geometry.orientation import Side
from knee3d.report.tables import is_known, write_text
from knee3d.report.templates import load_template


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexRow:
    """One knee.

    Attributes:
        case: Its name.
        report: Path of its page, relative to this one.
        side: "R", "L", or "" where it is not known.
        flags: What looks wrong, in words.
        unchecked: Whether something could not be looked at, as its page says.
        inter_view_dice: Of the views, 0 to 1; NaN where it is not known.
        predictive_entropy: Of the networks, 0 to 1; NaN where it is not known.
        volumes_mm3: Tissue to volume.
        thickness_mm: Cartilage to mean thickness.
        thumbnail: Path of a picture, relative to this page; empty where there is none.
        seen: That the networks know this patient, in words; empty where they do not, as far as is known.

    Raises:
        ValueError: The side is none of these, or a path is not relative.
    """

    case: str
    report: str
    side: str = ""
    flags: Sequence[str] = ()
    unchecked: bool = False
    inter_view_dice: float = math.nan
    predictive_entropy: float = math.nan
    volumes_mm3: Mapping[str, float] = field(default_factory=dict)
    thickness_mm: Mapping[str, float] = field(default_factory=dict)
    thumbnail: str = ""
    seen: str = ""

    def __post_init__(self) -> None:
        if self.side not in set(Side):
            raise ValueError(f"side of {self.case!r} is 'R', 'L' or '' where it is not known, got {self.side!r}")
        for link in (self.report, self.thumbnail):
            if link.startswith("/"):
                raise ValueError(f"paths of {self.case!r} are relative to the page, got {link!r}")


def worst_first(rows: Iterable[IndexRow]) -> list[IndexRow]:
    """Most flags, then lowest agreement (what is not known comes last), then by name."""
    return sorted(
        rows,
        key=lambda row: (-len(row.flags), row.inter_view_dice if is_known(row.inter_view_dice) else math.inf, row.case),
    )


def write_index(rows: Sequence[IndexRow], path: Path, title: str = "Knees") -> None:
    """Write one HTML file with a table that sorts and filters itself.

    Args:
        rows: Of each knee, in any order.
        path: Of the HTML file. It appears whole or not at all.
        title: Heading.
    """
    volumes = list(dict.fromkeys(name for row in rows for name in row.volumes_mm3))
    thickness = list(dict.fromkeys(name for row in rows for name in row.thickness_mm))
    text = load_template("index.html.j2", heading=title, rows=worst_first(rows), volumes=volumes, thickness=thickness)
    write_text(text, path)
