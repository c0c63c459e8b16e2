"""Colour maps of the page: the same for voxels, surfaces and colour bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme

THICKNESS_MM = (0.0, 5.0)
"""The same for all knees, so that two pages can be compared; thicker is drawn as the end of the bar."""
BARE = (150, 154, 160)
"""Of bone without cartilage."""
NOTHING, FIRST, LAST = 0, 1, 255
"""Bytes of a map: nothing, the low end, the high end."""
BAR_STOPS = 16


@dataclass(frozen=True)
class ColourMap:
    """How a map is drawn.

    Attributes:
        title: Heading of its bar.
        unit: Of its numbers, empty for shares.
        low: Number at the start of the bar; what is less is not shown.
        high: Number at its end; what is more looks the same.
        palette: Name of one of matplotlib's.
        smooth: Whether values between voxels mean anything: a probability has some, a thickness ends at a border.
    """

    title: str
    unit: str
    low: float
    high: float
    palette: str
    smooth: bool

    @property
    def colours(self) -> np.ndarray:
        """(256, 4) uint8, RGBA of each byte; the first is clear."""
        table = np.zeros((256, 4), dtype=np.uint8)
        table[FIRST:] = matplotlib.colormaps[self.palette](np.linspace(0, 1, LAST), bytes=True)
        return table

    def bytes_of(self, values: np.ndarray) -> np.ndarray:
        """Numbers to bytes: NaN, 0 and less than `low` to `NOTHING`, then `FIRST` at `low` to `LAST` at `high`."""
        known = np.isfinite(values) & (values != 0) & (values >= self.low)
        share = np.clip((np.where(known, values, self.low) - self.low) / (self.high - self.low), 0, 1)
        return np.where(known, FIRST + np.rint(share * (LAST - FIRST)), NOTHING).astype(np.uint8)


THICKNESS = ColourMap("Thickness", "mm", *THICKNESS_MM, "viridis", smooth=False)
COLOUR_MAPS = {
    "probability": ColourMap("Probability of tissue", "", 0.05, 1.0, "plasma", smooth=True),
    "disagreement": ColourMap("Views that disagree", "", 0.0, 1.0, "cool", smooth=True),
    "thickness": THICKNESS,
}


def find_colour_map(name: str, volume: Volume) -> ColourMap:
    """That of a known name; others run from 0, or their least, to their most."""
    if name in COLOUR_MAPS:
        return COLOUR_MAPS[name]
    values = volume.array[np.isfinite(volume.array)]
    low, high = (min(0.0, float(values.min())), float(values.max())) if values.size else (0.0, 1.0)
    return ColourMap(name.capitalize(), "", low, high if high > low else low + 1, "cividis", smooth=True)


def page_css(scheme: LabelScheme, looks: Mapping[str, ColourMap]) -> str:
    """The CSS that colours swatches of tissues and bars of looks: a strict policy allows no style attributes."""
    swatches = (f".tissue-{number}{{background:rgb{one.colour}}}" for number, one in enumerate(scheme.tissues, start=1))
    bars = (f"#bar-{name} .ramp{{background:{_ramp(look)}}}" for name, look in looks.items())
    return "".join([*swatches, *bars])


def _ramp(look: ColourMap) -> str:
    stops = look.colours[[FIRST + round(n * (LAST - FIRST) / (BAR_STOPS - 1)) for n in range(BAR_STOPS)], :3]
    return f"linear-gradient(90deg,{','.join('#{:02x}{:02x}{:02x}'.format(*stop) for stop in stops.tolist())})"
