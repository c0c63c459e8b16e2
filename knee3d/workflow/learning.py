"""Journeys from a dataset to scores."""

import csv
import logging
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import Scheme
from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Dataset, Split, load_dataset
from knee3d.dataset.split import Folds, fold_of
from knee3d.models import check_match, load_fusion, load_models, save_fusion
from knee3d.postprocess.blend import blend
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.decide import decide
from knee3d.postprocess.weights import Fusion, contested, fit_weights

if TYPE_CHECKING:
    from knee3d.learn.config import Going, TrainConfig

log = logging.getLogger(__name__)

CURVES = "curves.png"


def train(
    folder: Path, planes: Sequence[Plane], models: Path, config: "TrainConfig", going: "Going | None" = None
) -> list[Path]:
    """Train planes one after another; see `learn.training.train_plane`. Returns the models' folders."""
    return _train(load_dataset(folder), planes, models, config, going)


def _train(
    dataset: Dataset, planes: Sequence[Plane], models: Path, config: "TrainConfig", going: "Going | None"
) -> list[Path]:
    from knee3d.learn.config import Going
    from knee3d.learn.training import train_plane
    from knee3d.report.figures import confusion_figure

    def draw(scores: Scores, path: Path) -> None:
        confusion_figure({"validation": scores}, path)

    return [train_plane(dataset, plane, models, config, going or Going(), draw) for plane in planes]


def cross_validate(
    folder: Path,
    planes: Sequence[Plane],
    models: Path,
    config: "TrainConfig",
    folds: Folds,
    going: "Going | None" = None,
) -> dict[str, Any]:
    """Train planes on each fold of the training and validation patients.

    Args:
        folder: The dataset's; its test patients are left alone.
        planes: Which.
        models: Gets fold-1-of-5/<plane> and so on, and folds.json.
        config: How; its seed deals the patients out, too.
        folds: How many, and which of them.
        going: What to do about what is there already.

    Returns:
        What folds.json holds, of the folds trained by now: for each plane the validation Dice of each fold, their mean
        and standard deviation (None for fewer than two).
    """
    from knee3d.learn.card import load_card
    from knee3d.report.tables import write_json

    dataset = load_dataset(folder)
    homes = {number: models / f"fold-{number}-of-{folds.count}" for number in range(1, folds.count + 1)}
    for number in folds.chosen:
        mine = fold_of(dataset, folds.count, number, config.seed)
        log.info("fold %d of %d", number, folds.count)
        _train(mine, planes, homes[number], config, going)
    dice: dict[str, dict[str, float]] = {}
    for plane in Plane:
        done = {n: load_card(home, plane) for n, home in homes.items() if (home / plane.value / "card.json").is_file()}
        if done:
            dice[plane.value] = {str(number): card["scores"]["val_dice"] for number, card in done.items()}
    summary = {"folds": folds.count, "planes": {plane: _spread(scores) for plane, scores in dice.items()}}
    write_json(summary, models / "folds.json")
    return summary


def _spread(scores: dict[str, float]) -> dict[str, Any]:
    values = list(scores.values())
    return {"val_dice": scores, "mean": mean(values), "sd": stdev(values) if len(values) > 1 else None}


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


def card(models: Path) -> Path:
    """Write CARD.md, and curves.png of each plane, into a models folder; returns the page.

    Raises:
        FileNotFoundError: No plane was trained to the end.
        ValueError: A card, metrics.csv or fusion.json cannot be read.
    """
    from knee3d.learn.card import load_card
    from knee3d.report.modelcard import curves_figure, model_cards

    cards = {}
    for plane in Plane:
        if (models / plane.value / "card.json").is_file():
            cards[plane.value] = load_card(models, plane)
            history = _history(models / plane.value / "metrics.csv")
            curves_figure(history, plane.value, models / plane.value / CURVES)
    if not cards:
        raise FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")
    page = models / "CARD.md"
    with whole_file(page) as partial:
        try:
            partial.write_text(model_cards(cards, load_fusion(models), CURVES))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a card in {models} is not one that this version wrote ({error}); train again") from error
    return page


def _history(path: Path) -> dict[str, list[float]]:
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return {name: [row[name] for row in rows] for name in rows[0]}
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not readable ({error}); train this plane again") from error


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
