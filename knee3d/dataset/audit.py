"""Audit a prepared dataset: facts of each case, and outliers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from knee3d import __version__
from knee3d.dataset.case_collection import Case, CaseCollection, Split
from knee3d.dataset.split import check_no_leak
from knee3d.geometry.volume import Volume
from knee3d.records import Record

FEWEST = 5  # cases, before anything can be called unusual
# Modified z-score above which a value is unusual (Iglewicz and Hoaglin, How to detect and handle outliers, 1993).
UNUSUAL = 3.5
_MAD_TO_SD = 0.6745
_SPREAD = 0.1  # of the median: where nearly all are equal, what differs by less is not unusual


@dataclass(frozen=True)
class CaseAudit:
    """One case in numbers.

    Attributes:
        case: Its name.
        patient: Pseudonym.
        visit: May be empty.
        side: R, L or empty.
        split: train, val, test or empty.
        shape: Voxels along (Inferior, Posterior, Left).
        spacing_mm: Between them.
        window: Intensities of the source that became 0 and 255.
        voxels: Of each tissue of the scheme; None without a mask.
        mm3: The same in mm3.
        notes: What looks wrong, in words.
    """

    case: str
    patient: str
    visit: str
    side: str
    split: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    window: tuple[float, float]
    voxels: tuple[int, ...] | None
    mm3: tuple[float, ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitAudit:
    """The counts of one split.

    Attributes:
        cases: The number of cases.
        patients: The number of patients.
        sides: "R", "L" and "unknown" to the number of cases of that side.
        voxels: The tissue to the number of its voxels in all masks.
    """

    cases: int
    patients: int
    sides: Mapping[str, int]
    voxels: Mapping[str, int]


@dataclass(frozen=True)
class DatasetAudit(Record):
    """A dataset in numbers, as audit.json keeps it.

    Attributes:
        knee3d: The version of knee3d that counted.
        scheme: The name of the label scheme.
        tissues: The names of the tissues of the scheme, in the order of their numbers.
        splits: The name of the split, or "unlabelled", to its counts; splits without cases are left out.
        leak: Which patients are in two splits, in words; None where no patient is.
        cases: The facts of each case.
    """

    knee3d: str
    scheme: str
    tissues: tuple[str, ...]
    splits: Mapping[str, SplitAudit]
    leak: str | None
    cases: tuple[CaseAudit, ...]


def audit_case(case: Case, mask: Volume | None, names: Sequence[str]) -> CaseAudit:
    """Count one case.

    Args:
        case: Which.
        mask: Its labels as `CaseCollection.mask` reads them; None without.
        names: Of the scheme's tissues.
    """
    voxels, notes = None, []
    spacing = case.spacing_mm
    if not case.side:
        notes.append("side unknown")
    if mask is not None:
        voxels = tuple(np.bincount(mask.array.ravel(), minlength=len(names) + 1)[1:].tolist())
        notes += [f"no {name}" for name, count in zip(names, voxels, strict=True) if not count]
    mm3 = float(abs(np.linalg.det(case.affine[:3, :3])))
    return CaseAudit(
        case=case.name,
        patient=case.patient,
        visit=case.visit,
        side=case.side.value,
        split=case.split.value,
        shape=case.shape,
        spacing_mm=tuple(spacing.round(4).tolist()),
        window=(case.window.low, case.window.high),
        voxels=voxels,
        mm3=None if voxels is None else tuple(round(count * mm3, 1) for count in voxels),
        notes=tuple(notes),
    )


def flag_outliers(facts: Sequence[CaseAudit], names: Sequence[str]) -> tuple[CaseAudit, ...]:
    """Note of every case in what it is unlike the others: spacing, extent, window, amount of each tissue.

    With fewer than `FEWEST` values of a kind nothing is unusual.
    """
    kinds: dict[str, list[float | None]] = {}
    for axis, letter in enumerate("IPL"):
        kinds[f"spacing along {letter} in mm"] = [one.spacing_mm[axis] for one in facts]
        kinds[f"extent along {letter} in mm"] = [round(one.shape[axis] * one.spacing_mm[axis], 1) for one in facts]
    kinds["width of the window"] = [one.window[1] - one.window[0] for one in facts]
    for index, name in enumerate(names):  # an absent tissue is noted already, and would spoil the median
        kinds[f"{name} in mm3"] = [one.mm3[index] or None if one.mm3 else None for one in facts]
    notes: list[list[str]] = [list(one.notes) for one in facts]
    for kind, values in kinds.items():
        known = [(index, value) for index, value in enumerate(values) if value is not None]
        if len(known) < FEWEST:
            continue
        numbers = np.array([value for _, value in known])
        median = float(np.median(numbers))
        deviation = float(np.median(np.abs(numbers - median)))
        limit = max(UNUSUAL * deviation / _MAD_TO_SD, _SPREAD * abs(median))
        for index, value in known:
            if abs(value - median) > limit:
                notes[index].append(f"{kind} is {value:g}, usual is {median:g}")
    return tuple(replace(one, notes=tuple(note)) for one, note in zip(facts, notes, strict=True))


def audit_summary(dataset: CaseCollection, facts: Sequence[CaseAudit]) -> DatasetAudit:
    """Count the cases of each split, and find patients who are in two splits.

    Args:
        dataset: The dataset.
        facts: The facts of each of its cases.
    """
    names = dataset.scheme.names
    splits = {}
    for split in Split:
        mine = [one for one in facts if one.split == split]
        if mine:
            voxels = np.sum([one.voxels or (0,) * len(names) for one in mine], axis=0).tolist()
            splits[split.value or "unlabelled"] = SplitAudit(
                cases=len(mine),
                patients=len({one.patient for one in mine}),
                sides={side or "unknown": sum(one.side == side for one in mine) for side in ("R", "L", "")},
                voxels=dict(zip(names, voxels, strict=True)),
            )
    return DatasetAudit(__version__, dataset.scheme.name, names, splits, _leak(dataset), tuple(facts))


def _leak(dataset: CaseCollection) -> str | None:
    """Which patients are in two splits, in words; None where no patient is."""
    try:
        check_no_leak((case.patient, case.split) for case in dataset.cases if case.labelled)
    except ValueError as error:
        return str(error)
    return None
