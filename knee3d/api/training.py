"""Journeys from a dataset to trained networks: here, on a Ray cluster, or through Slurm."""

import csv
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from knee3d.atomic import whole_file
from knee3d.cluster import ClusterJob
from knee3d.cluster.ray_jobs import run_on_ray
from knee3d.cluster.slurm_jobs import run_on_slurm
from knee3d.dataset.case_collection import CaseCollection, load_cases
from knee3d.dataset.split import Folds, dataset_of_fold
from knee3d.geometry.plane import Plane
from knee3d.models.fusion_file import fusion_files, load_fusion
from knee3d.models.model_folder import all_trained, is_trained
from knee3d.postprocess.confusion_matrix import OverlapScores

if TYPE_CHECKING:
    from knee3d.training.config import ResumeOptions, TrainConfig, TrainingExtras

log = logging.getLogger(__name__)

CURVES = "curves.png"


@dataclass(frozen=True)
class TrainingLauncher:
    """Where planes are trained.

    Attributes:
        kind: "local": here, one after another. "ray": at the same time on the machines of a Ray cluster. "slurm": one
            Slurm job each. The dataset and the models lie on a disk that all machines share.
        address: Address of the Ray cluster, see `cluster.ray_jobs`.
        retries: How often a lost worker is replaced by one that goes on from its last checkpoint.
        slurm: See `run_on_slurm`.
        going: What to do about what is there already.
        extras: What trainings are given beside their settings.
    """

    kind: str = "local"
    address: str | None = None
    retries: int = 3
    slurm: Mapping[str, str | bool] = field(default_factory=dict)
    going: "ResumeOptions | None" = None
    extras: "TrainingExtras | None" = None


@dataclass(frozen=True)
class TrainingTask:
    """One view to train, in words that another machine understands.

    Attributes:
        folder: The dataset's.
        view: Which, by name, see `training.training_view`.
        models: The models folder.
        config: How.
        fold: Its number and how many there are; None trains on the dataset's own split.
        extras: What is given beside the settings.
    """

    folder: Path
    view: str
    models: Path
    config: "TrainConfig"
    fold: tuple[int, int] | None = None
    extras: "TrainingExtras | None" = None

    @property
    def name(self) -> str:
        """For people."""
        return self.view if self.fold is None else f"{self.view} fold {self.fold[0]} of {self.fold[1]}"

    def dataset(self) -> CaseCollection:
        """The dataset, its patients dealt out for the fold."""
        dataset = load_cases(self.folder)
        return dataset if self.fold is None else dataset_of_fold(dataset, self.fold[1], self.fold[0], self.config.seed)


def train_views(
    folder: Path,
    views: Sequence[Plane | str],
    models: Path,
    config: "TrainConfig",
    launcher: TrainingLauncher = TrainingLauncher(),  # noqa: B008 it is frozen
) -> list[Path]:
    """Train views; see `training.train_view.train_view`. Returns the folders of those that are done."""
    folder, models = Path(folder), Path(models)
    names = _names(views)
    _train([TrainingTask(folder, view, models, config, extras=launcher.extras) for view in names], launcher)
    return [models / view for view in names if is_trained(models, view)]


def cross_validate(
    folder: Path,
    views: Sequence[Plane | str],
    models: Path,
    config: "TrainConfig",
    folds: Folds,
    launcher: TrainingLauncher = TrainingLauncher(),  # noqa: B008 it is frozen
) -> dict[str, Any]:
    """Train views on each fold of the training and validation patients.

    Args:
        folder: The dataset's; its test patients are left alone.
        views: Which, by name.
        models: Gets fold-1-of-5/<view> and so on, and folds.json.
        config: How; its seed deals the patients out, too.
        folds: How many, and which of them.
        launcher: Where.

    Returns:
        What folds.json holds, of the folds trained by now: for each view the validation Dice of each fold, their mean
        and standard deviation (None for fewer than two).
    """
    from knee3d.models.model_card import load_card
    from knee3d.report.tables import write_json

    homes = {number: models / f"fold-{number}-of-{folds.count}" for number in range(1, folds.count + 1)}
    tasks = [
        TrainingTask(folder, view, homes[number], config, (number, folds.count), launcher.extras)
        for number in folds.chosen
        for view in _names(views)
    ]
    if own := all_trained(models, need=False):
        log.warning(
            "%s has networks of its own (%s), which fuse and segment take before the folds", models, ", ".join(own)
        )
    _train(tasks, launcher)
    dice: dict[str, dict[str, float]] = {}
    there = [view for home in homes.values() for view in all_trained(home, need=False)]
    for view in dict.fromkeys([*_names(list(Plane)), *there]):
        done = {number: load_card(home, view) for number, home in homes.items() if is_trained(home, view)}
        if done:
            dice[view] = {str(number): card["scores"]["val_dice"] for number, card in done.items()}
    summary = {"folds": folds.count, "planes": {view: _spread(scores) for view, scores in dice.items()}}
    write_json(summary, models / "folds.json")
    return summary


