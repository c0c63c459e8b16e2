"""Patients -> train / val / test. A patient's visits and knees are never apart."""

from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from knee3d.dataset.cases import Split


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
    unique = np.array(sorted(set(patients)))
    wanted = np.array(fractions)
    if wanted.shape != (3,) or (wanted < 0).any() or wanted[0] == 0 or abs(wanted.sum() - 1) > 1e-6:
        raise ValueError(f"--split needs three fractions that add up to 1, train above 0; got {fractions}")
    if len(unique) < np.count_nonzero(wanted):
        raise ValueError(f"{len(unique)} labelled patients cannot fill {np.count_nonzero(wanted)} splits {fractions}")
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
