"""Journeys from trained planes to their fusion and its scores."""

import logging
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from knee3d.anatomy.tissue import Scheme
from knee3d.anatomy.volume import Volume
from knee3d.dataset.cases import Split, load_dataset
from knee3d.models import check_match, check_not_tested, load_models, save_fusion
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.contested import Stored, contested, save_contested
from knee3d.postprocess.decide import decide
from knee3d.postprocess.weights import Fusion, Wanted, fit

log = logging.getLogger(__name__)


EVIDENCE = "fusion.evidence"


def fuse(folder: Path, models: Path, wanted: Wanted | None = None) -> Fusion:
    """Fit fusion weights on the validation split and write them beside the models.

    What the networks say of each knee is kept in MODELS/fusion.evidence, as far as fusion depends on it, so that a
    killed run goes on, and other ways of fusion need no networks.

    Args:
        folder: The dataset's.
        models: The networks'; gets fusion.json.
        wanted: How; the paper's way by default.

    Raises:
        ValueError: A validation patient was trained on, or tested on, or there is no tissue to fit on.
    """
    dataset, trained = load_dataset(folder), load_models(models, fused=False)
    cases = dataset.of_split(Split.VAL)
    check_match(dataset, trained, cases, (Split.TRAIN,))
    check_not_tested(dataset, trained, cases)
    paths = [models / EVIDENCE / f"{case.name}-{trained.mark_with(case.fingerprint)}.npz" for case in cases]
    for case, path in zip(cases, paths, strict=True):
        if not path.is_file():
            views = dict(trained.ensemble.views(dataset.image(case), f"fusing {case.name}"))
            path.parent.mkdir(exist_ok=True)
            save_contested(contested(dataset.mask(case), views, case.patient), path)
    for old in set((models / EVIDENCE).glob("*.npz")) - set(paths):
        old.unlink()
    fusion = fit(Stored(tuple(paths)), wanted or Wanted())
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
        labels = trained.ensemble.decided(trained.ensemble.fused(views))
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
