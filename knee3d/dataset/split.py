"""Split patients into training, validation and test, or into folds. All knees of a patient stay together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from knee3d.dataset.case_collection import CaseCollection, Split


def check_fractions(patients: int, fractions: tuple[float, float, float]) -> None:
    """Refuse shares of patients that are none.

    Args:
        patients: The number of patients who are to be divided.
        fractions: For train, val and test.

    Raises:
        ValueError: The fractions are not a division of 1, or there are too few patients for them.
    """
    wanted = np.array(fractions)
    if wanted.shape != (3,) or not (wanted >= 0).all() or wanted[0] == 0 or abs(wanted.sum() - 1) > 1e-6:
        raise ValueError(f"--split needs three fractions that add up to 1, train above 0; got {fractions}")
    if patients < np.count_nonzero(wanted):
        raise ValueError(
            f"{patients} labelled patients cannot fill {np.count_nonzero(wanted)} splits {fractions}; add "
            "patients, or leave a split out (--split 0.5,0.5,0 has no test)"
        )


def split_patients(patients: Sequence[str], fractions: tuple[float, float, float], seed: int) -> dict[str, Split]:
    """Assign every patient to one split.

    Args:
        patients: Pseudonyms, in any order, repeats allowed.
        fractions: Of patients for train, val and test; they add up to 1. A non-zero fraction gets at least one patient.
        seed: The same patients, fractions and seed give the same split.

    Returns:
        Patient -> split.

    Raises:
        ValueError: The fractions are not a division of 1, or there are too few patients for them.
    """
    from sklearn.model_selection import GroupShuffleSplit  # here, as it takes a second to import

    unique = np.array(sorted(set(patients)))
    check_fractions(len(unique), fractions)
    wanted = np.array(fractions)
    counts = np.where(wanted[1:] > 0, np.maximum(1, np.rint(wanted[1:] * len(unique))), 0).astype(int)
    while counts.sum() >= len(unique):
        counts[counts.argmax()] -= 1
    result = dict.fromkeys(unique.tolist(), Split.TRAIN)
    pool = unique
    for split, count in zip((Split.TEST, Split.VAL), counts[::-1], strict=True):
        if count:
            splitter = GroupShuffleSplit(n_splits=1, test_size=int(count), random_state=seed)
            rest, chosen = next(splitter.split(pool, groups=pool))
            result.update(dict.fromkeys(pool[chosen].tolist(), split))
            pool = pool[rest]
    return result


@dataclass(frozen=True)
class Folds:
    """Which folds of a cross-validation to train.

    Attributes:
        count: How many there are.
        only: The one to train, from 1 on; None trains all.

    Raises:
        ValueError: There is no such fold.
    """

    count: int
    only: int | None = None

    def __post_init__(self) -> None:
        if self.count < 2 or (self.only is not None and not 1 <= self.only <= self.count):
            raise ValueError(f"--fold must be 1 to {self.count}, of 2 --folds or more; got {self.only}")

    @property
    def chosen(self) -> range:
        """Their numbers."""
        return range(1, self.count + 1) if self.only is None else range(self.only, self.only + 1)


def dataset_of_fold(dataset: CaseCollection, folds: int, fold: int, seed: int) -> CaseCollection:
    """The dataset of one fold of a cross-validation.

    Args:
        dataset: Its train and val cases are dealt out anew; test and unlabelled cases stay as they are.
        folds: How many; each patient is validated on in exactly one.
        fold: From 1 to `folds`.
        seed: The same dataset, folds and seed give the same folds.

    Raises:
        ValueError: There are fewer patients than folds.
    """
    from sklearn.model_selection import GroupKFold

    used = [case for case in dataset.cases if case.labelled and case.split in (Split.TRAIN, Split.VAL)]
    patients = sorted({case.patient for case in used})
    if not 2 <= folds <= len(patients):
        raise ValueError(f"--folds must be 2 to {len(patients)}, the number of training and validation patients")
    # Patients and not their cases are dealt out, so that folds differ by one patient at most.
    dealt = list(GroupKFold(folds, shuffle=True, random_state=seed).split(patients, groups=patients))
    validated = {patients[index] for index in dealt[fold - 1][1]}
    mine = {case.name: Split.VAL if case.patient in validated else Split.TRAIN for case in used}
    return replace(dataset, cases=tuple(replace(case, split=mine.get(case.name, case.split)) for case in dataset.cases))


def check_no_leak(assigned: Iterable[tuple[str, Split]]) -> None:
    """Refuse a patient in two splits.

    Args:
        assigned: (patient, split) of every labelled case.

    Raises:
        ValueError: Names the patients that leak.
    """
    splits: dict[str, set[Split]] = {}
    for patient, split in assigned:
        splits.setdefault(patient, set()).add(split)
    leaks = [f"{patient} ({', '.join(sorted(found))})" for patient, found in sorted(splits.items()) if len(found) > 1]
    if leaks:
        raise ValueError(
            f"patients in more than one split: {'; '.join(leaks[:5])}; put all knees of a patient into one split"
        )
