"""Change of a knee between two visits, compared with the smallest detectable change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from knee3d.morphometry.measurement import Measurement
from knee3d.morphometry.repeatability import Quantity, pair_measurements

ROUNDING = 1e-6
"""Part of a value that says nothing: files hold the size of voxels as float32."""


@dataclass(frozen=True)
class SmallestDetectableChange:
    """The smallest change that can be told from error, see `RepeatabilityStatistics.sdc`.

    Attributes:
        sdc: It; NaN where pairs do not suffice.
        low: Lower end of its 95 % interval.
        high: Upper end.
        pairs: That it is from.
    """

    sdc: float
    low: float
    high: float
    pairs: int


class ChangeVerdict(StrEnum):
    """Whether a change is beyond error; narrowly is within the interval of the smallest detectable change."""

    BEYOND = "beyond error"
    JUST_BEYOND = "beyond error, narrowly"
    JUST_WITHIN = "within error, narrowly"
    WITHIN = "within error"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class MeasurementChange:
    """One measure of a knee, at baseline and at follow-up.

    Attributes:
        quantity: What was measured.
        baseline: NaN where not known.
        followup: NaN where not known.
    """

    quantity: Quantity
    baseline: float
    followup: float

    @property
    def change(self) -> float:
        """Follow-up minus baseline: negative is a loss."""
        return self.followup - self.baseline

    @property
    def percent(self) -> float:
        """The change in percent of baseline; NaN where that is 0."""
        return 100 * self.change / self.baseline if self.baseline else float("nan")

    def verdict(self, smallest: SmallestDetectableChange | None) -> ChangeVerdict:
        """Whether it can be told from error; unknown where the error is not known."""
        size = abs(self.change)
        if size <= ROUNDING * abs(self.baseline):
            size = 0.0
        if smallest is None or np.isnan(size) or not smallest.sdc > 0:  # no error at all is none that was measured
            return ChangeVerdict.UNKNOWN
        if size > smallest.sdc:
            return ChangeVerdict.BEYOND if size > smallest.high else ChangeVerdict.JUST_BEYOND
        return ChangeVerdict.WITHIN if size < smallest.low or not size else ChangeVerdict.JUST_WITHIN


def measurement_changes(baseline: Sequence[Measurement], followup: Sequence[Measurement]) -> list[MeasurementChange]:
    """What has changed of a knee, for all that was measured at one visit or the other."""
    return [
        MeasurementChange(quantity, float(first[0]), float(second[0]))
        for quantity, (first, second) in pair_measurements([(baseline, followup)]).items()
    ]
