"""A knee's page as one HTML file."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from knee3d.anatomy.orientation import Side
from knee3d.atomic import whole_file
from knee3d.report.page.content import KneePage
from knee3d.report.page.panel import colours_style, viewer_section
from knee3d.report.page.scene import scene_of
from knee3d.report.page.shell import asset, document
from knee3d.report.page.tables import confusion_table, measures_tables, pairs_table, scores_table

SIDES = {Side.RIGHT: "Right knee", Side.LEFT: "Left knee", Side.UNKNOWN: "Side not known"}
NOT_A_DEVICE = "Research software, not a medical device: it does not replace the look of a physician."


def write_page(page: KneePage, path: Path) -> None:
    """Write one file that opens from disk, in any browser, without a network.

    Args:
        page: What to show.
        path: Of the HTML file. It appears whole or not at all.
    """
    text = html_of(page)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def html_of(page: KneePage) -> str:
    """The file's text; the same page gives the same text."""
    scene = scene_of(page)
    body = [
        '<a class="skip" href="#measures">Skip to the measures</a>',
        f"<header><h1>{escape(page.case)}</h1><p>{SIDES[Side(page.side)]}</p></header>",
        "<main>",
        flags_section(page.flags, page.unchecked),
        viewer_section(page, scene),
        _pictures(page.pictures),
        _section("measures", "Measures", _measures(page)),
        _section("truth", "Against the truth", _truth(page)),
        _section("made", "How it was made", pairs_table("How it was made", page.made) if page.made else ""),
        f"</main><footer><p>{NOT_A_DEVICE}</p></footer>",
        f'<script type="application/json" id="scene">{_json(scene)}</script>',
    ]
    styles = [asset("page.css"), colours_style(page)]
    scripts = [asset("niivue.js"), asset("viewer.js")]
    return document(f"{page.case}, knee3d", "".join(body), styles, scripts)


def flags_section(flags: Sequence[str], unchecked: str) -> str:
    """What looks wrong, at the top, and what could not be looked at."""
    kind = "bad" if flags else "unchecked" if unchecked else "good"
    words = {0: "No flag was raised", 1: "One thing looks wrong"}.get(len(flags), f"{len(flags)} things look wrong")
    items = "".join(f"<li>{escape(flag)}</li>" for flag in flags)
    listed = f"<ul>{items}</ul>" if flags else ""
    said = f"<p>Not checked: {escape(unchecked)}.</p>" if unchecked else ""
    heading = f'<h2 id="flags">{words}</h2>'
    return f'<section class="flags {kind}" aria-labelledby="flags">{heading}{listed}{said}</section>'


def _section(name: str, heading: str, content: str) -> str:
    if not content:
        return ""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>{content}</section>'


def _measures(page: KneePage) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    bear = f'<div class="notes"><h3>To bear in mind</h3><ul>{notes}</ul></div>' if notes else ""
    return bear + measures_tables(page.measures, page.scheme)


def _truth(page: KneePage) -> str:
    matrices = (confusion_table(name, scores) for name, scores in (page.confusion or {}).items())
    folded = "".join(f"<details><summary>{_caption(one)}</summary>{one}</details>" for one in matrices)
    if not page.scores and not folded:
        return ""
    seen = f'<p class="message">{escape(page.seen)}</p>' if page.seen else ""
    return seen + (scores_table(page.scores) if page.scores else "") + folded


def _caption(table: str) -> str:
    return table.partition("<caption>")[2].partition("</caption>")[0]


def _pictures(pictures: Mapping[str, bytes]) -> str:
    """Below the viewer, which folds them when it is ready; on paper and without it they take its place."""
    if not pictures:
        return ""
    content = "".join(_picture(*one) for one in pictures.items())
    folded = f"<details open><summary>Pictures</summary>{content}</details>"
    return f'<section id="pictures" aria-label="Pictures">{folded}</section>'


def _picture(title: str, content: bytes) -> str:
    source = f"data:image/png;base64,{b64encode(content).decode('ascii')}"
    return f'<figure><img src="{source}" alt="{escape(title)}"><figcaption>{escape(title)}</figcaption></figure>'


def _json(scene: Mapping[str, Any]) -> str:
    """JSON that no HTML parser takes for the end of its element."""
    return json.dumps(scene, separators=(",", ":")).replace("<", "\\u003c")
