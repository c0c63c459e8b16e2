"""Draw a knee with its labels: one slice of each plane, and the tissues in 3D."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from knee3d.atomic import whole_file
from knee3d.geometry.orientation import CANONICAL, axis_codes
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme, Tissue
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.report.rendering import BACKGROUND, RenderingError, render_labels

DPI = 150
ROW_INCHES = 4.2
RENDER_PIXELS = 700
FILL_OPACITY = 0.35
SCALE_BAR_MM = 20
_PAPER = "#{:02x}{:02x}{:02x}".format(*BACKGROUND)
_INK = "#e8ecf2"
_FAINT = "#8d97a6"
_GROUND = {"facecolor": _PAPER, "alpha": 0.6, "linewidth": 0, "pad": 1.2}
"""Behind words on the image, or bright tissue hides them; words with outlines would be words no longer in a PDF."""
_OPPOSITE = {"I": "S", "P": "A", "L": "R"}


def overview_figure(
    image: Volume,
    labels: Volume,
    scheme: LabelScheme,
    path: Path,
    title: str = "",
    truth: Volume | None = None,
) -> None:
    """A slice of each plane under its labels, the tissues in 3D, and how much of each there is.

    Each plane shows the slice with most tissue (of labels and truth together; the middle one if there is none), upright
    and in millimetres. Letters at the edges are the patient's directions in the array's frame: a left knee that was
    mirrored to right shows those of the mirror. With a truth there is a row for each, on the same slices.

    Args:
        image: uint8, three axes, canonical.
        labels: Integers in 0 to `scheme.classes` - 1, on the image's grid.
        scheme: Names and colours of the tissues.
        path: Where to write; the ending says the format (.png, .pdf).
        title: Heading, such as the name of the case.
        truth: Reference labels, on the image's grid.

    Raises:
        ValueError: The image is not uint8 or not canonical, or labels or truth do not fit it.
    """
    rows = {"labels": labels} if truth is None else {"prediction": labels, "truth": truth}
    with whole_file(path) as partial:
        _drawn(image, rows, scheme, title, solid=True).savefig(partial)


def mask_figure(image: Volume, mask: Volume, scheme: LabelScheme, path: Path, title: str = "") -> None:
    """As `overview_figure`, without the tissues in 3D, which take a second; small, for a sheet of many cases."""
    with whole_file(path) as partial:
        _drawn(image, {"mask": mask}, scheme, title, solid=False).savefig(partial, dpi=DPI / 2)


def _drawn(image: Volume, rows: dict[str, Volume], scheme: LabelScheme, title: str, solid: bool) -> Figure:
    _check(image, rows)
    figure, panels = _sheet(image, len(rows), solid)
    tissue = np.logical_or.reduce([row.array > 0 for row in rows.values()])
    with ThreadPoolExecutor(1) as renderer:  # which has its own process: the slices are drawn meanwhile
        pictures = [renderer.submit(_rendered, row, scheme) for row in rows.values() if solid]
        for axes, (name, row) in zip(panels, rows.items(), strict=True):
            for panel, plane in zip(axes, Plane, strict=False):
                _slice_panel(panel, image, row, scheme, (plane, _busiest(tissue, plane.axis)))
            if len(rows) > 1:
                axes[0].set_ylabel(name, color=_INK, fontsize=13, labelpad=10)
        _scale_bar(panels[0, 0])
        _legend(figure, scheme, [tissue_volumes(row, scheme) for row in rows.values()])
        for axes, picture, row in zip(panels, pictures, rows.values(), strict=False):
            _solid_panel(axes[3], picture.result(), bool(row.array.any()))
    figure.suptitle(title, color=_INK, fontsize=15)
    return figure


def _sheet(image: Volume, rows: int, solid: bool) -> tuple[Figure, np.ndarray]:
    """An empty figure and its (rows, 4) axes: three planes to scale and a square; without `solid` (rows, 3)."""
    heights, widths = np.transpose([_extent_mm(image, plane) for plane in Plane])
    widths = np.append(widths, heights.max()) if solid else widths
    figure = Figure(
        figsize=(ROW_INCHES * widths.sum() / heights.max() + 1.0, rows * (ROW_INCHES + 0.3) + 1.2),
        dpi=DPI,
        facecolor=_PAPER,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1, hspace=0.0, wspace=0.01),
    )
    return figure, figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths.tolist())


def _check(image: Volume, rows: dict[str, Volume]) -> None:
    if image.array.dtype != np.uint8 or image.array.ndim != 3:
        raise ValueError(f"the image must be uint8 with three axes, got {image.array.dtype} of {image.array.shape}")
    if axis_codes(image.affine) != CANONICAL:
        raise ValueError(f"the image runs {axis_codes(image.affine)}, not {CANONICAL}; pass it through to_canonical")
    for name, row in rows.items():
        if not image.same_grid(row):
            raise ValueError(f"{name} of shape {row.shape} are not on the grid of the image of shape {image.shape}")


def _busiest(tissue: np.ndarray, axis: int) -> int:
    counts = np.count_nonzero(tissue, axis=tuple({0, 1, 2} - {axis}))
    return int(counts.argmax()) if counts.any() else tissue.shape[axis] // 2


def _extent_mm(volume: Volume, plane: Plane) -> tuple[float, float]:
    """Height and width of a slice in mm."""
    sizes = np.delete(np.array(volume.shape) * volume.spacing_mm, plane.axis)
    return float(sizes[0]), float(sizes[1])


def _slice_panel(axes: Axes, image: Volume, labels: Volume, scheme: LabelScheme, where: tuple[Plane, int]) -> None:
    plane, number = where
    grey, classes = to_slices(image, plane)[number], to_slices(labels, plane)[number]
    height, width = _extent_mm(image, plane)
    extent = (0.0, width, height, 0.0)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear")
    y, x = ((np.arange(-1, n + 1) + 0.5) * mm / n for n, mm in zip(grey.shape, (height, width), strict=True))
    tint = np.zeros((*classes.shape, 4))
    for index, tissue in enumerate(scheme.tissues, start=1):
        mask, colour = classes == index, _rgb(tissue)
        if mask.any():
            tint[mask] = (*colour, FILL_OPACITY)
            axes.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=1.1)
    axes.imshow(tint, extent=extent, interpolation="nearest")
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _bare(axes, f"{plane.value}  {number + 1} / {image.shape[plane.axis]}")
    down, right = (letter for axis, letter in enumerate(CANONICAL) if axis != plane.axis)
    for x_edge, y_edge, letter in (
        (0.5, 0.975, _OPPOSITE[down]),
        (0.5, 0.025, down),
        (0.03, 0.5, _OPPOSITE[right]),
        (0.97, 0.5, right),
    ):
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(x_edge, y_edge, letter, color=_INK, fontsize=9, bbox=_GROUND, **place)


def _rendered(labels: Volume, scheme: LabelScheme) -> np.ndarray | None:
    try:
        return render_labels(labels, scheme, (RENDER_PIXELS, RENDER_PIXELS))
    except RenderingError:
        return None


def _solid_panel(axes: Axes, picture: np.ndarray | None, tissue: bool) -> None:
    _bare(axes, "3D  from the front, lateral" if tissue else "3D")
    words = "" if tissue else "no tissue"
    if picture is None:
        words = "no 3D rendering on this machine"
    else:
        axes.imshow(picture, interpolation="antialiased")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, color=_FAINT, ha="center", va="center", fontsize=11)


def _rgb(tissue: Tissue) -> tuple[float, float, float]:
    red, green, blue = tissue.colour
    return red / 255, green / 255, blue / 255


def _bare(axes: Axes, title: str) -> None:
    axes.set_facecolor(_PAPER)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, color=_FAINT, fontsize=10.5)


def _scale_bar(axes: Axes) -> None:
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    x, y = right * 0.95, bottom * 0.95
    for colour, width in ((_PAPER, 4), (_INK, 2)):
        axes.plot([x - SCALE_BAR_MM, x], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    words: dict[str, Any] = {"color": _INK, "ha": "center", "fontsize": 8, "bbox": _GROUND}
    axes.text(x - SCALE_BAR_MM / 2, y - 0.025 * bottom, f"{SCALE_BAR_MM} mm", **words)


def _legend(figure: Figure, scheme: LabelScheme, volumes: Sequence[np.ndarray]) -> None:
    handles = []
    for index, tissue in enumerate(scheme.tissues):
        amount = f"{volumes[0][index]:,.0f} mm\N{SUPERSCRIPT THREE}"
        if len(volumes) > 1:
            amount += f" (truth {volumes[1][index]:,.0f})"
        handles.append(Patch(color=_rgb(tissue), label=f"{tissue.name}   {amount}"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 3),
        frameon=False,
        labelcolor=_INK,
        fontsize=11,
    )
