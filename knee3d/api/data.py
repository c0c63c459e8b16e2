"""Make phantoms and manifests, prepare a dataset, restore volumes from it, and audit it."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from knee3d.api.case_result import is_utf8_name
from knee3d.api.dataset import Dataset
from knee3d.api.segmentation_record import check_output_folder
from knee3d.atomic import NO_ROOM
from knee3d.choices import check_type
from knee3d.dataset.audit import DatasetAudit, audit_case, audit_summary, flag_outliers
from knee3d.dataset.case_collection import CASES_FILE, Case, CaseCollection, Split, load_cases, save_cases
from knee3d.dataset.discovery import discover_cases
from knee3d.dataset.manifest import ManifestRow, read_manifest, write_manifest
from knee3d.dataset.preparation import PrepareConfig, assign_splits, check_splits, load_finished_case, prepare_knees
from knee3d.geometry.orientation import Side, from_canonical
from knee3d.io.image_source import DEFAULT_OPTIONS, ReadOptions
from knee3d.io.label_names_file import LABELS_FILE, read_label_names
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import side_from_labels
from knee3d.labels.scheme_files import check_scheme, find_scheme
from knee3d.lease import leased, remove_leftovers, wait_for_lease
from knee3d.phantom.cohort import NUMBERING, TABLE_FILE, CohortConfig, write_cohort
from knee3d.progress import progress
from knee3d.threads import cores

log = logging.getLogger(__name__)

AUDIT = ("audit.json", "index.html", "cases.csv")
"""Files of an audit, that first by which the others are known."""


def make_phantom(
    out: Path | str,
    *,
    knees: int = 8,
    shape: tuple[int, int, int] | None = None,
    seed: int = 0,
    from_labels: Sequence[Path | str] = (),
    deform: float = 1.0,
    retests: int = 0,
    letter: str = "P",
    renderer: str = "leg",
    voxel_mm: tuple[float, float, float] | None = None,
    appearance: str = "dess",
    flexion_deg: float = 0.0,
    thickness: tuple[float, float] = (1.0, 1.0),
    defects: float = 0.0,
    field_of_view_mm: tuple[float, float, float] | None = None,
    jobs: int | None = None,
) -> Path:
    """Make a cohort of knees up: DICOM series, masks and a table, as if from a scanner and an expert.

    Right and left knees take turns. The first patient comes back for a follow-up visit with less cartilage.

    Args:
        out: The folder that gets knees.csv, labels.json and a folder for each knee.
        knees: Number of patients, one knee each.
        shape: Voxels along inferior, posterior and left. None keeps those of a label map; without one it is
            (128, 128, 96).
        seed: Seed of shapes, intensities, positions and noise.
        from_labels: Label files of right knees, numbered as pymskt does, that are deformed. None of them: the anatomy
            is parametric.
        deform: How far label maps are deformed; 0 keeps them as they are.
        retests: Number of patients, from the first on, who are scanned twice with nothing lost.
        letter: First letter of the patients' names; cohorts of different people need different ones.
        renderer: What makes images from labels: "leg" models the tissues of a leg; "random-fields" divides the tissue
            around the labels by random fields. Networks that were trained on one can be measured on the other.
        voxel_mm: The scan protocol: the size in mm of the voxels of the scan along inferior, posterior and left. None
            scans with the voxels of the anatomy, see `shape`. A cohort has one protocol; for a mixed cohort, make one
            for each protocol, with another `letter`, and join the tables.
        appearance: Contrast of the images. "dess": that of DESS. "any": the intensity of each tissue is drawn by itself
            in seven knees of ten, so that a network learns shapes and not one contrast; with the renderer "leg".
        flexion_deg: Angle in degrees by up to which knees are bent further, or straightened.
        thickness: Smallest and largest factor by which a plate of cartilage becomes thicker.
        defects: Largest share of a plate of cartilage that is lost in places.
        field_of_view_mm: Size of scans in mm along inferior, posterior and left. Each scan is cut out at a random place
            that holds all cartilage. None keeps all of it.
        jobs: Knees at a time. None takes one for each core.

    Returns:
        The path of knees.csv.

    Raises:
        ValueError: There is no knee, the shape is too small, there are more retests than knees, there is no such
            renderer or appearance, a label map is of a left knee, flexion, thickness or defects are not possible, or
            the anatomy has voxels more than twice as long as those of the scan.

    Example:
        >>> make_phantom("cohort", knees=8, shape=(64, 64, 48), seed=1)        # doctest: +SKIP
        PosixPath('cohort/knees.csv')
    """
    sources = tuple(map(Path, from_labels))
    for source in sources:
        _check_right_knee(source)
    cohort = CohortConfig(
        knees, shape, seed, sources, deform, retests, letter, renderer, voxel_mm, appearance, flexion_deg, thickness,
        defects, field_of_view_mm,
    )  # fmt: skip
    return write_phantom(cohort, Path(out), jobs or cores())


def _check_right_knee(source: Path) -> None:
    """Refuse a label map whose medial and lateral tissues lie as in a left knee."""
    labels = read_volume(source)
    if np.issubdtype(labels.array.dtype, np.integer) and side_from_labels(labels, LABEL_NAMES[NUMBERING]) is Side.LEFT:
        raise ValueError(
            f"{source} is a left knee: its medial and lateral labels lie so; label maps of right knees are deformed: "
            "mirror it, and its affine, before"
        )


def write_phantom(cohort: CohortConfig, out: Path, jobs: int) -> Path:
    """Write a made-up cohort, see `phantom.cohort.write_cohort`. Returns the path of its knees.csv."""
    with progress("making knees", len(cohort.visits)) as advance:
        for _ in write_cohort(cohort, out, jobs):
            advance(1)
    return out / TABLE_FILE


def make_manifest(folder: Path | str, out: Path | str) -> tuple[str, ...]:
    """Write the table of the knees in a folder; see `case_collection.discovery`. Returns notes on what was guessed.

    Raises:
        FileExistsError: There is a table already; it may have been corrected by hand.
    """
    folder, out = Path(folder), Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists and may have been corrected by hand; give another -o, or remove it")
    found = discover_cases(folder)
    named = [all(is_utf8_name(place) for place in (knee.image, knee.mask) if place) for knee in found.knees]
    write_manifest(out, tuple(compress(found.knees, named)))
    left = [ascii(str(knee.image)) for knee, is_named in zip(found.knees, named, strict=True) if not is_named]
    return (*found.notes, *(f"left out, as its name is not UTF-8: {name}; rename it" for name in left))


def restore_volume(folder: Path, case: str, out: Path, mask: bool) -> None:
    """Slices of a dataset's case -> a volume file in the axes and on the side of its source.

    Args:
        folder: The dataset's.
        case: Name of the knee.
        out: To write.
        mask: Its classes in place of its image.

    Raises:
        ValueError: There is no such case, it has no mask, its PNGs are damaged, or `out` is of no form that is written.
    """
    dataset = load_cases(folder)
    chosen = next((one for one in dataset.cases if one.name == case), None)
    if chosen is None:
        names = ", ".join(one.name for one in dataset.cases[:5])
        raise ValueError(f"{folder} has no case {case}; it has {names}{' ...' if len(dataset.cases) > 5 else ''}")
    volume = dataset.mask(chosen) if mask else dataset.intensities(chosen)
    write_volume(from_canonical(volume, chosen.source_axes, chosen.side), out)


def prepare(
    table: Path | str,
    folder: Path | str,
    *,
    scheme: LabelScheme | str = "cartilage",
    labels: str | None = None,
    split: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    bits: int = 8,
    options: ReadOptions = DEFAULT_OPTIONS,
    jobs: int | None = None,
) -> Dataset:
    """Turn knees into PNG slices in the axial, coronal and sagittal planes.

    An interrupted call goes on where it stopped. Several processes that share a disk may make the same call.

    Args:
        table: CSV with the columns case, patient, visit, side, image and mask, and optionally split and series.
        folder: The folder of the dataset. What an earlier call or another process finished there is kept.
        scheme: Classes of the masks: a scheme, a JSON file of one, or its name: "cartilage", "compartments", "iwoai" or
            "bones".
        labels: Meaning of the values of masks: a name, such as "pymskt", or a file. None takes labels.json beside the
            table.
        split: Shares of the patients for training, validation and test, adding up to 1.
        seed: Seed of the split.
        bits: Bits of a pixel of the images, 8 or 16. Networks see 8.
        options: What the paths of images do not say.
        jobs: Knees at a time. None takes one for each core.

    Returns:
        The dataset, with every knee of the table.

    Raises:
        ValueError: Some knees cannot be prepared (said after all others were), a patient would be in two splits, or
            the folder is the dataset of another table or scheme.
        OSError: There is no room left.

    Example:
        >>> data = prepare("knees.csv", "data/oai", scheme="compartments")        # doctest: +SKIP
        >>> data                                                                  # doctest: +SKIP
        Dataset('data/oai', 350 train, 75 val, 75 test; compartments: femoral cartilage, tibial cartilage, ...)
    """
    known = scheme if isinstance(scheme, LabelScheme) else find_scheme(scheme)
    check_scheme(known)
    check_type("options", options, ReadOptions)
    config = PrepareConfig(known, None, split, seed, options, bits)
    return Dataset.of(prepare_dataset(Path(table), Path(folder), config, labels, jobs or cores()))


def prepare_dataset(
    table: Path, folder: Path, preparation: PrepareConfig, labels: str | None, jobs: int
) -> CaseCollection:
    """Knees of a table -> a dataset of PNG slices.

    Any number of processes on machines with a common disk may do it at the same time. Each returns when all is done.

    Args:
        table: knees.csv.
        folder: The dataset's; what an earlier run or another process finished there is kept.
        preparation: How; the names of its labels are found here.
        labels: Name or file of the names of the masks' labels; None takes labels.json beside the table.
        jobs: Knees at a time.

    Returns:
        The dataset, every knee of the table in it.

    Raises:
        ValueError: Some knees cannot be prepared (said after all others were), a patient would be in two splits, or
            the folder is the dataset of quite another table, or of another scheme.
        OSError: There is no room left.
    """
    knees = read_manifest(table)
    beside = table.parent / LABELS_FILE
    source = labels or (str(beside) if beside.is_file() else None)
    preparation = replace(preparation, label_names=read_label_names(source, preparation.scheme) if source else None)
    check_splits(knees, preparation)
    known = load_cases(folder) if (folder / CASES_FILE).is_file() else CaseCollection(folder, preparation.scheme, ())
    _check_same_dataset(known, knees, preparation, table)
    cases = {knee.case: case for knee in knees if (case := load_finished_case(knee, folder, preparation))}
    todo = [knee for knee in knees if knee.case not in cases]
    errors: list[str] = []

    def so_far() -> CaseCollection:
        return _with_splits_of(known, CaseCollection(folder, preparation.scheme, tuple(cases.values())))

    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, [CASES_FILE, *(knee.case for knee in knees)])
    if {case.name for case in known.cases} & {knee.case for knee in todo}:
        _save(so_far())  # what it says of slices must not outlive them
    with progress("preparing", len(todo)) as advance:
        for outcome in prepare_knees(todo, folder, preparation, jobs):
            advance(1)
            if isinstance(outcome, Case):
                cases[outcome.name] = outcome
            elif isinstance(outcome, OSError) and outcome.errno in NO_ROOM:
                with suppress(OSError):
                    _save(so_far())
                raise OSError(
                    f"no room left in {folder}; {len(cases)} of {len(knees)} knees are done and stay: make "
                    "room and run it again"
                )
            else:
                errors.append(str(outcome))
    remove_leftovers(folder, [CASES_FILE, *(knee.case for knee in knees)])
    done = so_far()
    _save(done)
    _warn_of_slices(known, done)
    if errors:
        raise ValueError(f"{len(errors)} of {len(knees)} knees could not be prepared:\n" + "\n".join(sorted(errors)))
    dataset = replace(done, cases=assign_splits(done.cases, knees, preparation))
    _warn_of_splits(known, dataset, table)
    _save(dataset)
    return dataset


def _save(dataset: CaseCollection) -> None:
    """Write cases.json while no other process does, so that `remove_leftovers` knows the leftovers of a killed one."""
    with wait_for_lease(dataset.folder / CASES_FILE):
        save_cases(dataset)


def _splits(dataset: CaseCollection) -> dict[str, Split]:
    """Of its patients, as far as they have one."""
    return {case.patient: case.split for case in dataset.cases if case.split is not Split.NONE}


def _with_splits_of(known: CaseCollection, dataset: CaseCollection) -> CaseCollection:
    """What is kept of an unfinished run: patients stay where they were, and a later run knows where that was."""
    splits = _splits(known)
    held = (replace(case, split=splits.get(case.patient, Split.NONE) if case.labelled else Split.NONE)
            for case in dataset.cases)  # fmt: skip
    return replace(dataset, cases=tuple(held))


def _warn_of_slices(known: CaseCollection, dataset: CaseCollection) -> None:
    """Say what was sliced again: networks may rely on how it was."""
    prints = {case.name: case.fingerprint for case in known.cases}
    again = sum(case.fingerprint != prints.get(case.name, case.fingerprint) for case in dataset.cases)
    if again:
        log.warning(
            "%d of %d knees were sliced again, as their files or settings (--labels, --bits, --echo and others) are "
            "not what they were: networks that were trained before know other slices", again, len(known.cases)
        )  # fmt: skip


def _warn_of_splits(known: CaseCollection, dataset: CaseCollection, table: Path) -> None:
    """Say who is in another split than before: scores may rely on that."""
    before, now = _splits(known), _splits(dataset)
    moved = [patient for patient, split in now.items() if split is not before.get(patient, split)]
    if moved:
        log.warning(
            "%d of %d patients are in another split than before: networks that were trained on them are refused their "
            "scores; a column split in %s keeps patients where they are", len(moved), len(before), table
        )  # fmt: skip


def audit_dataset(folder: Path | str, out: Path | str) -> DatasetAudit:
    """Look a prepared dataset over.

    Args:
        folder: The dataset's.
        out: Gets index.html, audit.json, cases.csv, and cases/<case>.png with the mask drawn.

    Returns:
        What audit.json holds: the counts of each split, patients in two splits, and the facts of each case.

    Raises:
        ValueError: A slice cannot be read, or `out` holds such files of someone else, or another process writes there.
    """
    from knee3d.report.audit_page import write_audit_csv, write_audit_page
    from knee3d.report.overview_figure import mask_figure

    folder, out = Path(folder), Path(out)
    record, page, table_of_all = (out / name for name in AUDIT)
    check_output_folder(out, record.name, (page.name, table_of_all.name))
    dataset = load_cases(folder)
    if not dataset.cases:
        raise ValueError(f"{folder} has no finished case; run knee3d prepare again")
    with leased(out):
        facts = []
        with progress("auditing", len(dataset.cases)) as advance:
            for case in dataset.cases:
                image, mask = dataset.image(case), dataset.mask(case) if case.labelled else None
                facts.append(audit_case(case, mask, dataset.scheme.names))
                labels = mask or image.with_array(np.zeros(image.shape, np.uint8))
                mask_figure(image, labels, dataset.scheme, out / "cases" / f"{case.name}.png", case.name)
                advance(1)
        audit = audit_summary(dataset, flag_outliers(facts, dataset.scheme.names))
        audit.write(record)
        write_audit_page(audit, "cases", page)
        write_audit_csv(audit, table_of_all)
    return audit


def _other(scheme: LabelScheme, wanted: LabelScheme) -> str:
    return f"the scheme {scheme.name}" + (" as it was before" if scheme.name == wanted.name else "")


def _check_same_dataset(
    known: CaseCollection, knees: Sequence[ManifestRow], preparation: PrepareConfig, table: Path
) -> None:
    """Cases that are no longer in the table leave the dataset; another scheme, or a table of none, is a mistake."""
    if known.cases and known.scheme != preparation.scheme:
        raise ValueError(
            f"{known.folder} has masks of {_other(known.scheme, preparation.scheme)}, on which networks may rely; for "
            f"{preparation.scheme.name} give another folder, or remove it"
        )
    wanted = {knee.case for knee in knees}
    dropped = [case.name for case in known.cases if case.name not in wanted]
    if dropped and len(dropped) == len(known.cases):
        raise ValueError(
            f"{known.folder} holds {len(dropped)} cases, none of which is in {table}; give another folder, or remove it"
        )
    if dropped:
        log.warning("%d cases are not in %s and leave the dataset: %s", len(dropped), table, ", ".join(dropped[:5]))
