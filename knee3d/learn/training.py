"""One plane from slices to a SavedModel, however often it is interrupted."""

import fcntl
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from knee3d.anatomy.plane import Plane
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.dataset.png import read_slices
from knee3d.learn.augment import STRENGTHS
from knee3d.learn.building import build
from knee3d.learn.card import describe, differences, for_saved_model, load_card, model_folder
from knee3d.learn.config import Going, TrainConfig
from knee3d.learn.distribution import is_chief, strategy, total
from knee3d.learn.loop import Validated, distributed, train_epoch, training_step, validate, validation_step
from knee3d.learn.losses import LOSSES
from knee3d.learn.monitor import HEADER, DrawConfusion, TensorBoard, table_line
from knee3d.learn.networks.encoder import find_encoder_weights, without_encoder
from knee3d.learn.pipeline import Order, Slices, reader, slices_of, training_batches, validation_batches
from knee3d.learn.run import History, Run, environment, load_checkpoint
from knee3d.learn.savedmodel import export
from knee3d.learn.schedule import Decisions, deciding_callbacks
from knee3d.progress import progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Task:
    """What one plane is trained on, and how."""

    dataset: Dataset
    plane: Plane
    config: TrainConfig
    train: Slices
    val: Slices

    @property
    def val_cases(self) -> tuple[Case, ...]:
        """Those whose slices are in `val`, in the same order."""
        named = {case.name: case for case in self.dataset.of_split(Split.VAL)}
        return tuple(named[name] for name in self.val.names)


def train_plane(
    dataset: Dataset,
    plane: Plane,
    models: Path,
    config: TrainConfig,
    going: Going = Going(),  # noqa: B008 it is frozen
    draw_confusion: DrawConfusion | None = None,
) -> Path:
    """Train one plane's network and export it.

    Args:
        dataset: Prepared, with train and val cases.
        plane: Direction of slicing.
        models: Folder of all planes; this one goes to its own folder in it.
        config: How.
        going: What to do about what is there already.
        draw_confusion: Draws the confusion matrix for TensorBoard.

    Returns:
        The model's folder: `card.json`, `saved_model/`, and what `run` says but for the checkpoints. While it is being
        trained it is called `<plane>.training`, so that an interruption costs no finished model. A plane whose card
        says the same settings and data is left alone. Of processes that train together (TF_CONFIG) the first writes.

    Raises:
        ValueError: There is a model trained otherwise or a training interrupted, a split is empty, memory ran out, or
            the loss became NaN.
        EncoderWeightsError: See `find_encoder_weights`.
    """
    devices = strategy()
    folder = model_folder(models, plane)
    card = describe(dataset, plane, config.settings)
    if _is_done(models, plane, card, going):
        return folder
    weights = find_encoder_weights(config.encoder_weights)
    run = Run(folder.with_name(f"{folder.name}.training"))
    train, val = (
        slices_of(dataset, dataset.of_split(split), plane, config.limit_slices) for split in (Split.TRAIN, Split.VAL)
    )
    task = Task(dataset, plane, config, train, val)
    with _alone(run.folder) if is_chief() else nullcontext():
        if is_chief():
            _begin(run, card, going)
        keras.utils.set_random_seed(config.seed)
        with devices.scope():
            model = build(dataset.scheme.classes, config, weights)
        _train(model, task, run, going.cache, draw_confusion)
        if is_chief():
            _finish(run, model, card, task)
            shutil.rmtree(folder, ignore_errors=True)
            run.folder.rename(folder)
    return folder


def _is_done(models: Path, plane: Plane, card: dict[str, Any], going: Going) -> bool:
    """Whether the plane was trained so before.

    Raises:
        ValueError: It was trained otherwise and must not be overwritten.
    """
    folder = model_folder(models, plane)
    if going.overwrite or not (folder / "card.json").exists():
        return False
    differ = differences(load_card(models, plane), card)
    if differ:
        raise ValueError(f"{folder} holds a model with other {differ}; choose another --models or give --overwrite")
    log.info("%s: already trained with these settings on these cases, in %s", plane.value, folder)
    return True


