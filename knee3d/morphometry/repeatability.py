"""Repeatability of measures from pairs of measurements: bias, RMS-CV, SDC, ICC.

The sources: Bland and Altman 1999 (Stat Methods Med Res 8:135) for bias and limits of agreement, Carkeet 2015 (Optom
Vis Sci 92:e71) for the exact intervals of those limits, Gluer et al. 1995 (Osteoporos Int 5:262) for root mean squares
of precision errors, Weir 2005 (J Strength Cond Res 19:231) for the error of measurement and the smallest detectable
change, Shrout and Fleiss 1979 (Psychol Bull 86:420) for the intraclass correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from knee3d.morphometry.measurement import Measurement

Z = 1.96
"""Of 95 % of a normal distribution, rounded as the sources have it."""
LOW, HIGH = 0.025, 0.975

Interval = tuple[float, float]
Quantity = tuple[str, str, str]
"""Tissue, region and measure: what is compared."""
_UNKNOWN: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class RepeatabilityStatistics:
    """How well one measure repeats, from pairs of knees; in its unit where nothing else is said.

    Attributes:
        pairs: With both values known.
        left_out: Where one or both are not.
        mean: Of all values.
        bias: Mean of second minus first.
        bias_interval: 95 %, of Student's t.
        sd: Standard deviation of the differences.
        limits: Bias minus and plus 1.96 `sd`: the 95 % limits of agreement.
        lower_interval: 95 % interval of the lower limit, see `limits_of_agreement_interval`.
        upper_interval: Of the upper limit.
        rms_sd: See there.
        rms_cv: See there; in percent.
        sem: Standard error of measurement: the standard deviation within a knee, `sd` / sqrt(2), without bias.
        sdc: Smallest detectable change at 95 %, 1.96 sqrt(2) `sem`.
        sdc_interval: 95 %, of the chi-square distribution: few pairs say little about it.
        icc: See there.

    What the pairs do not suffice for is NaN: with one pair all but bias, mean, `rms_sd` and `rms_cv`, with none all.
    """

    pairs: int
    left_out: int
    mean: float
    bias: float
    bias_interval: Interval
    sd: float
    limits: Interval
    lower_interval: Interval
    upper_interval: Interval
    rms_sd: float
    rms_cv: float
    sem: float
    sdc: float
    sdc_interval: Interval
    icc: float


def repeatability_statistics(first: np.ndarray, second: np.ndarray) -> RepeatabilityStatistics:
    """Compare measures with their repetition.

    Args:
        first: (knees,) floats; NaN where not known. Knees are taken as independent of each other.
        second: The same knees measured again.

    Raises:
        ValueError: They are not as many, or one is infinite.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or np.isinf([first, second]).any():
        raise ValueError(f"pairs are two rows of as many finite numbers, got shapes {first.shape} and {second.shape}")
    known = ~np.isnan(first + second)
    values = np.stack([first[known], second[known]], axis=1)
    pairs = len(values)
    differences = values[:, 1] - values[:, 0]
    bias = _mean(differences)
    sd = float(differences.std(ddof=1)) if pairs > 1 else float("nan")
    sem = sd / np.sqrt(2)
    sdc = float(Z * np.sqrt(2) * sem)
    lower, upper = limits_of_agreement_interval(bias, sd, pairs)
    return RepeatabilityStatistics(
        pairs=pairs,
        left_out=len(first) - pairs,
        mean=_mean(values),
        bias=bias,
        bias_interval=_bias_interval(bias, sd, pairs),
        sd=sd,
        limits=(bias - Z * sd, bias + Z * sd),
        lower_interval=lower,
        upper_interval=upper,
        rms_sd=rms_sd(values),
        rms_cv=rms_cv(values),
        sem=float(sem),
        sdc=sdc,
        sdc_interval=_spread_interval(sdc, pairs),
        icc=icc(values),
    )


def rms_sd(values: np.ndarray) -> float:
    """Root mean square over knees of the standard deviation of a knee's two values, |a - b| / sqrt(2).

    A bias between first and second counts in it.

    Args:
        values: (knees, 2) floats.

    Returns:
        In the unit of the values; NaN without knees.
    """
    return float(np.sqrt(_mean((values[:, 0] - values[:, 1]) ** 2 / 2)))


