"""Measurement: a number with its unit, of a tissue or of a region of it."""

from dataclasses import dataclass

WHOLE = "whole"
"""Region of a measure that is of all of a tissue."""

UNITS = {
    "volume": "mm3",
    "partial_volume": "mm3",
    "thickness_mean": "mm",
    "thickness_mean_tab": "mm",
    "thickness_sd": "mm",
    "thickness_p5": "mm",
    "thickness_p25": "mm",
    "thickness_median": "mm",
    "thickness_p75": "mm",
    "thickness_p95": "mm",
    "covered_area": "mm2",
    "subchondral_area": "mm2",
    "denuded_share": "%",
}
"""Every measure that knee3d takes, and its unit.

volume: voxels of the labels times the volume of one. partial_volume: probabilities added up around the tissue.
thickness_mean: mean over the bone-cartilage interface where there is cartilage, weighted by area, as its spread and its
percentiles. thickness_mean_tab: the mean with bare bone within counted as 0 (ThCtAB of Eckstein et al. 2006).
covered_area: of the interface with cartilage (cAB). subchondral_area: with bare bone within (tAB). denuded_share: of
bare bone in that."""


@dataclass(frozen=True)
class Measurement:
    """One number.

    Attributes:
        tissue: Name of the tissue.
        region: Name of a part of it, or `WHOLE`.
        measure: Key of `UNITS`.
        value: In that unit; NaN where it is not known.

    Raises:
        ValueError: There is no such measure.
    """

    tissue: str
    region: str
    measure: str
    value: float

    def __post_init__(self) -> None:
        if self.measure not in UNITS:
            raise ValueError(f"unknown measure {self.measure!r}; there are: {', '.join(UNITS)}")

    @property
    def unit(self) -> str:
        """Of the value."""
        return UNITS[self.measure]
