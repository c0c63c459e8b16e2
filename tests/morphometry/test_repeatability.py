"""How well measures repeat: against hand-worked examples, the papers' own numbers, and simulation."""

import numpy as np
import pytest
from scipy import stats

from knee3d.morphometry.change import ChangeVerdict, MeasurementChange, SmallestDetectableChange, measurement_changes
from knee3d.morphometry.measurement import WHOLE, Measurement
from knee3d.morphometry.repeatability import (
    icc,
    limits_of_agreement_interval,
    pair_measurements,
    repeatability_statistics,
    rms_cv,
    rms_sd,
)

VOLUME = ("femoral cartilage", WHOLE, "volume")


def test_four_knees_by_hand():
    """Differences 2, -2, 4, 0: mean 1, deviations 1, -3, 3, -1, so that their squares add up to 20."""
    found = repeatability_statistics([10, 20, 30, 40], [12, 18, 34, 40])
    assert (found.pairs, found.left_out) == (4, 0)
    assert found.mean == pytest.approx(204 / 8)
    assert found.bias == 1
    sd = (20 / 3) ** 0.5
    assert found.sd == pytest.approx(sd)
    assert found.limits == pytest.approx((1 - 1.96 * sd, 1 + 1.96 * sd))
    assert found.rms_sd == pytest.approx(((4 + 4 + 16 + 0) / 2 / 4) ** 0.5)
    squares = (2 / 11**2, 2 / 19**2, 8 / 32**2, 0)  # of each knee's standard deviation over its mean
    assert found.rms_cv == pytest.approx(100 * (sum(squares) / 4) ** 0.5)
    assert found.sem == pytest.approx((10 / 3) ** 0.5)
    assert found.sdc == pytest.approx(1.96 * 2**0.5 * (10 / 3) ** 0.5)
    assert found.sdc == pytest.approx((found.limits[1] - found.limits[0]) / 2)


def test_one_pair_says_what_one_pair_can():
    found = repeatability_statistics([10], [12])
    assert (found.pairs, found.bias, found.mean) == (1, 2, 11)
    assert found.rms_sd == pytest.approx(2**0.5)
    assert found.rms_cv == pytest.approx(100 * 2**0.5 / 11)
    unknown = (found.sd, found.sem, found.sdc, found.icc, *found.bias_interval, *found.limits, *found.lower_interval,
               *found.upper_interval, *found.sdc_interval)  # fmt: skip
    assert np.isnan(unknown).all()


def test_two_pairs_say_little():
    """Differences 1 and 3: their standard deviation is sqrt(2), and Student's t of one degree of freedom 12.706."""
    found = repeatability_statistics([10, 20], [11, 23])
    assert found.sd == pytest.approx(2**0.5)
    assert found.bias_interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert found.sdc_interval[1] > 30 * found.sdc
    assert np.isfinite([*found.upper_interval, found.icc]).all()


def test_no_pair_is_all_unknown():
    found = repeatability_statistics([], [])
    assert (found.pairs, found.left_out) == (0, 0)
    assert np.isnan([found.mean, found.bias, found.rms_sd, found.rms_cv, found.sdc, found.icc]).all()


def test_pairs_with_a_missing_value_are_left_out_and_counted():
    nan = np.nan
    found = repeatability_statistics([10, nan, 20, 30, nan, 40], [12, 5, 18, 34, nan, 40])
    assert (found.pairs, found.left_out) == (4, 2)
    assert found == repeatability_statistics([10, 20, 30, 40], [12, 18, 34, 40]).__class__(
        **(vars(repeatability_statistics([10, 20, 30, 40], [12, 18, 34, 40])) | {"left_out": 2})
    )


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1]), ([[1.0]], [[1.0]]), ([1, np.inf], [1, 2])])
def test_what_are_no_pairs_is_refused(first, second):
    with pytest.raises(ValueError, match="pairs are two rows"):
        repeatability_statistics(first, second)


def test_icc_of_shrout_and_fleiss_table_2():
    """Six targets, four judges; their table 4 has ICC(2,1) = .29."""
    ratings = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7.0]])
    assert icc(ratings) == pytest.approx(0.2898, abs=5e-5)


def test_icc_knows_bias_and_spread():
    values = np.array([[1, 1], [2, 2], [3, 3.0]])
    assert icc(values) == 1
    assert icc(values + [0, 1]) == pytest.approx(2 / 3)  # between 2, sessions 1.5, error 0: 2 / (2 + 2 * 1.5 / 3)
    assert icc(values + [0, 1]) < icc(values + [0, 0.1]) < 1
    assert np.isnan(icc(np.full((3, 2), 7.0)))
    assert np.isnan(icc(values[:1]))


def test_root_mean_squares_by_hand_and_without_a_scale():
    values = np.array([[100, 110], [200, 190.0]])
    assert rms_sd(values) == pytest.approx(50**0.5)
    assert rms_cv(values) == pytest.approx(100 * ((50 / 105**2 + 50 / 195**2) / 2) ** 0.5)
    assert np.isnan(rms_cv(np.array([[0, 0], [200, 190.0]])))  # a share of nothing


