"""A patient is in one split, and a leak is an error."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.api.data import prepare
from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.dataset.split import Folds, check_no_leak, dataset_of_fold, split_patients


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


def of_knees(balls, knees):
    """A dataset of (patient, split), without slices."""
    cases = [replace(balls.cases[0], name=str(n), patient=who, split=split) for n, (who, split) in enumerate(knees)]
    return CaseCollection(balls.folder, balls.scheme, tuple(cases))


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_patient_is_validated_on_in_one_fold(balls, folds):
    knees = [(f"P{number // 2}", Split.TRAIN if number < 8 else Split.VAL) for number in range(10)]
    dataset = of_knees(balls, [*knees, ("T", Split.TEST)])
    seen = []
    for fold in range(1, folds + 1):
        mine = dataset_of_fold(dataset, folds, fold, seed=3)
        check_no_leak((case.patient, case.split) for case in mine.cases)
        assert [case.patient for case in mine.of_split(Split.TEST)] == ["T"]
        seen += sorted({case.patient for case in mine.of_split(Split.VAL)})
        again = dataset_of_fold(dataset, folds, fold, seed=3)
        assert [case.split for case in again.cases] == [case.split for case in mine.cases]
    assert sorted(seen) == [f"P{number}" for number in range(5)]


@pytest.mark.parametrize("folds", [1, 9])
def test_folds_that_cannot_be_are_refused(balls, folds):
    dataset = of_knees(balls, [(f"P{number}", Split.TRAIN) for number in range(4)])
    with pytest.raises(ValueError, match="--fold"):
        dataset_of_fold(dataset, folds, 1, seed=0)


@pytest.mark.parametrize(("count", "only"), [(5, 7), (5, 0), (1, None)])
def test_folds_that_are_not_there_are_refused(count, only):
    with pytest.raises(ValueError, match=r"--fold must be 1 to"):
        Folds(count, only)


@pytest.mark.parametrize(
    ("patients", "splits", "fractions", "words"),
    [
        (3, ("", "", ""), (0.5, 0.5, 0.5), "three fractions that add up to 1"),
        (2, ("", ""), (0.5, 0.25, 0.25), "2 labelled patients cannot fill 3 splits"),
        (1, ("train", "test"), (0.7, 0.15, 0.15), "P0"),
    ],
)
def test_a_split_that_is_none_is_refused_before_anything_is_prepared(tmp_path, patients, splits, fractions, words):
    told = any(splits)
    lines = ["case,patient,visit,side,image,mask" + ",split" * told]
    for number, split in enumerate(splits):
        for kind in ("image", "mask"):
            (tmp_path / f"{kind}{number}.nii.gz").touch()  # empty: whoever reads one fails otherwise
        lines.append(f"K{number},P{number % patients},,R,image{number}.nii.gz,mask{number}.nii.gz" + f",{split}" * told)
    (tmp_path / "knees.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=words):
        prepare(tmp_path / "knees.csv", tmp_path / "dataset", split=fractions, labels="pymskt")
    assert not (tmp_path / "dataset").exists()
