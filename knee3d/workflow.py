"""The journeys end to end: the only module that knows every room."""

import errno
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d.anatomy.orientation import Side, axis_codes, from_canonical
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import Scheme
from knee3d.anatomy.volume import Volume
from knee3d.dataset import inspection
from knee3d.dataset.audit import facts_of, summary_of, with_outliers
from knee3d.dataset.cases import Case, Dataset, Split, load_dataset, save_dataset
from knee3d.dataset.discover import discover
from knee3d.dataset.phantom.cohort import TABLE_FILE, Cohort, write_cohort
from knee3d.dataset.prepare import Preparation, assign_splits, canonical_image, prepare_knees
from knee3d.dataset.sides import agreed_side
from knee3d.dataset.source import ANY, Choice, read_image
from knee3d.dataset.table import LABELS_FILE, Knee, read_numbering, read_table, write_numbering, write_table
from knee3d.dataset.volumefile import write_volume
from knee3d.models import check_match, load_models, save_fusion
from knee3d.postprocess.blend import blend
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.decide import decide
from knee3d.postprocess.weights import Fusion, contested, fit_weights
from knee3d.progress import progress

if TYPE_CHECKING:
    from knee3d.learn.training import TrainConfig

log = logging.getLogger(__name__)

SAVE_EVERY_S = 5.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def phantom(cohort: Cohort, folder: Path, jobs: int) -> Path:
    """Write a made-up cohort; see `dataset.phantom.cohort.write_cohort`. Returns the path of its knees.csv."""
    with progress("making knees", cohort.knees + 1) as advance:
        for _ in write_cohort(cohort, folder, jobs):
            advance(1)
    return folder / TABLE_FILE


def table(folder: Path, out: Path) -> tuple[str, ...]:
    """Write the table of the knees in a folder; see `dataset.discover`. Returns notes on what was guessed.

    Raises:
        FileExistsError: There is a table already; it may have been corrected by hand.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists and may have been corrected by hand; give another -o, or remove it")
    found = discover(folder)
    write_table(out, found.knees)
    return found.notes


def inspect(path: Path, choice: Choice = ANY) -> dict[str, Any]:
    """What could be read from a path; see `dataset.inspection`.

    Returns:
        For JSON: {"volumes": a mapping for each, "skipped": {reason: files}, "broken": messages}.
    """
    found = inspection.inspect(path, choice)
    return {"volumes": list(inspection.rows(found)), "skipped": found.skipped, "broken": list(found.broken)}


def prepare(table: Path, folder: Path, preparation: Preparation, labels: str | None, jobs: int) -> Dataset:
    """Knees of a table -> a dataset of PNG slices.

    Args:
        table: knees.csv.
        folder: The dataset's; what an earlier run finished there is kept.
        preparation: How; its numbering is found here.
        labels: Name or file of the masks' numbering; None takes labels.json beside the table.
        jobs: Knees at a time.

    Returns:
        The dataset, every knee of the table in it.

    Raises:
        ValueError: Some knees cannot be prepared (said after all others were), a patient would be in two splits, or
            the folder is the dataset of quite another table.
        OSError: There is no room left.
    """
    knees = read_table(table)
    beside = table.parent / LABELS_FILE
    source = labels or (str(beside) if beside.is_file() else None)
    preparation = replace(preparation, numbering=read_numbering(source) if source else None)
    known = load_dataset(folder) if (folder / "cases.json").is_file() else Dataset(folder, preparation.scheme, ())
    _check_same_dataset(known, knees, table)
    cases: dict[str, Case] = {}
    errors: list[str] = []
    saved = time.monotonic()
    with progress("preparing", len(knees)) as advance:
        for outcome in prepare_knees(knees, known, preparation, jobs):
            advance(1)
            if isinstance(outcome, Case):
                cases[outcome.name] = outcome
            elif isinstance(outcome, OSError) and outcome.errno in _NO_ROOM:
                with suppress(OSError):
                    save_dataset(Dataset(folder, preparation.scheme, tuple(cases.values())))
                raise OSError(
                    f"no room left in {folder}; {len(cases)} of {len(knees)} knees are done and stay: make "
                    "room and run it again"
                )
            else:
                errors.append(str(outcome))
            if time.monotonic() - saved > SAVE_EVERY_S:
                save_dataset(Dataset(folder, preparation.scheme, tuple(cases.values())))
                saved = time.monotonic()
    done = Dataset(folder, preparation.scheme, tuple(cases.values()))
    save_dataset(done)
    if errors:
        raise ValueError(f"{len(errors)} of {len(knees)} knees could not be prepared:\n" + "\n".join(sorted(errors)))
    dataset = replace(done, cases=assign_splits(done.cases, knees, preparation))
    save_dataset(dataset)
    return dataset


def audit(folder: Path, out: Path) -> dict[str, Any]:
    """Look a prepared dataset over.

    Args:
        folder: The dataset's.
        out: Gets index.html, audit.json, cases.csv, and cases/<case>.png with the mask drawn.

    Returns:
        What audit.json holds, see `dataset.audit.summary_of`.

    Raises:
        ValueError: A slice cannot be read.
    """
    from knee3d.report.audit import write_audit_csv, write_audit_page
    from knee3d.report.figures import mask_figure
    from knee3d.report.tables import write_json

    dataset = load_dataset(folder)
    if not dataset.cases:
        raise ValueError(f"{folder} has no finished case; run knee3d prepare again")
    facts = []
    with progress("auditing", len(dataset.cases)) as advance:
        for case in dataset.cases:
            image, mask = dataset.image(case), dataset.mask(case) if case.labelled else None
            facts.append(facts_of(case, mask, dataset.scheme.names))
            labels = mask or image.with_array(np.zeros(image.shape, np.uint8))
            mask_figure(image, labels, dataset.scheme, out / "cases" / f"{case.name}.png", case.name)
            advance(1)
    summary = summary_of(dataset, with_outliers(facts, dataset.scheme.names))
    write_audit_page(summary, "cases", out / "index.html")
    write_audit_csv(summary, out / "cases.csv")
    write_json(summary, out / "audit.json")
    return summary


def train(
    folder: Path, planes: Sequence[Plane], models: Path, config: "TrainConfig", overwrite: bool = False
) -> list[Path]:
    """Train planes one after another; see `learn.training.train_plane`. Returns the models' folders."""
    from knee3d.learn.training import train_plane

    dataset = load_dataset(folder)
    return [train_plane(dataset, plane, models, config, overwrite) for plane in planes]


