"""Fit one network: all epochs that are left, by Keras' `fit`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d.labels.label_scheme import LabelScheme
from knee3d.losses import LOSSES
from knee3d.models.backend import gpu_names
from knee3d.models.devices import describe_devices
from knee3d.networks.augmentation import STRENGTHS, DrawnAugmentation
from knee3d.training import input_pipeline
from knee3d.training.callbacks import (
    REMEMBERED,
    EpochTable,
    FreezeEncoder,
    ReplayHistory,
    RunningAverage,
    SaveCheckpoints,
    SeedDropout,
    replay_history,
)
from knee3d.training.config import RunOptions, TrainConfig
from knee3d.training.sample_index import SampleIndex, volume_reader
from knee3d.training.sampler import Sampler
from knee3d.training.schedule import schedule_callbacks
from knee3d.training.tensorboard import TensorBoard
from knee3d.training.trainer import StepOptions, Trainer
from knee3d.training.training_folder import TrainingFolder

log = logging.getLogger(__name__)

MOST_OF_FIRST_WEIGHTS = 0.02
"""A running average that holds a larger share of the first weights at the end of a training is warned of."""


@dataclass(frozen=True, eq=False)
class FitTask:
    """What one view's network is trained on, and how.

    Attributes:
        name: Of the view.
        scheme: Classes.
        config: Settings.
        sampler: What the network is shown of a stack at a time.
        train: What an epoch of training sees.
        val: What an epoch of validation sees.
        options: The user's callbacks, and pictures.
    """

    name: str
    scheme: LabelScheme
    config: TrainConfig
    sampler: Sampler
    train: SampleIndex
    val: SampleIndex
    options: RunOptions = RunOptions()


def fit_network(
    model: keras.Model, task: FitTask, run: TrainingFolder, cache: str | None, check: Callable[[], object]
) -> None:
    """Train for all epochs that are left, writing each down in the run's folder.

    Args:
        model: As it was built, in the scope of a strategy.
        task: Slices and settings.
        run: Whose newest checkpoint is gone on from, if there is one.
        cache: See `sample_index.volume_reader`.
        check: Called before an epoch is written down; raises an exception if the run's folder is another process's now.

    Raises:
        ValueError: Memory ran out, a slice cannot be read, or the loss became NaN.
    """
    config = task.config
    history = run.restore(model)
    log.info(
        "%s: %d training and %d validation %s", task.name, task.train.count, task.val.count, task.sampler.sample_name
    )
    devices = model.distribute_strategy
    log.info("%s: computing on %s", task.name, describe_devices(gpu_names(), devices.num_replicas_in_sync))
    deciding = schedule_callbacks(
        config.optimizer.learning_rate,
        config.schedule.epochs,
        config.schedule.schedule,
        config.schedule.warmup_epochs,
        config.schedule.plateau,
        config.schedule.stop_patience,
    )
    if history:
        log.info("%s: going on after epoch %d", task.name, len(history))
    deciding += [one for one in task.options.callbacks if isinstance(one, REMEMBERED)]
    if replay_history(deciding, model, history) or len(history) >= config.schedule.epochs:
        if len(history) < config.schedule.epochs:
            log.info("%s: ended early, after epoch %d", task.name, len(history))
        return
    strength, cut = STRENGTHS[config.augmentation.augment], task.sampler
    frames = [cut.size_and_aspect(stack.shape, stack.voxel_mm) for stack in task.train.stacks]
    augmentation = None if strength is None else DrawnAugmentation(strength, frames)
    with devices.scope():
        learning = StepOptions(config.optimizer.clip_norm, config.optimizer.xla, augmentation)
        loss = LOSSES[config.optimizer.loss](background=config.optimizer.loss_background)
        trainer = Trainer(model, loss, len(task.val.stacks), learning)
    count, done = devices.num_replicas_in_sync, len(history)
    batch_size = config.sampling.batch_size
    steps = task.train.steps(batch_size, count)
    if not steps:
        raise ValueError(f"{task.train.count} training {task.sampler.sample_name} are too few for {count} devices")
    _warn_of_first_weights(task.name, config.optimizer.ema, steps * config.schedule.epochs)
    table = EpochTable(task.name, task.sampler.sample_name, steps, task.train.count, config.schedule.epochs)
    try:
        board = TensorBoard(
            run.folder / "logs", task.scheme, task.val.stacks, task.sampler, task.options.draw_confusion
        )
        first = next(iter(_stream(task, range(1), None)))
        board.start(model, config.settings, augmentation(*first) if augmentation else first[:2])
        ours = [
            *deciding,
            ReplayHistory(deciding, history),
            RunningAverage(inside=bool(history)),
            SeedDropout(config.seed),
            FreezeEncoder(str(config.network.encoder), config.schedule.freeze_encoder_epochs),
            table,
            *(one for one in task.options.callbacks if not isinstance(one, REMEMBERED)),
            board,
            SaveCheckpoints(run, history, config, check),
        ]
        trainer.fit(
            _dealt(
                input_pipeline.with_waiting_time(_stream(task, range(done, config.schedule.epochs), cache)),
                input_pipeline.split_training_batches,
                devices,
            ),
            validation_data=_dealt(_check(task, cache), input_pipeline.split_validation_batches, devices),
            epochs=config.schedule.epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            validation_steps=task.val.steps(batch_size),
            callbacks=ours,
            shuffle=False,
            verbose=0,
        )
        if trainer.stop_training:
            log.info("%s: ended early, after epoch %d", task.name, len(history))
        _warn_of_missed(task, trainer)
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            f"out of memory with --batch-size {batch_size}; try --batch-size {max(batch_size // 2, 1)}, "
            "--precision mixed_bfloat16, or see less at a time: a smaller --context, or --patch of unet3d"
        ) from error
    except tf.errors.OpError as error:
        for stack in (*task.train.stacks, *task.val.stacks):
            stack.load()  # names the PNG, if any, that stopped TensorFlow: its own account may lack the name
        first_line, *_ = error.message.strip().split("\n")  # what follows is TensorFlow's own stack
        raise ValueError(f"training stopped: {first_line}") from error
    finally:
        table.close()


def _warn_of_first_weights(name: str, ema: float | None, steps: int) -> None:
    """Warn where a running average of the weights still holds much of those that the training began with."""
    share = 0.0 if ema is None or steps < 2 else ema ** (steps - 1)  # it is begun after the first step
    if share > MOST_OF_FIRST_WEIGHTS:
        log.warning(
            "%s: after %d steps the running average by --ema %g still holds %.0f %% of the weights of the first step; "
            "take a smaller one", name, steps, ema, 100 * share,
        )  # fmt: skip


def _warn_of_missed(task: FitTask, trainer: Trainer) -> None:
    cases = trainer.knees.of_each(task.scheme.names)
    for name, dice in zip(task.scheme.names, sum(cases[1:], cases[0]).dice, strict=True):
        if np.isnan(dice):
            log.warning(
                "%s: no validation mask shows %s, as the network sees it; are its voxels too coarse?", task.name, name
            )
        if dice == 0:
            log.warning("%s: finds no %s on validation; train longer, or look at the masks", task.name, name)


def _stream(task: FitTask, epochs: range, cache: str | None) -> tf.data.Dataset:
    config = task.config
    order = input_pipeline.SamplingOrder(config.seed, config.sampling.foreground_fraction)
    read = volume_reader(task.train.stacks, cache)
    return input_pipeline.training_batches(task.train, task.sampler, config.sampling.batch_size, order, epochs, read)


def _check(task: FitTask, cache: str | None) -> tf.data.Dataset:
    return input_pipeline.validation_batches(
        task.val, task.sampler, task.config.sampling.batch_size, volume_reader(task.val.stacks, cache)
    )


def _dealt(
    batches: tf.data.Dataset,
    deal: Callable[[tf.data.Dataset, int], tf.data.Dataset],
    devices: tf.distribute.Strategy,
) -> Any:
    """Batches as Keras' `fit` takes them, without end, and divided among the devices where there are several.

    Args:
        batches: As `input_pipeline` makes them.
        deal: How.
        devices: That compute.
    """
    count = devices.num_replicas_in_sync
    if count == 1:
        return batches.repeat()
    shared = deal(batches, count).repeat()
    return devices.distribute_datasets_from_function(lambda context: shared)