def _names(views: Sequence[Plane | str]) -> list[str]:
    return [view if isinstance(view, str) else view.value for view in views]


def _spread(scores: dict[str, float]) -> dict[str, Any]:
    values = list(scores.values())
    return {"val_dice": scores, "mean": mean(values), "sd": stdev(values) if len(values) > 1 else None}


def _train(tasks: Sequence[TrainingTask], launcher: TrainingLauncher) -> None:
    from knee3d.training.config import ResumeOptions, TrainingExtras
    from knee3d.training.train_view import prepare_training_folder

    going = launcher.going or ResumeOptions()
    if launcher.kind == "local":
        for task in tasks:
            log.info("%s", task.name)
            train_here(task, going)
        return
    jobs = []
    for task in tasks:
        if prepare_training_folder(
            task.dataset(), task.view, task.models, task.config, going, task.extras or TrainingExtras()
        ):
            # What is there was looked at just now, so that a job goes on with it, and so does one in its place.
            config = replace(task.config, init=task.config.init and str(Path(task.config.init).absolute()))
            task = replace(task, folder=task.folder.absolute(), models=task.models.absolute(), config=config)
            work = partial(train_elsewhere, task, replace(going, resume=True, overwrite=False))
            jobs.append(ClusterJob(task.name, task.models / task.view, work))
    if not jobs:
        return
    if launcher.kind == "ray":
        run_on_ray(jobs, launcher.address, launcher.retries)
    else:
        run_on_slurm(jobs, jobs[0].folder.parent / "slurm", launcher.slurm, launcher.retries)


def train_here(task: TrainingTask, going: "ResumeOptions") -> Path:
    """Train a view on this machine; returns the model's folder."""
    from knee3d.report.confusion_figure import confusion_figure
    from knee3d.training.config import TrainingExtras
    from knee3d.training.train_view import train_view

    def draw(scores: OverlapScores, path: Path) -> None:
        confusion_figure({"validation": scores}, path)

    extras = replace(task.extras or TrainingExtras(), draw_confusion=draw)
    return train_view(task.dataset(), task.view, task.models, task.config, going, extras)


def train_elsewhere(task: TrainingTask, going: "ResumeOptions") -> Path:
    """`train_here` on another machine, whose name its errors bear."""
    try:
        if not task.models.is_dir():
            raise ValueError(f"{task.models} is not there: it must lie on a disk that all machines share")
        return train_here(task, going)
    except (ValueError, OSError) as error:
        raise ValueError(f"on {socket.gethostname()}: {error}") from error


def write_card_page(models: Path) -> Path:
    """Write CARD.md, and curves.png of each network, into a models folder; returns the page.

    Raises:
        FileNotFoundError: No plane was trained to the end.
        ValueError: A card, metrics.csv or a fusion.json cannot be read.
    """
    from jinja2 import UndefinedError

    from knee3d.models.model_card import load_card
    from knee3d.report.model_card_page import curves_figure, model_cards

    cards = {}
    for view in all_trained(models):
        cards[view] = load_card(models, view)
        history = _history(models / view / "metrics.csv")
        curves_figure(history, view, models / view / CURVES)
    page = models / "CARD.md"
    with whole_file(page) as partial:
        try:
            fusions = [fusion for path in fusion_files(models) if (fusion := load_fusion(path))]
            partial.write_text(model_cards(cards, fusions, CURVES))
        except (KeyError, TypeError, UndefinedError) as error:
            raise ValueError(f"a card in {models} is not one that this version wrote ({error}); train again") from error
    return page


def export_models_to_onnx(models: Path, out: Path) -> Iterator[tuple[Path, float | Exception]]:
    """Write every trained network as ONNX.

    Args:
        models: The networks'.
        out: Gets a folder for each network.

    Yields:
        Each folder, and by how much its probabilities differ from the network's, or why it was not written.

    Raises:
        FileNotFoundError: No network was trained to the end.
    """
    from knee3d.models.onnx_export import export_onnx

    for view in all_trained(models):
        try:
            yield out / view, export_onnx(models, view, out / view)
        except (ValueError, RuntimeError) as error:
            yield out / view, error


def _history(path: Path) -> dict[str, list[float]]:
    try:
        with path.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return {name: [row[name] for row in rows] for name in rows[0]}
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not readable ({error}); train this plane again") from error