def fuse(folder: Path, models: Path) -> Fusion:
    """Fit fusion weights on the validation split and write them beside the models.

    Raises:
        ValueError: A validation patient was trained on, or there is no tissue to fit on.
    """
    dataset, trained = load_dataset(folder), load_models(models, fused=False)
    cases = dataset.of_split(Split.VAL)
    check_match(dataset, trained, cases, (Split.TRAIN,))
    evidence = []
    for case in cases:
        views = dict(trained.ensemble.views(dataset.image(case), f"fusing {case.name}"))
        evidence.append(contested(dataset.mask(case), views))
    fusion = fit_weights(evidence)
    save_fusion(fusion, cases, models)
    return fusion


def evaluate(folder: Path, models: Path, split: Split, out: Path) -> dict[str, Any]:
    """Score each plane and the fusion against the masks of a split.

    Args:
        folder: The dataset's.
        models: The networks', with fusion.json.
        split: Which cases.
        out: Gets scores.json, scores.csv, confusion.png, and overview/<case>.png with prediction and truth.

    Returns:
        What scores.json holds, see `report.tables.evaluation_summary`.

    Raises:
        ValueError: A patient of the val or test split was trained on, or one of the test split validated on.
    """
    from knee3d.report.figures import confusion_figure, overview_figure
    from knee3d.report.tables import FUSED, evaluation_summary, write_json, write_scores_csv

    dataset, trained = load_dataset(folder), load_models(models)
    cases = dataset.of_split(split)
    unseen = {Split.TEST: (Split.TRAIN, Split.VAL), Split.VAL: (Split.TRAIN,)}.get(split, ())
    check_match(dataset, trained, cases, unseen)
    scores: dict[str, dict[str, Scores]] = {}
    for case in cases:
        image, truth = dataset.image(case), dataset.mask(case)
        mine: dict[str, Scores] = {}
        views = _scored(trained.ensemble.views(image, f"evaluating {case.name}"), truth, dataset.scheme, mine)
        labels = decide(blend(views, trained.ensemble.weights))
        scores[case.name] = mine | {FUSED: _score(truth, labels, dataset.scheme)}
        overview_figure(image, labels, dataset.scheme, out / "overview" / f"{case.name}.png", case.name, truth)
        log.info("%s: fused foreground Dice %.4f", case.name, scores[case.name][FUSED].foreground_dice)
    summary = {"split": split.value, "weights": dict(trained.ensemble.weights), **evaluation_summary(scores)}
    confusion_figure(
        {view: reduce(add, (mine[view] for mine in scores.values())) for view in next(iter(scores.values()))},
        out / "confusion.png",
    )
    write_scores_csv(summary, out / "scores.csv")
    write_json(summary, out / "scores.json")
    return summary


