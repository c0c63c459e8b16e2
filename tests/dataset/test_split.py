"""A patient is in one split, and a leak is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.dataset.cases import Split
from knee3d.dataset.split import check_no_leak, split_patients


@given(st.lists(st.integers(0, 30).map(str), min_size=3), st.integers(0, 5))
def test_every_patient_once_whatever_the_order(patients, seed):
    if len(set(patients)) < 3:
        return
    splits = split_patients(patients, (0.6, 0.2, 0.2), seed)
    assert set(splits) == set(patients)
    assert set(splits.values()) == {Split.TRAIN, Split.VAL, Split.TEST}
    assert splits == split_patients(patients[::-1], (0.6, 0.2, 0.2), seed)


def test_fractions_are_of_patients_and_seeds_differ():
    patients = [str(number) for number in range(100)]
    splits = split_patients(patients * 3, (0.7, 0.1, 0.2), 0)
    counts = [list(splits.values()).count(split) for split in (Split.TRAIN, Split.VAL, Split.TEST)]
    assert counts == [70, 10, 20]
    assert splits != split_patients(patients, (0.7, 0.1, 0.2), 1)


def test_a_fraction_of_nothing_gets_nobody():
    assert set(split_patients(["a", "b"], (0.5, 0.5, 0), 0).values()) == {Split.TRAIN, Split.VAL}
    assert set(split_patients(["a"], (1, 0, 0), 0).values()) == {Split.TRAIN}


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (1.0, 0.0)])
def test_fractions_that_divide_nothing_are_refused(fractions):
    with pytest.raises(ValueError, match="--split"):
        split_patients(["a", "b", "c"], fractions, 0)


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="2 labelled patients cannot fill 3 splits"):
        split_patients(["a", "b", "a"], (0.7, 0.15, 0.15), 0)


def test_a_leak_is_refused_by_name():
    check_no_leak([("a", Split.TRAIN), ("a", Split.TRAIN), ("b", Split.TEST)])
    with pytest.raises(ValueError, match=r"a \(test, train\)"):
        check_no_leak([("a", Split.TRAIN), ("b", Split.TEST), ("a", Split.TEST)])
