"""Train the networks of views: on this machine, on a Ray cluster, or through Slurm."""

from __future__ import annotations

import csv
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d.api.cross_validation import CrossValidationResult, FoldScores
from knee3d.api.dataset import Dataset
from knee3d.api.knee_model import KneeModel
from knee3d.api.segment_config import SegmentConfig
from knee3d.atomic import whole_file
from knee3d.choices import check_choice, check_type
from knee3d.cluster import ClusterJob
from knee3d.cluster.ray_jobs import run_on_ray
from knee3d.cluster.slurm_jobs import submit_to_slurm
from knee3d.dataset.case_collection import CaseCollection, load_cases
from knee3d.dataset.split import Folds, dataset_of_fold
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import OBLIQUE
from knee3d.models.fusion_file import fusion_files, load_fusion
from knee3d.models.model_folder import is_trained, list_networks, trained_views
from knee3d.models.starter import STARTER
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.progress import lines_shown

if TYPE_CHECKING:
    from knee3d.training.config import RunOptions, TrainConfig

log = logging.getLogger(__name__)

CURVES = "curves.png"


@dataclass(frozen=True)
class TrainExecution:
    """Where views are trained.

    Attributes:
        launcher: "local": on this machine, one after another. "ray": at the same time on the machines of a Ray cluster.
            "slurm": one Slurm job for each. The dataset and the models lie on a disk that all machines share.
        address: Address of the Ray cluster, HOST:PORT or "auto". None starts one on this machine.
        retries: How often a lost worker is replaced by one that goes on from its last checkpoint.
        slurm: Options of sbatch by name, such as {"partition": "gpu"}; True for an option without a value.

    Raises:
        ValueError: There is no such launcher, or a setting is of another launcher.
    """

    launcher: str = "local"
    address: str | None = None
    retries: int = 3
    slurm: Mapping[str, str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("launcher", self.launcher, ("local", "ray", "slurm"))
        if self.launcher != "ray" and self.address is not None:
            raise ValueError("--address needs --launcher ray")
        if self.launcher != "slurm" and self.slurm:
            raise ValueError("--slurm needs --launcher slurm")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, got {self.retries}")


@dataclass(frozen=True)
class TrainingTask:
    """One view to train, in words that another machine understands.

    Attributes:
        folder: The dataset's.
        view: Which, by name, see `training.view_setup`.
        models: The models folder.
        config: How.
        options: What to do about what is there already, callbacks, licence.
        fold: Its number and how many there are; None trains on the dataset's own split.
    """

    folder: Path
    view: str
    models: Path
    config: TrainConfig
    options: RunOptions
    fold: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.view if self.fold is None else f"{self.view} fold {self.fold[0]} of {self.fold[1]}"

    def dataset(self) -> CaseCollection:
        """The dataset, its patients dealt out for the fold."""
        dataset = load_cases(self.folder)
        return dataset if self.fold is None else dataset_of_fold(dataset, self.fold[1], self.fold[0], self.config.seed)


def train(
    data: Dataset | Path | str,
    models: Path | str = "models",
    *,
    planes: Plane | str | Sequence[Plane | str] = "all",
    config: TrainConfig | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    network: Any = None,
    loss: str | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cache: str | None = None,
    callbacks: Sequence[Any] = (),
    licence: str = "",
    population: str = "",
    folds: int | None = None,
    fold: int | None = None,
    execution: TrainExecution | None = None,
) -> KneeModel:
    """Train one network per plane and export each as a SavedModel. All visible GPUs share a batch (MirroredStrategy).

    A plane that is already trained with the same settings on the same slices is left alone. Each epoch prints a line,
    unless the logger "knee3d" has a handler or a level.

    Args:
        data: The dataset, with training and validation knees.
        models: The folder that gets a folder for each plane: SavedModel, model card, metrics.csv, TensorBoard logs.
        planes: "all" (three planes), one of them or several; "shared": one network for all planes; "oblique"; "volume".
        config: All settings. None takes the defaults, which are those of the paper.
        epochs: Number of times that the slices are shown. None takes that of `config`, as do the next five.
        batch_size: Slices in a step, over all devices together.
        learning_rate: Learning rate after the warm-up.
        network: Name of an architecture, such as "deeplab", or a function that builds one.
        loss: Name of the loss, such as "dice-ce".
        seed: Seed of weights, order and augmentation.
        resume: Whether to go on with a training that was interrupted, or that ended with fewer epochs.
        overwrite: Whether to replace models and trainings that are there; with `resume` only those of other settings.
        cache: Where decoded slices are kept: "memory" or a folder. None decodes PNGs at every epoch.
        callbacks: Keras callbacks to add to knee3d's.
        licence: Licence of the networks, which is written into their cards and SavedModels.
        population: Whose knees the networks are trained on, in words, which is written there, too.
        folds: Number of folds of a cross-validation over training and validation patients. None trains on the split.
        fold: Number of the only fold to train, from 1 on. None trains all.
        execution: Where planes are trained. None is this machine.

    Returns:
        The model: the networks and their fusion. Its weights are equal until `fit_fusion`.

    Raises:
        ValueError: A model of other settings or an interrupted training is there, a setting has a wrong value, the loss
            became NaN, or memory ran out.

    Example:
        >>> model = train(data, "models", epochs=100, resume=True)        # doctest: +SKIP
        >>> model                                                         # doctest: +SKIP
        KneeModel('models', axial + coronal + sagittal, compartments: femoral cartilage, tibial cartilage, ...)
    """
    from knee3d.training.config import RunOptions, TrainConfig

    told = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "network": network,
            "loss": loss, "seed": seed}  # fmt: skip
    given = {name: value for name, value in told.items() if value is not None}
    check_type("config", config or TrainConfig(), TrainConfig)
    settings = (config or TrainConfig()).with_options(**given)
    options = RunOptions(resume, overwrite, cache, tuple(callbacks), None, licence, population)
    folder, where = _whole_dataset(data), execution or TrainExecution()
    views = _views(planes)
    if folds is None and fold is not None:
        raise ValueError("--fold needs --folds, how many there are")
    with lines_shown():
        if folds is None:
            train_views(folder, views, Path(models), settings, options, where)
        else:
            cross_validate(folder, views, Path(models), settings, Folds(folds, fold), options, where)
    oblique = settings.sampling.directions if views == [OBLIQUE] and not trained_views(Path(models)) else 0
    return KneeModel(Path(models), SegmentConfig(oblique_views=oblique))