@dataclass(frozen=True)
class Source:
    """An image that came in from outside.

    Attributes:
        path: A folder of DICOM, or a volume file.
        side: As the user says; unknown takes DICOM's word.
        choice: What the path alone does not say.
    """

    path: Path
    side: Side = Side.UNKNOWN
    choice: Choice = ANY


def segment(source: Source, models: Path, out: Path, case: str) -> dict[str, float]:
    """One knee -> labels on its own grid, volumes, a picture.

    Args:
        source: The knee.
        models: The networks', with fusion.json.
        out: Gets labels.nii.gz (the input's grid and axes, voxel for voxel), labels.json, volumes.csv, overview.png.
        case: What the knee is called in them.

    Returns:
        Tissue name to mm3.

    Raises:
        ValueError: The image cannot be read, or its side contradicts what the user says.
    """
    from knee3d.quantify.volumes import tissue_volumes
    from knee3d.report.figures import overview_figure
    from knee3d.report.tables import write_volumes_csv

    trained = load_models(models)
    original, tagged = read_image(source.path, source.choice)
    side = agreed_side(source.side, tagged)
    if side is Side.UNKNOWN:
        log.warning("%s: side unknown, taken as a right knee; give --side if it is a left one", case)
    image, _ = canonical_image(original, side)
    trained.warn_of_other_voxels(image, case)
    labels = decide(blend(trained.ensemble.views(image, f"segmenting {case}"), trained.ensemble.weights))
    volumes = tissue_volumes(labels, trained.scheme)
    back = from_canonical(labels, axis_codes(original.affine), side)
    write_volume(original.with_array(back.array), out / "labels.nii.gz")
    write_numbering(out / LABELS_FILE, dict(enumerate(trained.scheme.names, start=1)))
    write_volumes_csv(out / "volumes.csv", case, trained.scheme, volumes)
    overview_figure(image, labels, trained.scheme, out / "overview.png", case)
    return dict(zip(trained.scheme.names, volumes.tolist(), strict=True))


def _check_same_dataset(known: Dataset, knees: Sequence[Knee], table: Path) -> None:
    """Cases that are no longer in the table leave the dataset; a table without any of them is a mistake."""
    wanted = {knee.case for knee in knees}
    dropped = [case.name for case in known.cases if case.name not in wanted]
    if dropped and len(dropped) == len(known.cases):
        raise ValueError(
            f"{known.folder} holds {len(dropped)} cases, none of which is in {table}; give another folder, or remove it"
        )
    if dropped:
        log.warning("%d cases are not in %s and leave the dataset: %s", len(dropped), table, ", ".join(dropped[:5]))


def _score(truth: Volume, labels: Volume, scheme: Scheme) -> Scores:
    return Scores(confusion_matrix(truth.array, labels.array, scheme.classes), scheme.names)


def _scored(
    views: Iterator[tuple[str, Volume]], truth: Volume, scheme: Scheme, scores: dict[str, Scores]
) -> Iterator[tuple[str, Volume]]:
    """Views, handed on one at a time; the score of each goes into `scores` on the way."""
    for name, view in views:
        scores[name] = _score(truth, decide(view), scheme)
        yield name, view
        del view  # or it would live on while the next one is made
