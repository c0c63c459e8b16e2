"""The viewer's place on the page and its switches: form controls, which keyboards and screen readers know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from knee3d.anatomy.orientation import Side
from knee3d.quantify.measures import WHOLE
from knee3d.report.page.content import KneePage
from knee3d.report.page.looks import FIRST, LAST, THICKNESS, Look, look_of

BAR_STOPS = 16
TOGETHER, SOLID = "together", "solid"
LAYOUTS = {TOGETHER: "Planes and 3D", SOLID: "3D"}
HELP = (
    "Click or drag in a slice to move to that place; then scroll to go through slices. Drag in the 3D view to turn it. "
    "With the keyboard: arrows and Page Up, Page Down move by one voxel, with Shift by ten; in the 3D layout they turn."
)
NO_VIEWER = "The viewer needs JavaScript and WebGL2, which this browser does not offer."


def viewer_section(page: KneePage, scene: Mapping[str, Any]) -> str:
    """Canvas, switches and bars. Without a script, or WebGL2, it says so and points to the pictures."""
    where = " The pictures below show the knee." if page.pictures else ""
    switches = "".join([
        _fieldset("Tissues", _tissues(page)),
        _surfaces(page),
        _fieldset("Maps", _maps(page)) if page.maps else "",
        _fieldset("Opacity", _slider("labels", "Labels", 55) + (_slider("maps", "Maps", 85) if page.maps else "")),
    ])  # fmt: skip
    layouts = _fieldset("Layout", _radios("layout", _layouts(scene["planes"]), TOGETHER), "row")
    return (
        '<section id="viewer" aria-labelledby="viewer-h"><h2 id="viewer-h">The knee</h2>'
        f'<p id="no-viewer" class="message">{NO_VIEWER}{where}</p>'
        '<form id="switches" class="viewing" aria-label="What the viewer shows" hidden><div class="stage">'
        f'{layouts}<div class="screen">'
        f'<canvas id="canvas" tabindex="0" role="application" aria-label="{escape(_spoken(page))}" '
        f'aria-describedby="canvas-help">{escape(_spoken(page))}</canvas></div>'
        '<p id="place" class="place" role="status"></p>'
        f'<p id="canvas-help" class="hint">{HELP}</p>'
        f'<p class="hint">{escape(scene["done"])}</p></div>'
        f'<div class="switches">{switches}</div></form></section>'
    )


def colours_style(page: KneePage) -> str:
    """The rules that give swatches and bars their colours: a strict policy allows no style attributes."""
    rules = [
        f".tissue-{number}{{background:rgb{tissue.colour}}}"
        for number, tissue in enumerate(page.scheme.tissues, start=1)
    ]
    looks = {"surfaces": THICKNESS} | {f"map-{n}": look_of(*one) for n, one in enumerate(page.maps.items())}
    return "".join([*rules, *(f"#bar-{name} .ramp{{background:{_ramp(look)}}}" for name, look in looks.items())])


def _spoken(page: KneePage) -> str:
    """What a blind reader hears instead of the picture."""
    volumes = {one.tissue: one.value for one in page.measures if (one.region, one.measure) == (WHOLE, "volume")}
    names = (f"{name} ({volumes[name]:,.0f} mm³)" if volumes.get(name, 0) > 0 else name for name in page.scheme.names)
    side = {Side.RIGHT: "right knee", Side.LEFT: "left knee"}.get(Side(page.side), "knee")
    what = "MR image" if page.image is not None else "Labels"
    return f"{what} of the {side} in three planes and 3D, with {', '.join(names)}. The tables below give all numbers."


def _fieldset(legend: str, content: str, kind: str = "") -> str:
    return f'<fieldset class="{kind}"><legend>{escape(legend)}</legend>{content}</fieldset>'


def _layouts(planes: Sequence[str]) -> Iterable[tuple[str, str]]:
    yield TOGETHER, LAYOUTS[TOGETHER]
    yield from ((plane, plane.capitalize()) for plane in planes)
    yield SOLID, LAYOUTS[SOLID]


def _radios(name: str, choices: Iterable[tuple[str, str]], chosen: str) -> str:
    return "".join(
        f'<label><input type="radio" name="{name}" value="{escape(value)}"{" checked" * (value == chosen)}>'
        f"{escape(words)}</label>"
        for value, words in choices
    )


def _check(name: str, words: str, checked: bool, swatch: str = "") -> str:
    control = f'<input type="checkbox" name="{name}"{" checked" * checked}>'
    return f"<label>{control}{swatch}<span>{escape(words)}</span></label>"


def _tissues(page: KneePage) -> str:
    return "".join(
        _check(f"tissue-{number}", name, True, f'<i class="swatch tissue-{number}"></i>')
        for number, name in enumerate(page.scheme.names, start=1)
    )


def _surfaces(page: KneePage) -> str:
    choices = [("tissue", "Tissues")] * bool(page.meshes) + [("thickness", "Thickness")] * bool(page.thickness)
    if not choices:
        return ""
    bar = _bar("surfaces", THICKNESS, "Thickness on surfaces") if page.thickness else ""
    return _fieldset("Surfaces in 3D", _radios("surfaces", [*choices, ("none", "None")], choices[0][0]) + bar)


def _maps(page: KneePage) -> str:
    looks = ((number, look_of(*one)) for number, one in enumerate(page.maps.items()))
    return "".join(
        f"{_check(f'map-{number}', look.title, False)}{_bar(f'map-{number}', look, look.title)}"
        for number, look in looks
    )


def _slider(name: str, words: str, value: int) -> str:
    return f'<label class="slider">{words}<input type="range" name="{name}" min="0" max="100" value="{value}"></label>'


def _bar(name: str, look: Look, words: str) -> str:
    """A colour bar with its numbers; hidden until what it belongs to is shown."""
    unit = f" {look.unit}" if look.unit else ""
    ends = f"<span>{look.low:g}</span><span>{(look.low + look.high) / 2:.2g}</span><span>{look.high:g}{unit}</span>"
    return (
        f'<figure id="bar-{name}" class="bar" hidden><figcaption class="unseen">{escape(words)}: colours from '
        f"{look.low:g} to {look.high:g}{unit}</figcaption>"
        f'<div class="ramp"></div><div class="ends" aria-hidden="true">{ends}</div></figure>'
    )


def _ramp(look: Look) -> str:
    stops = look.colours[[FIRST + round(n * (LAST - FIRST) / (BAR_STOPS - 1)) for n in range(BAR_STOPS)], :3]
    return f"linear-gradient(90deg,{','.join('#{:02x}{:02x}{:02x}'.format(*stop) for stop in stops.tolist())})"
