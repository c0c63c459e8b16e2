"""Many knees on one page: the worst first, each with a link to its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from knee3d.anatomy.orientation import Side
from knee3d.atomic import whole_file
from knee3d.report.page.shell import asset, document
from knee3d.report.page.tables import UNKNOWN, number
from knee3d.report.page.writing import NOT_A_DEVICE

THUMBNAIL = (96, 72)
"""Width and height in pixels of the room that a thumbnail gets before it is loaded."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexRow:
    """One knee.

    Attributes:
        case: Its name.
        report: Path of its page, relative to this one.
        side: "R", "L", or "" where it is not known.
        flags: What looks wrong, in words.
        unchecked: Whether something could not be looked at, as its page says.
        agreement: Of the views, 0 to 1; NaN where it is not known.
        doubt: Of the networks, 0 to 1; NaN where it is not known.
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
    agreement: float = math.nan
    doubt: float = math.nan
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
        key=lambda row: (-len(row.flags), row.agreement if math.isfinite(row.agreement) else math.inf, row.case),
    )


def write_index(rows: Sequence[IndexRow], path: Path, title: str = "Knees") -> None:
    """Write one HTML file with a table that sorts and filters itself.

    Args:
        rows: Of each knee, in any order.
        path: Of the HTML file. It appears whole or not at all.
        title: Heading.
    """
    flagged, unchecked = sum(bool(row.flags) for row in rows), sum(row.unchecked for row in rows)
    count = f"{len(rows):,} {'knee' if len(rows) == 1 else 'knees'}, {flagged:,} with something to look at"
    count += f", {unchecked:,} of which not all was checked" if unchecked else ""
    body = (
        f'<a class="skip" href="#knees">Skip to the table</a><header><h1>{escape(title)}</h1><p>{count}</p></header>'
        f"<main>{_search()}{_table(rows)}</main><footer><p>{NOT_A_DEVICE}</p></footer>"
    )
    # Thumbnails are files beside the page: 'self' on a server, file: from disk.
    text = document(
        f"{title}, knee3d", body, [asset("page.css"), asset("index.css")], [asset("index.js")], "'self' file: data:"
    )
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _search() -> str:
    return (
        '<form class="search" role="search"><label for="filter">Filter by name, side or flag</label>'
        '<input type="search" id="filter" autocomplete="off" spellcheck="false">'
        '<label><input type="checkbox" id="flagged"><span>Only with something to look at</span></label>'
        '<p id="shown" role="status"></p></form>'
    )


def _table(rows: Sequence[IndexRow]) -> str:
    volumes = list(dict.fromkeys(name for row in rows for name in row.volumes_mm3))
    thickness = list(dict.fromkeys(name for row in rows for name in row.thickness_mm))
    pictures = any(row.thumbnail for row in rows)
    lines = "\n".join(_row(row, volumes, thickness, pictures) for row in worst_first(rows))
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Knees"><table id="knees" class="knees">'
        '<caption class="unseen">Knees, the worst first; the buttons in the head sort</caption>'
        f"<thead>{_heads(volumes, thickness, pictures)}</thead><tbody>{lines}</tbody></table></div>"
        '<p><button type="button" id="more" hidden>Show more</button></p>'
    )


def _heads(volumes: Sequence[str], thickness: Sequence[str], pictures: bool) -> str:
    """Two rows: tissues stand below what was measured of them. Each button knows the column it sorts."""
    count = itertools.count(int(pictures))
    first = ['<th scope="col" rowspan="2">Picture</th>'] if pictures else []
    first += [
        _head(words, kind, next(count), "descending" if words == "Flags" else "none", ' rowspan="2"')
        for words, kind in (("Case", ""), ("Side", ""), ("Flags", ""), ("Agreement", "number"), ("Doubt", "number"))
    ]
    second = []
    for words, names in (("Volume (mm³)", volumes), ("Mean thickness (mm)", thickness)):
        if names:
            first.append(f'<th scope="colgroup" class="group" colspan="{len(names)}">{words}</th>')
        second += [_head(name, "number", next(count)) for name in names]
    return f"<tr>{''.join(first)}</tr><tr>{''.join(second)}</tr>"


def _head(words: str, kind: str, column: int, order: str = "none", span: str = "") -> str:
    button = f'<button type="button" data-column="{column}">{escape(words)}</button>'
    return f'<th scope="col" class="{kind}" aria-sort="{order}"{span}>{button}</th>'


def _row(row: IndexRow, volumes: Sequence[str], thickness: Sequence[str], pictures: bool) -> str:
    link = escape(quote(row.report))  # quoted, it is a path whatever it holds: no "javascript:" gets through
    picture = ""
    if row.thumbnail:
        picture = (
            f'<a href="{link}" tabindex="-1" aria-hidden="true"><img src="{escape(quote(row.thumbnail))}" alt="" '
            f'loading="lazy" width="{THUMBNAIL[0]}" height="{THUMBNAIL[1]}"></a>'
        )
    flags = "".join(f"<p>{escape(flag)}</p>" for flag in row.flags)
    seen = f"<br><small>{escape(row.seen)}</small>" if row.seen else ""
    cells = [
        f'<th scope="row"><a href="{link}">{escape(row.case)}</a>{seen}</th>',
        f"<td>{row.side or UNKNOWN}</td>",
        f'<td class="said" data-value="{len(row.flags)}">{flags}</td>',
        _number(row.agreement, 3),
        _number(row.doubt, 3),
        *(_number(row.volumes_mm3.get(name, math.nan), 0) for name in volumes),
        *(_number(row.thickness_mm.get(name, math.nan), 2) for name in thickness),
    ]
    kind = ' class="flagged"' if row.flags else ""
    return f"<tr{kind}>{f'<td>{picture}</td>' if pictures else ''}{''.join(cells)}</tr>"


def _number(value: float, digits: int) -> str:
    return f'<td class="number" data-value="{value if math.isfinite(value) else ""}">{number(value, digits)}</td>'
