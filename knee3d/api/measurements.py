"""Measurements: what was measured of one knee, as a table. `measure` computes them from any label map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knee3d.choices import check_type
from knee3d.geometry.box import bounding_box, box_intersection
from knee3d.geometry.orientation import Side, find_side
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.scheme_files import find_scheme

if TYPE_CHECKING:
    import pandas as pd

    from knee3d.morphometry.knee_measurements import KneeMeasurements
    from knee3d.morphometry.measurement import Measurement


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of one knee.

    Attributes:
        name: The name of the knee.
        side: The side of the knee; empty where it is not known.
        scheme: The meaning of the labels.
        found: The numbers, the surfaces that they were measured on, and notes.
    """

    name: str
    side: Side
    scheme: LabelScheme
    found: KneeMeasurements

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be measured, or only with a limit, in words."""
        return self.found.notes

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.found.measures)

    def to_frame(self) -> pd.DataFrame:
        """The measurements as a table in long form.

        Returns:
            Columns case, tissue, region, measure, unit (mm3, mm2, mm or %) and value (float64; NaN where not known).
        """
        import pandas as pd

        rows = [(self.name, one.tissue, one.region, one.measure, one.unit, float(one.value)) for one in self]
        return pd.DataFrame(rows, columns=["case", "tissue", "region", "measure", "unit", "value"])

    def to_json(self) -> str:
        """The measurements as JSON, as they stand in measures.json."""
        from knee3d.report.measures_files import measures_record

        return measures_record(self.name, self.side, self.scheme, self.found).to_json()

    def __repr__(self) -> str:
        tissues = list(dict.fromkeys(one.tissue for one in self))
        return f"Measurements({self.name!r}, {len(self.found.measures)} numbers of {', '.join(tissues) or 'no tissue'})"

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return str(self.to_frame().to_html(index=False, na_rep="-", float_format=lambda value: f"{value:,.3f}"))


def measure(
    labels: Volume,
    *,
    scheme: LabelScheme | Path | str,
    side: Side | str = Side.UNKNOWN,
    probabilities: Volume | None = None,
    name: str = "knee",
) -> Measurements:
    """Measure volumes, thickness and areas of a label map.

    Args:
        labels: (i, j, k) integers, classes of the scheme, in any order of axes.
        scheme: The meaning of the classes: a scheme, its name, such as "compartments", or a JSON file.
        side: "R" or "L". An unknown side is taken as right, and a note says so: medial and lateral depend on it.
        probabilities: (*part, classes) floats, or uint8 where 255 is 1, on a part of the labels' grid that holds all
            tissue. Surfaces are then found finer than voxels. None measures the labels alone.
        name: The name of the knee in tables.

    Returns:
        Volumes in mm3, areas in mm2, thickness in mm, of each tissue and of its subregions.

    Raises:
        TypeError: Labels are no volume, or the scheme is none.
        ValueError: Labels are not of the scheme, or probabilities lie on another grid, are of another number of
            classes, lie outside 0 to 1, or do not reach to all tissue.

    Example:
        >>> import numpy as np
        >>> labels = Volume(np.ones((4, 4, 4), np.uint8), np.diag([0.5, 0.5, 2.0, 1.0]))
        >>> measure(labels, scheme="cartilage", side="R").to_frame().value[0]
        np.float64(32.0)
    """
    from knee3d.morphometry.knee_measurements import measure_knee

    check_type("labels", labels, Volume)
    named = str(scheme) if isinstance(scheme, Path) else scheme
    known = named if isinstance(named, LabelScheme) else find_scheme(named)
    which = find_side(side)
    if probabilities is not None:
        _check_probabilities(probabilities, labels, known)
    return Measurements(name, which, known, measure_knee(labels, known, which, probabilities))


def _check_probabilities(probabilities: Volume, labels: Volume, scheme: LabelScheme) -> None:
    """Refuse probabilities from which no surface can be found.

    Raises:
        TypeError: They are no volume.
        ValueError: Says what they are.
    """
    check_type("probabilities", probabilities, Volume)
    array = probabilities.array
    if array.ndim != 4 or array.shape[3] != scheme.classes:
        raise ValueError(
            f"probabilities of {scheme.name} have a last axis of {scheme.classes} classes, got {array.shape}"
        )
    if array.dtype != np.uint8 and not (array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1 + 1e-5):
        raise ValueError("probabilities are uint8, or floats between 0 and 1; are these logits, or NaN?")
    box, tissue = labels.box_of(probabilities), bounding_box(labels.array > 0)
    if tissue is not None and box_intersection(box, tissue) != tissue:
        raise ValueError("probabilities must lie on a part of the labels' grid that holds all tissue")
