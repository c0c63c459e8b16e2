"""Write the page of a knee as one HTML file."""

from __future__ import annotations

from pathlib import Path

from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.morphometry.measurement import WHOLE
from knee3d.report.page.colour_maps import THICKNESS, find_colour_map, page_css
from knee3d.report.page.content import KneePage
from knee3d.report.page.scene import make_scene
from knee3d.report.page.tables import confusion_rows, measures_tables
from knee3d.report.tables import format_number, write_text
from knee3d.report.templates import load_template

SIDES = {Side.RIGHT: "Right knee", Side.LEFT: "Left knee", Side.UNKNOWN: "Side not known"}
LAYOUTS = {"together": "Planes and 3D", **{plane.value: plane.value.capitalize() for plane in Plane}, "solid": "3D"}


def write_page(page: KneePage, path: Path) -> None:
    """Write one file that opens from disk, in any browser, without a network.

    Args:
        page: What to show.
        path: Of the HTML file. It appears whole or not at all.
    """
    write_text(render_page(page), path)


def render_page(page: KneePage) -> str:
    """The file's text; the same page gives the same text."""
    looks = {"surfaces": THICKNESS} | {
        f"map-{number}": find_colour_map(*one) for number, one in enumerate(page.maps.items())
    }
    return load_template(
        "page.html.j2",
        page=page,
        side=SIDES[Side(page.side)],
        tissues=page.scheme.names,
        layouts=LAYOUTS,
        looks=looks,
        colours=page_css(page.scheme, looks),
        spoken=_spoken(page),
        measures=measures_tables(page.measures, page.scheme.names),
        scored=list(dict.fromkeys(tissue for view in (page.scores or {}).values() for tissue in view)),
        confusion={view: confusion_rows(scores) for view, scores in (page.confusion or {}).items()},
        scene=make_scene(page),
    )


def _spoken(page: KneePage) -> str:
    """What a blind reader hears instead of the picture."""
    volumes = {one.tissue: one.value for one in page.measures if (one.region, one.measure) == (WHOLE, "volume")}
    names = (
        f"{name} ({format_number(volumes[name], 0)} mm³)" if volumes.get(name, 0) > 0 else name
        for name in page.scheme.names
    )
    side = {Side.RIGHT: "right knee", Side.LEFT: "left knee"}.get(Side(page.side), "knee")
    what = "MR image" if page.image is not None else "Labels"
    return f"{what} of the {side} in three planes and 3D, with {', '.join(names)}. The tables below give all numbers."
