"""What has changed of a knee between two visits, and whether that can be told from error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from knee3d.quantify.agreement import Quantity, paired
from knee3d.quantify.measures import Measure

ROUNDING = 1e-6
"""Part of a value that says nothing: files hold the size of voxels as float32."""


@dataclass(frozen=True)
class Smallest:
    """The smallest change that can be told from error, see `Agreement.sdc`.

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


class Verdict(StrEnum):
    """Whether a change is beyond error; narrowly is within the interval of the smallest detectable change."""

    BEYOND = "beyond error"
    JUST_BEYOND = "beyond error, narrowly"
    JUST_WITHIN = "within error, narrowly"
    WITHIN = "within error"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class Change:
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

    def verdict(self, smallest: Smallest | None) -> Verdict:
        """Whether it can be told from error; unknown where the error is not known."""
        size = abs(self.change)
        if size <= ROUNDING * abs(self.baseline):
            size = 0.0
        if smallest is None or np.isnan(size) or not smallest.sdc > 0:  # no error at all is none that was measured
            return Verdict.UNKNOWN
        if size > smallest.sdc:
            return Verdict.BEYOND if size > smallest.high else Verdict.JUST_BEYOND
        return Verdict.WITHIN if size < smallest.low or not size else Verdict.JUST_WITHIN


def changes(baseline: Sequence[Measure], followup: Sequence[Measure]) -> list[Change]:
    """What has changed of a knee, for all that was measured at one visit or the other."""
    return [
        Change(quantity, float(first[0]), float(second[0]))
        for quantity, (first, second) in paired([(baseline, followup)]).items()
    ]