def _begin(run: Run, card: dict[str, Any], going: Going) -> None:
    """Make the folder ready: to go on in it, or empty.

    Raises:
        ValueError: There is a training that was interrupted, and it is not said what to do, or it was another one.
    """
    there = run.read_json("card.json")
    if run.checkpoints and not going.overwrite:
        differ = differences(there or {}, card)
        if not going.resume:
            raise ValueError(
                f"{run.folder} holds an interrupted training; go on with --resume, or begin anew with --overwrite"
            )
        if differ:
            raise ValueError(
                f"{run.folder} holds a training with other {differ}; go on with those, or begin anew with --overwrite"
            )
    else:
        for leftover in run.folder.iterdir():
            if leftover.name != LOCK:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    for leftover in run.folder.rglob(".partial-*"):  # of a process that was killed while it wrote
        leftover.unlink()
    now = environment()
    if run.checkpoints and run.read_json("environment.json") not in (None, now):
        log.warning("the versions or devices are not those that this training began with; see environment.json")
    run.write_json("card.json", card)
    run.write_json("config.json", card["settings"])
    run.write_json("cases.json", {key: card[key] for key in ("cases", "patients", "data")})
    run.write_json("environment.json", now)


LOCK = ".lock"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder while this one trains.

    Raises:
        ValueError: Another one is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"another process is training in {folder}; wait for it, or choose another --models"
            ) from error
        yield


def _train(model: keras.Model, task: Task, run: Run, cache: str | None, draw_confusion: DrawConfusion | None) -> None:
    """All epochs that are left.

    Raises:
        ValueError: Memory ran out, a slice cannot be read, the loss became NaN, or workers do not share the folder.
    """
    config = task.config
    _sum_over_devices(0.0)  # nobody reads before the first has made the folder ready
    history = run.restore(model)
    devices = strategy().num_replicas_in_sync
    if _sum_over_devices(float(len(history))) != len(history) * devices:
        raise ValueError(f"not every worker sees the same checkpoints in {run.folder}; it must be one shared folder")
    log.info("%s: %d training and %d validation slices", task.plane.value, task.train.count, task.val.count)
    decisions = Decisions(
        deciding_callbacks(
            config.learning_rate,
            config.epochs,
            config.schedule,
            config.warmup_epochs,
            config.plateau,
            config.stop_patience,
        ),
        model,
        history,
    )
    if history:
        log.info("%s: going on after epoch %d", task.plane.value, len(history))
    if decisions.stopped or len(history) >= config.epochs:
        return
    try:
        board = _board(model, task, run, draw_confusion) if is_chief() else None
        for validated, speed in _epochs(model, task, cache, decisions, history):
            if board is not None:  # the checkpoint last, so that what it counts as done is done
                run.write_metrics(history)
                board.epoch(len(history), history[-1] | speed, validated.cases, model)
                run.save(model, history)
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            f"out of memory with --batch-size {config.batch_size}; try --batch-size {max(config.batch_size // 2, 1)}, "
            "--precision mixed_bfloat16 or a smaller --context"
        ) from error
    except tf.errors.OpError as error:
        for slices in (task.train, task.val):
            _check_slices(slices)
        raise ValueError(f"training stopped: {error.message}") from error


def _board(model: keras.Model, task: Task, run: Run, draw_confusion: DrawConfusion | None) -> TensorBoard:
    config = task.config
    board = TensorBoard(run.folder / "logs", task.dataset, task.plane, task.val_cases, config.context, draw_confusion)
    board.start(model, config.settings, next(iter(_stream(task, range(1), None))))
    return board


def _stream(task: Task, epochs: range, cache: str | None) -> tf.data.Dataset:
    config = task.config
    order = Order(config.seed, config.foreground_fraction, STRENGTHS[config.augment])
    read = reader(task.train, cache)
    return training_batches(task.train, config.context, config.batch_size, order, epochs, read)


