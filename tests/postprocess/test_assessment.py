"""How sure a mean over patients is."""

import numpy as np
import pytest

from knee3d.postprocess.assessment import bootstrap_interval, bootstrap_samples


def test_a_patients_knees_are_drawn_together():
    patients = ["p1", "p2", "p1", "p3"]
    draws = bootstrap_samples(patients, 500, seed=3)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 2])
    assert (draws[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(draws, bootstrap_samples(patients, 500, seed=3))
    assert not np.array_equal(draws, bootstrap_samples(patients, 500, seed=4))


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says():
    """Of 40 patients each: 95 % intervals, give or take what 200 trials tell and 40 patients cost a bootstrap."""
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(40)]
    trials = [bootstrap_interval(rng.normal(0.9, 0.02, 40).tolist(), patients) for _ in range(200)]
    inside = np.mean([one.low <= 0.9 <= one.high for one in trials])
    assert 0.89 <= inside <= 0.99


def test_two_knees_of_a_patient_are_not_two_patients():
    """Twice the same knees, twice the data, and no more certainty."""
    values = np.random.default_rng(1).normal(0.9, 0.02, 20).tolist()
    names = [f"p{i}" for i in range(20)]
    once, twice = bootstrap_interval(values, names), bootstrap_interval(values * 2, names * 2)
    assert (twice.mean, twice.low, twice.high) == pytest.approx((once.mean, once.low, once.high))
    assert (once.cases, twice.cases) == (20, 40)


def test_what_is_missing_is_left_out():
    found = bootstrap_interval([0.5, float("nan"), 0.7], ["a", "b", "c"])
    assert (found.mean, found.cases) == (pytest.approx(0.6), 2)
    assert found.low == pytest.approx(0.5)
    lonely = bootstrap_interval([0.5, 0.7], ["a", "a"])
    assert lonely.mean == pytest.approx(0.6)
    assert np.isnan([lonely.low, lonely.high]).all()
    nothing = bootstrap_interval([float("nan")], ["a"])
    assert np.isnan(nothing.mean)
    assert nothing.cases == 0