def _whole_dataset(data: Dataset | Path | str) -> Path:
    """The folder of a dataset, all of whose knees are to be trained on.

    Raises:
        ValueError: Some of its knees were left out, or its scheme was changed: training reads what is on disk.
    """
    dataset = Dataset.of(data)
    if isinstance(data, Dataset):
        there = Dataset.load(data.folder)
        if there.scheme != data.scheme or {case.name for case in there.cases} != {case.name for case in data.cases}:
            raise ValueError(
                f"training takes all knees of {data.folder} with the scheme that they were prepared with, but some "
                "were left out or the scheme was changed; prepare a dataset of those knees"
            )
    return dataset.folder


def _views(planes: Plane | str | Sequence[Plane | str]) -> list[str]:
    """Names of views."""
    several = [planes] if isinstance(planes, Plane | str) else list(planes)
    names = [str(getattr(one, "value", one)) for one in several]
    return [plane.value for plane in Plane] if names == ["all"] else names


def train_views(
    folder: Path | str,
    views: Sequence[Plane | str],
    models: Path | str,
    config: TrainConfig,
    options: RunOptions,
    execution: TrainExecution = TrainExecution(),  # noqa: B008 it is frozen
) -> list[Path]:
    """Train views; see `training.train_view.train_view`. Returns the folders of those that are done."""
    folder, models = Path(folder), Path(models)
    names = _views(views)
    _train([TrainingTask(folder, view, models, config, options) for view in names], execution)
    return [models / view for view in names if is_trained(models, view)]