def _epochs(
    model: keras.Model, task: Task, cache: str | None, decisions: Decisions, history: History
) -> Iterator[tuple[Validated, dict[str, float]]]:
    """Train and validate; each epoch adds to `history` and yields its validation and how fast it was."""
    config = task.config
    epochs = range(len(history), config.epochs)
    stream = distributed(_stream(task, epochs, cache))
    check = validation_batches(task.val, config.context, config.batch_size, reader(task.val, cache))
    loss, names = LOSSES[config.loss], task.dataset.scheme.names
    step = None
    val_step = validation_step(model, loss, config.loss_background, len(task.val.names))
    log.info("%s", HEADER)
    for epoch in epochs:
        rate = decisions.begin(epoch)
        frozen = epoch < config.freeze_encoder_epochs
        if epoch == config.freeze_encoder_epochs > 0:
            _forget_moments(model.optimizer)
        if step is None or epoch == config.freeze_encoder_epochs:
            variables = without_encoder(model) if frozen else model.trainable_variables
            step = training_step(model, variables, loss, config.loss_background, config.clip_norm, config.xla)
        started = time.perf_counter()
        sizes = task.train.sizes(config.batch_size)
        with progress(f"{task.plane.value} epoch {epoch + 1}/{config.epochs}", len(sizes)) as advance:
            trained = train_epoch(step, stream, sizes, advance)
        if not math.isfinite(trained.loss):
            raise ValueError(
                f"the loss became NaN in epoch {epoch + 1}; try a lower --learning-rate or --clip-norm 1"
                + (
                    "; or --precision mixed_bfloat16, which has more range"
                    if config.precision == "mixed_float16"
                    else ""
                )
            )
        validated = validate(val_step, distributed(check), task.val.sizes(config.batch_size), names)
        pooled = sum(validated.cases[1:], validated.cases[0])
        history.append({
            "loss": trained.loss,
            "dice": trained.dice,
            "val_loss": validated.loss,
            "val_dice": float(np.nan_to_num(pooled.mean_dice)),
            "val_foreground_dice": float(np.nan_to_num(pooled.foreground_dice)),
            "learning_rate": rate,
        })  # fmt: skip
        speed = {"slices_per_s": task.train.count / trained.seconds, "waited": trained.waited}
        stop = decisions.end(epoch, history[-1])
        seconds = time.perf_counter() - started
        log.info("%s", table_line(epoch + 1, config.epochs, history[-1] | speed, seconds * (config.epochs - epoch - 1)))
        yield validated, speed
        if stop:
            log.info("%s: no better validation Dice for %d epochs", task.plane.value, config.stop_patience)
            return


def _forget_moments(optimizer: keras.optimizers.Optimizer) -> None:
    """Let Adam start anew, at its learning rate: its correction for young moments counts steps from the first one."""
    adam = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in adam.variables:
        if variable is not adam._learning_rate:
            variable.assign(tf.zeros_like(variable.value))


def _finish(run: Run, model: keras.Model, card: dict[str, Any], task: Task) -> None:
    """Export the best epoch and write the card."""
    scores = load_checkpoint(model, run.best)
    with whole_file(run.folder / "model.keras") as partial:
        model.save(partial, include_optimizer=False)
    shutil.rmtree(run.folder / "saved_model", ignore_errors=True)
    parity = export(model, run.folder / "saved_model", for_saved_model(card))
    run.write_json(
        "card.json",
        card
        | {
            "slices": {"train": task.train.count, "val": task.val.count},
            "scores": {"best_epoch": len(scores), **scores[-1]},
            "saved_model_differs_by": parity,
            "environment": run.read_json("environment.json"),
        },
    )
    shutil.rmtree(run.folder / "checkpoints")
    run.best.unlink()
    (run.folder / LOCK).unlink()


def _sum_over_devices(value: float) -> float:
    """The sum of a number over all devices of all workers, which all wait for it."""
    devices = strategy()
    summed = devices.run(lambda: total(tf.constant(value)))
    return float(devices.experimental_local_results(summed)[0])


def _check_slices(slices: Slices) -> None:
    """Name the PNG, if any, that stopped TensorFlow: its own account may lack the name.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: It is no readable PNG.
    """
    for paths in (*slices.images, *slices.masks):
        read_slices([Path(path) for path in paths])
