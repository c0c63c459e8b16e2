"""The tables of a page: measures and confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from knee3d.morphometry.measurement import UNITS, WHOLE, Measurement
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.report.tables import UNIT_SIGNS, format_number
from knee3d.report.templates import UNKNOWN

EXPLAINED = {
    "Volume": "The number of voxels with this label, times the volume of one voxel. With borders in part, a voxel at "
    "the border counts by its probability.",
    "Thickness": "Measured over the interface between bone and cartilage, where there is cartilage, weighted by area. "
    "P5 to P95 are percentiles.",
    "Area": "The area of the interface between bone and cartilage.",
}
"""What stands below a table of measures."""
DIGITS = {"mm3": 0, "mm2": 0, "mm": 2, "%": 1}
HEADINGS = {
    "volume": "Volume",
    "partial_volume": "Volume, borders in part",
    "thickness_mean": "Mean",
    "thickness_mean_tab": "Mean, bare bone as 0",
    "thickness_sd": "SD",
    "thickness_p5": "P5",
    "thickness_p25": "P25",
    "thickness_median": "Median",
    "thickness_p75": "P75",
    "thickness_p95": "P95",
    "covered_area": "Covered by cartilage",
    "subchondral_area": "Subchondral bone",
    "denuded_share": "Bare bone",
}
GROUPS = {
    "Volume": ("volume", "partial_volume"),
    "Thickness": tuple(name for name in UNITS if name.startswith("thickness")),
    "Area": ("covered_area", "subchondral_area", "denuded_share"),
}
"""Tables of measures, and the columns of each."""


class Row(NamedTuple):
    """What was measured of a tissue, or of a region of it."""

    tissue: str
    region: str
    cells: list[str]

    @property
    def whole(self) -> bool:
        """Whether it is the tissue and no region of it."""
        return self.region == WHOLE


class MeasuresTable(NamedTuple):
    """One of `GROUPS`: what stands above it, in its head, in its rows and below it."""

    caption: str
    head: list[str]
    rows: list[Row]
    explained: str


def measures_tables(measures: Sequence[Measurement], names: Sequence[str]) -> list[MeasuresTable]:
    """One table for each of `GROUPS` that something was measured of.

    Rows are tissues in the order of `names`, then their regions as they come; columns are measures with their units.
    """
    values = {(one.tissue, one.region, one.measure): one.value for one in measures}
    tissues = list(dict.fromkeys([*names, *(one.tissue for one in measures)]))
    tables = []
    for caption, group in GROUPS.items():
        columns = [name for name in group if any(name == one.measure for one in measures)]
        measured = dict.fromkeys((one.tissue, one.region) for one in measures if one.measure in columns)
        places = sorted(measured, key=lambda place: (tissues.index(place[0]), place[1] != WHOLE))
        if columns:
            head = [f"{HEADINGS[name]} ({UNIT_SIGNS[UNITS[name]]})" for name in columns]
            rows = [Row(*place, [_cell(name, values.get((*place, name))) for name in columns]) for place in places]
            tables.append(MeasuresTable(caption, ["Tissue", *head], rows, EXPLAINED[caption]))
    return tables


def _cell(measure: str, value: float | None) -> str:
    return format_number(value, DIGITS[UNITS[measure]], UNKNOWN)


def confusion_rows(scores: OverlapScores) -> dict[str, list[tuple[int, float]]]:
    """True class to count and percent of it for each found class; percents of a class without voxels are NaN."""
    return {
        true: [(count, 100 * count / sum(row) if any(row) else math.nan) for count in row]
        for true, row in zip(("background", *scores.names), scores.matrix.tolist(), strict=True)
    }