def rms_cv(values: np.ndarray) -> float:
    """Root mean square over knees of the coefficient of variation: a knee's standard deviation over its mean.

    Args:
        values: (knees, 2) floats.

    Returns:
        In percent; NaN without knees, and where a knee's mean is not above 0: a part of nothing is not defined, and
        leaving that knee out would flatter the others.
    """
    means = values.mean(axis=1)
    if not (means > 0).all():
        return float("nan")
    return float(100 * np.sqrt(_mean((values[:, 0] - values[:, 1]) ** 2 / 2 / means**2)))


def icc(values: np.ndarray) -> float:
    """Intraclass correlation ICC(2,1) of Shrout and Fleiss 1979: knees and sessions random, absolute agreement.

    A bias between sessions lowers it. It says how well knees can be told apart, and grows with how different they are.

    Args:
        values: (knees, sessions) floats.

    Returns:
        At most 1; NaN with fewer than two knees, and where all values are the same.
    """
    knees, sessions = values.shape
    if knees < 2:
        return float("nan")
    mean = values.mean()
    rows, columns = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - rows[:, None] - columns
    between = sessions * (rows @ rows) / (knees - 1)
    of_sessions = knees * (columns @ columns) / (sessions - 1)
    error = (rest**2).sum() / (knees - 1) / (sessions - 1)
    whole = between + (sessions - 1) * error + sessions * (of_sessions - error) / knees
    return float((between - error) / whole) if whole > 0 else float("nan")


def limits_of_agreement_interval(bias: float, sd: float, pairs: int) -> tuple[Interval, Interval]:
    """95 % intervals of the lower and of the upper limit of agreement, exact for normal differences (Carkeet 2015).

    The distance of a limit from the bias, in standard errors, follows a noncentral t distribution. The interval of
    Bland and Altman 1999, limit +- t sqrt(3 / n) sd, comes near it with many pairs; with few it is too narrow away from
    the bias and too wide toward it.

    Args:
        bias: Mean difference.
        sd: Standard deviation of the differences.
        pairs: How many.

    Returns:
        Lower and upper limit's (low, high); NaN with fewer than two pairs.
    """
    if pairs < 2:
        return _UNKNOWN, _UNKNOWN
    root = np.sqrt(pairs)
    near, far = (float(special.nctdtrit(pairs - 1, Z * root, share)) * sd / root for share in (LOW, HIGH))
    return (bias - far, bias - near), (bias + near, bias + far)


def _bias_interval(bias: float, sd: float, pairs: int) -> Interval:
    if pairs < 2:
        return _UNKNOWN
    half = float(special.stdtrit(pairs - 1, HIGH)) * sd / np.sqrt(pairs)
    return float(bias - half), float(bias + half)


def _spread_interval(spread: float, pairs: int) -> Interval:
    """95 % interval of a multiple of a standard deviation that pairs gave."""
    if pairs < 2:
        return _UNKNOWN
    low, high = (float(spread * np.sqrt((pairs - 1) / special.chdtri(pairs - 1, share))) for share in (LOW, HIGH))
    return low, high


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def pair_measurements(
    pairs: Sequence[tuple[Sequence[Measurement], Sequence[Measurement]]],
) -> dict[Quantity, tuple[np.ndarray, np.ndarray]]:
    """What knees were measured twice, by what was measured.

    Args:
        pairs: Of each knee its measures, and those of the second time.

    Returns:
        To the values of all knees, (knees,) float64 twice, NaN where a knee lacks one.
    """
    tables = [[{_quantity(one): one.value for one in measures} for measures in pair] for pair in pairs]
    quantities = dict.fromkeys(quantity for pair in tables for table in pair for quantity in table)
    return {
        quantity: (
            np.array([first.get(quantity, np.nan) for first, _ in tables]),
            np.array([second.get(quantity, np.nan) for _, second in tables]),
        )
        for quantity in quantities
    }


def _quantity(measure: Measurement) -> Quantity:
    return measure.tissue, measure.region, measure.measure