def cross_validate(
    folder: Path,
    views: Sequence[Plane | str],
    models: Path,
    config: TrainConfig,
    folds: Folds,
    options: RunOptions,
    execution: TrainExecution = TrainExecution(),  # noqa: B008 it is frozen
) -> CrossValidationResult:
    """Train views on each fold of the training and validation patients.

    Args:
        folder: The dataset's; its test patients are left alone.
        views: Which, by name.
        models: Gets fold-1-of-5/<view> and so on, and folds.json.
        config: How; its seed deals the patients out, too.
        folds: How many, and which of them.
        options: What to do about what is there already, callbacks, licence.
        execution: Where views are trained.

    Returns:
        What folds.json holds, of the folds trained by now: for each view the validation Dice of each fold, their mean
        and standard deviation.
    """
    from knee3d.models.model_card import load_card

    homes = {number: models / f"fold-{number}-of-{folds.count}" for number in range(1, folds.count + 1)}
    tasks = [
        TrainingTask(folder, view, homes[number], config, options, (number, folds.count))
        for number in folds.chosen
        for view in _views(views)
    ]
    if own := list_networks(models, need=False):
        log.warning(
            "%s has networks of its own (%s), which fuse and segment take before the folds", models, ", ".join(own)
        )
    _train(tasks, execution)
    dice: dict[str, dict[str, float]] = {}
    there = [view for home in homes.values() for view in list_networks(home, need=False)]
    for view in dict.fromkeys([*_views("all"), *there]):
        done = {number: load_card(home, view) for number, home in homes.items() if is_trained(home, view)}
        if done:
            dice[view] = {str(number): card.training_result.scores["val_dice"] for number, card in done.items()}
    result = CrossValidationResult(folds.count, {view: FoldScores.of(scores) for view, scores in dice.items()})
    result.write(models / "folds.json")
    return result


def _train(tasks: Sequence[TrainingTask], execution: TrainExecution) -> None:
    from knee3d.training.train_view import prepare_training_folder

    if execution.launcher == "local":
        for task in tasks:
            log.info("%s", task.name)
            train_here(task)
        return
    jobs = []
    for task in tasks:
        if prepare_training_folder(task.dataset(), task.view, task.models, task.config, task.options):
            # What is there was looked at just now, so that a job goes on with it, and so does one in its place.
            init = task.config.network.init
            config = task.config.with_options(init=init if init in (None, STARTER) else str(Path(init).absolute()))
            options = replace(task.options, resume=True, overwrite=False)
            task = replace(
                task, folder=task.folder.absolute(), models=task.models.absolute(), config=config, options=options
            )
            jobs.append(ClusterJob(task.name, task.models / task.view, partial(train_on_cluster, task)))
    if not jobs:
        return
    if execution.launcher == "ray":
        run_on_ray(jobs, execution.address, execution.retries)
    else:
        submit_to_slurm(jobs, jobs[0].folder.parent / "slurm", execution.slurm, execution.retries)


def train_here(task: TrainingTask) -> Path:
    """Train a view on this machine; returns the model's folder."""
    from knee3d.report.confusion_figure import confusion_figure
    from knee3d.training.train_view import train_view

    def draw(scores: OverlapScores, path: Path) -> None:
        confusion_figure({"validation": scores}, path)

    options = replace(task.options, draw_confusion=draw)
    return train_view(task.dataset(), task.view, task.models, task.config, options)


def train_on_cluster(task: TrainingTask) -> Path:
    """`train_here` on another machine, whose name its errors bear."""
    try:
        if not task.models.is_dir():
            raise ValueError(f"{task.models} is not there: it must lie on a disk that all machines share")
        return train_here(task)
    except (ValueError, OSError) as error:
        raise ValueError(f"on {socket.gethostname()}: {error}") from error


def encoder_weights_problem(encoder_weights: str, encoder: str = "vgg16") -> str:
    """Why the first weights of an encoder cannot be had on this machine; empty where they can.

    Args:
        encoder_weights: "imagenet", "none" or a path.
        encoder: Name of the encoder.
    """
    from knee3d.networks.encoder import EncoderWeightsError, find_encoder_weights

    try:
        find_encoder_weights(encoder_weights, encoder)
    except EncoderWeightsError as error:
        return str(error)
    return ""


def write_model_card_page(models: Path) -> Path:
    """Write CARD.md, and curves.png of each network, into a models folder; returns the page.

    Raises:
        FileNotFoundError: No plane was trained to the end.
        ValueError: A card, metrics.csv or a fusion.json cannot be read.
    """
    from jinja2 import UndefinedError

    from knee3d.models.model_card import load_card
    from knee3d.report.model_card_page import curves_figure, render_model_cards

    cards = {}
    fusions = [fusion for path in fusion_files(models) if (fusion := load_fusion(path))]
    for view in list_networks(models):
        cards[view] = load_card(models, view)
        history = _history(models / view / "metrics.csv")
        curves_figure(history, view, models / view / CURVES)
    page = models / "CARD.md"
    if page.exists() and "# Knee cartilage networks" not in page.read_text(errors="replace"):
        raise ValueError(f"{page} is there and is not knee3d's; move it away")
    with whole_file(page) as partial:
        try:
            partial.write_text(render_model_cards(cards, fusions, CURVES))
        except (UndefinedError, ValueError) as error:
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

    for view in list_networks(models):
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