def test_a_bias_counts_in_the_root_mean_square_and_not_in_the_error_of_measurement():
    first = np.array([10.0, 20, 30])
    found = repeatability_statistics(first, first + 5)
    assert (found.sem, found.sdc, found.bias) == (0, 0, 5)
    assert found.rms_sd == pytest.approx(5 / 2**0.5)


def test_bland_and_altman_1999_blood_pressure():
    """Their figures: n = 85, bias -16.29, SD 19.61 give limits of -54.7 and 22.1; their intervals are +- 7.3 or so."""
    lower, upper = limits_of_agreement_interval(-16.29, 19.61, 85)
    half = stats.t.ppf(0.975, 84) * (3 * 19.61**2 / 85) ** 0.5
    assert lower == pytest.approx((-54.7 - half, -54.7 + half), abs=1.5)
    assert upper == pytest.approx((22.1 - half, 22.1 + half), abs=1.5)
    assert lower[1] + 54.73 < -54.73 - lower[0]  # the exact interval reaches further away from the bias


@pytest.mark.parametrize("pairs", [2, 3, 10, 100, 1000, 20_000])
def test_limits_intervals_are_those_of_the_noncentral_t(pairs):
    (far, near), upper = limits_of_agreement_interval(0, 1, pairs)
    assert (-near, -far) == pytest.approx(upper)
    t = np.multiply(upper, pairs**0.5)
    if pairs < 1000:
        np.testing.assert_allclose(stats.nct.cdf(t, pairs - 1, 1.96 * pairs**0.5), [0.025, 0.975], atol=1e-6)
    assert upper[0] < 1.96 < upper[1]


@pytest.mark.parametrize("pairs", [3, 12])
def test_intervals_hold_the_truth_in_95_of_100_studies(pairs):
    studies = np.random.default_rng(pairs).normal(0.5, 2, (3000, pairs))
    truth = {"bias": 0.5, "limit": 0.5 + 1.96 * 2, "sdc": 1.96 * 2}
    held = dict.fromkeys(truth, 0)
    for differences in studies:
        found = repeatability_statistics(np.zeros(pairs), differences)
        intervals = {"bias": found.bias_interval, "limit": found.upper_interval, "sdc": found.sdc_interval}
        for name, (low, high) in intervals.items():
            held[name] += low <= truth[name] <= high
    assert all(abs(count / 3000 - 0.95) < 0.015 for count in held.values()), held


def test_measures_are_paired_by_what_they_are():
    one, other = Measurement("femoral cartilage", WHOLE, "volume", 5), Measurement("femur", WHOLE, "volume", 7)
    found = pair_measurements([([one], [other, one]), ([other], [other])])
    assert [*found] == [VOLUME, ("femur", WHOLE, "volume")]
    np.testing.assert_array_equal(found[VOLUME], [[5, np.nan], [5, np.nan]])
    np.testing.assert_array_equal(found["femur", WHOLE, "volume"], [[np.nan, 7], [7, 7]])


def test_change_and_percent():
    before = [Measurement("femur", WHOLE, "volume", 200), Measurement("femur", WHOLE, "covered_area", 0)]
    after = [Measurement("femur", WHOLE, "volume", 150), Measurement("femur", WHOLE, "covered_area", 3)]
    volume, area = measurement_changes(before, after)
    assert (volume.change, volume.percent, area.change) == (-50, -25, 3)
    assert np.isnan(area.percent)


@pytest.mark.parametrize(
    ("followup", "verdict"),
    [
        (100, ChangeVerdict.WITHIN),
        (104, ChangeVerdict.WITHIN),
        (92, ChangeVerdict.JUST_WITHIN),
        (110, ChangeVerdict.JUST_WITHIN),
        (111, ChangeVerdict.JUST_BEYOND),
        (79, ChangeVerdict.BEYOND),
        (np.nan, ChangeVerdict.UNKNOWN),
    ],
)
def test_verdicts_weigh_what_is_known_of_the_error(followup, verdict):
    smallest = SmallestDetectableChange(sdc=10, low=6, high=20, pairs=5)
    assert MeasurementChange(VOLUME, 100, followup).verdict(smallest) is verdict
    assert MeasurementChange(VOLUME, 100, followup).verdict(None) is ChangeVerdict.UNKNOWN
    assert (
        MeasurementChange(VOLUME, 100, followup).verdict(SmallestDetectableChange(np.nan, np.nan, np.nan, 1))
        is ChangeVerdict.UNKNOWN
    )


def test_no_error_at_all_is_none_that_was_measured():
    none = SmallestDetectableChange(0, 0, 0, 5)
    assert MeasurementChange(VOLUME, 100, 100).verdict(none) is ChangeVerdict.UNKNOWN
    assert MeasurementChange(VOLUME, 100, 99).verdict(none) is ChangeVerdict.UNKNOWN
