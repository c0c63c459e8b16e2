"""All epochs of one network: from where they were left to the last one."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from knee3d.anatomy.tissue import Scheme
from knee3d.learn.augment import STRENGTHS
from knee3d.learn.config import TrainConfig
from knee3d.learn.cutting import Cutting
from knee3d.learn.loop import Validated, distributed, train_epoch, training_step, validate, validation_step
from knee3d.learn.losses import LOSSES
from knee3d.learn.monitor import DrawConfusion, TensorBoard, table_head, table_line
from knee3d.learn.networks.encoder import without_encoder
from knee3d.learn.pipeline import Order, training_batches, validation_batches
from knee3d.learn.reading import Visits, reader
from knee3d.learn.run import History, Run
from knee3d.learn.schedule import MONITORED, Decisions, deciding_callbacks
from knee3d.progress import progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Task:
    """What one view's network is trained on, and how."""

    name: str
    scheme: Scheme
    config: TrainConfig
    cutting: Cutting
    train: Visits
    val: Visits


def fit(
    model: keras.Model,
    task: Task,
    run: Run,
    cache: str | None,
    draw_confusion: DrawConfusion | None,
    check: Callable[[], object],
) -> None:
    """Train for all epochs that are left, writing each down in the run's folder.

    Args:
        model: As it was built.
        task: Slices and settings.
        run: Whose newest checkpoint is gone on from, if there is one.
        cache: See `reading.reader`.
        draw_confusion: Draws the confusion matrix for TensorBoard; None leaves the page out.
        check: Called before an epoch is written down; raises an exception if the run's folder is another process's now.

    Raises:
        ValueError: Memory ran out, a slice cannot be read, or the loss became NaN.
    """
    config = task.config
    history = run.restore(model)
    log.info("%s: %d training and %d validation %s", task.name, task.train.count, task.val.count, task.cutting.called)
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
        log.info("%s: going on after epoch %d", task.name, len(history))
    if decisions.stopped or len(history) >= config.epochs:
        return
    try:
        board = _board(model, task, run, draw_confusion)
        for validated, speed in _epochs(model, task, cache, decisions, history):
            check()
            run.write_metrics(history)
            board.epoch(len(history), history[-1] | speed, validated.cases, model)
            run.save(model, history)  # the checkpoint last, so that what it counts as done is done
        _warn_of_missed(task, validated)
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            f"out of memory with --batch-size {config.batch_size}; try --batch-size {max(config.batch_size // 2, 1)}, "
            "--precision mixed_bfloat16, or see less at a time: a smaller --context, or --patch of unet3d"
        ) from error
    except tf.errors.OpError as error:
        for stack in (*task.train.stacks, *task.val.stacks):
            stack.load()  # names the PNG, if any, that stopped TensorFlow: its own account may lack the name
        first_line, *_ = error.message.strip().split("\n")  # what follows is TensorFlow's own stack
        raise ValueError(f"training stopped: {first_line}") from error


def _warn_of_missed(task: Task, validated: Validated) -> None:
    for name, dice in zip(task.scheme.names, validated.pooled.dice, strict=True):
        if dice == 0:
            log.warning("%s: finds no %s on validation; train longer, or look at the masks", task.name, name)


def _board(model: keras.Model, task: Task, run: Run, draw_confusion: DrawConfusion | None) -> TensorBoard:
    config = task.config
    board = TensorBoard(run.folder / "logs", task.scheme, task.val.stacks, task.cutting, draw_confusion)
    board.start(model, config.settings, next(iter(_stream(task, range(1), None))))
    return board


def _stream(task: Task, epochs: range, cache: str | None) -> tf.data.Dataset:
    config = task.config
    order = Order(config.seed, config.foreground_fraction, STRENGTHS[config.augment])
    read = reader(task.train.stacks, cache)
    return training_batches(task.train, task.cutting, config.batch_size, order, epochs, read)


def _epochs(
    model: keras.Model, task: Task, cache: str | None, decisions: Decisions, history: History
) -> Iterator[tuple[Validated, dict[str, float]]]:
    """Train and validate; each epoch adds to `history` and yields its validation and how fast it was."""
    config = task.config
    epochs = range(len(history), config.epochs)
    stream = distributed(_stream(task, epochs, cache))
    check = validation_batches(task.val, task.cutting, config.batch_size, reader(task.val.stacks, cache))
    loss, names = LOSSES[config.loss], task.scheme.names
    step = None
    val_step = validation_step(model, loss, config.loss_background, len(task.val.stacks))
    log.info("%s", table_head(task.cutting.called))
    for epoch in epochs:
        rate = decisions.begin(epoch)
        _seed_dropout(model, config.seed, epoch)
        frozen = epoch < config.freeze_encoder_epochs
        if epoch == config.freeze_encoder_epochs > 0:
            _forget_moments(model.optimizer)
        if step is None or epoch == config.freeze_encoder_epochs:
            variables = without_encoder(model, config.encoder) if frozen else model.trainable_variables
            step = training_step(model, variables, loss, config.loss_background, config.clip_norm, config.xla)
        started = time.perf_counter()
        sizes = task.train.sizes(config.batch_size)
        with progress(f"{task.name} epoch {epoch + 1}/{config.epochs}", len(sizes)) as advance:
            trained = train_epoch(step, stream, sizes, advance)
        of_sums = partial(loss.of_sums, background=config.loss_background)
        validated = validate(val_step, distributed(check), task.val.sizes(config.batch_size), names, of_sums)
        if not math.isfinite(trained.loss + validated.loss):
            raise ValueError(
                f"the loss became NaN in epoch {epoch + 1}; try a lower --learning-rate or --clip-norm 1"
                + (
                    "; or --precision mixed_bfloat16, which has more range"
                    if config.precision == "mixed_float16"
                    else ""
                )
            )
        pooled = validated.pooled
        history.append({
            "loss": trained.loss,
            "dice": trained.dice,
            "val_loss": validated.loss,
            MONITORED: validated.knee_loss,
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
            log.info("%s: no better validation Dice for %d epochs", task.name, config.stop_patience)
            return


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Let what is dropped be a function of seed and epoch, too (D32): Keras keeps no count of it in its files."""
    generators = [layer.seed_generator for layer in model._flatten_layers() if hasattr(layer, "seed_generator")]
    for number, generator in enumerate(generators):
        state = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
        generator.state.assign(state.astype(generator.state.dtype))


def _forget_moments(optimizer: keras.optimizers.Optimizer) -> None:
    """Let Adam start anew, at its learning rate: its correction for young moments counts steps from the first one."""
    adam = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in adam.variables:
        if variable is not adam._learning_rate:
            variable.assign(tf.zeros_like(variable.value))
