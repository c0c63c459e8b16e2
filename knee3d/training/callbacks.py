"""Keras callbacks of knee3d: remembered decisions, the epoch table, checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d.networks.encoder import set_encoder_trainable
from knee3d.progress import progress
from knee3d.training.config import TrainConfig
from knee3d.training.schedule import MONITORED
from knee3d.training.tensorboard import epoch_table_header, epoch_table_row
from knee3d.training.trainer import Trainer
from knee3d.training.training_folder import History, TrainingFolder

log = logging.getLogger(__name__)

REMEMBERED = (
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
)
"""Callbacks whose memory is rebuilt from the epochs that were, so that an interruption changes no decision."""
KEPT = ("loss", "dice", "val_loss", MONITORED, "val_dice", "val_foreground_dice", "learning_rate")
"""Scores of an epoch that are written down, in this order."""


def replay_history(callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, history: History) -> bool:
    """Show the epochs that were to callbacks which decide; returns whether they have ended the training.

    Args:
        callbacks: Those of other kinds are left out.
        model: Its learning rate is set.
        history: Scores of each epoch so far.
    """
    deciding = keras.callbacks.CallbackList([one for one in callbacks if isinstance(one, REMEMBERED)], model=model)
    model.stop_training = False
    deciding.on_train_begin()
    for epoch, scores in enumerate(history):
        deciding.on_epoch_begin(epoch)
        deciding.on_epoch_end(epoch, dict(scores))
    return bool(model.stop_training)


class ReplayHistory(keras.callbacks.Callback):
    """Calls `replay_history` when `fit` has made its callbacks forget; it comes after those that decide."""

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], history: History) -> None:
        super().__init__()
        self._callbacks, self._history = callbacks, history

    def on_train_begin(self, logs: Any = None) -> None:
        """See `replay_history`."""
        if self._history:
            replay_history(self._callbacks, self.model, self._history)


class SeedDropout(keras.callbacks.Callback):
    """Lets what is dropped be a function of seed and epoch, too (D32): Keras keeps no count of it in its files."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the state of every generator."""
        layers = self.model.network._flatten_layers()
        generators = [layer.seed_generator for layer in layers if hasattr(layer, "seed_generator")]
        for number, generator in enumerate(generators):
            state = np.random.SeedSequence([self._seed, epoch, number]).generate_state(2)
            generator.state.assign(state.astype(generator.state.dtype))


class RunningAverage(keras.callbacks.Callback):
    """Lets an epoch be validated and written down with the running average of the weights, if the optimizer keeps one.

    The two change places, so that a checkpoint has the average in the network and the weights that learn in the
    optimizer. Keras' own callback adds and subtracts them, which rounds, and ends by giving up the weights.

    Args:
        inside: Whether the network that is trained has the average in it, as it has where a checkpoint was loaded.
    """

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self._inside = inside

    def _put(self, average: bool) -> None:
        optimizer = inner_optimizer(self.model.optimizer)
        if self._inside != average and optimizer.use_ema:
            pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
            for weights, kept in pairs:
                held = np.array(weights)
                weights.assign(kept)
                kept.assign(held)
        self._inside = average

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go on learning from where the weights were."""
        self._put(average=False)

    def on_test_begin(self, logs: Any = None) -> None:
        """Validate the average, which stays to be written down."""
        self._put(average=True)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, where another one scales the loss for it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class FreezeEncoder(keras.callbacks.Callback):
    """Keeps the encoder as it is, its batch normalisation too, for the first epochs.

    Args:
        encoder: Its name.
        epochs: How many.
    """

    def __init__(self, encoder: str, epochs: int) -> None:
        super().__init__()
        self._encoder, self._epochs = encoder, epochs
        self._frozen = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Freeze, or let go; the step is compiled anew where that changes."""
        frozen = epoch < self._epochs
        if epoch == self._epochs > 0:
            _forget_moments(self.model.optimizer)
        if frozen == self._frozen:  # to know the encoder's layers, one is built, which takes a fifth of a second
            return
        self._frozen = frozen
        if set_encoder_trainable(self.model.network, self._encoder, not frozen):
            self.model.make_train_function(force=True)


def _forget_moments(optimizer: keras.optimizers.Optimizer) -> None:
    """Let the optimizer start anew, at its learning rate. Adam's correction of young moments counts its steps."""
    inner = inner_optimizer(optimizer)
    for variable in inner.variables:
        if variable is not inner._learning_rate:
            variable.assign(tf.zeros_like(variable.value))


class EpochTable(keras.callbacks.Callback):
    """A bar while an epoch runs and a line when it has ended; adds to its scores how fast it was.

    Args:
        name: Of the view.
        sample_name: What is shown to the network at a time.
        steps: Of an epoch.
        count: Slices in an epoch.
        epochs: Of the whole training.
    """

    async_safe = True

    def __init__(self, name: str, called: str, steps: int, count: int, epochs: int) -> None:
        super().__init__()
        self._name, self._called, self._steps, self._count, self._epochs = name, called, steps, count, epochs
        self._started, self._trained = 0.0, 0.0
        self._bar, self._advance = ExitStack(), lambda more: None

    def on_train_begin(self, logs: Any = None) -> None:
        """Write the head."""
        log.info("%s", epoch_table_header(self._called))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw the bar."""
        self._started = time.perf_counter()
        title = f"{self._name} epoch {epoch + 1}/{self._epochs}"
        self._advance = self._bar.enter_context(progress(title, self._steps))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar on."""
        self._advance(1)

    def on_test_begin(self, logs: Any = None) -> None:
        """Take the bar away: the epoch's training is over."""
        self._trained = time.perf_counter() - self._started
        self._bar.close()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the line."""
        logs["slices_per_s"] = self._count / self._trained
        logs["waited"] = logs["waited"] / self._trained
        left = (time.perf_counter() - self._started) * (self._epochs - epoch - 1)
        log.info("%s", epoch_table_row(epoch + 1, self._epochs, logs, left))

    def close(self) -> None:
        """Take the bar away where an epoch was interrupted; `fit` tells no callback of that."""
        self._bar.close()


class SaveCheckpoints(keras.callbacks.Callback):
    """Writes an epoch down: metrics.csv, and last the checkpoint, so that what it counts as done is done.

    Args:
        run: The training's folder.
        history: Scores of the epochs before; grows.
        config: For what to advise.
        check: Raises an exception if the folder is another process's now.
    """

    def __init__(self, run: TrainingFolder, history: History, config: TrainConfig, check: Callable[[], object]) -> None:
        super().__init__()
        self._run, self._history, self._config, self._check = run, history, config, check

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write.

        Raises:
            ValueError: The loss is no number.
        """
        if not all(math.isfinite(logs[name]) for name in ("loss", "val_loss", MONITORED)):
            half = self._config.optimizer.precision == "mixed_float16"
            raise ValueError(
                f"the loss became NaN in epoch {epoch + 1}; try a lower --learning-rate or --clip-norm 1"
                + ("; or --precision mixed_bfloat16, which has more range" if half else "")
            )
        self._check()
        self._history.append({name: float(logs[name]) for name in KEPT})
        self._run.write_metrics(self._history)
        trainer: Trainer = self.model
        self._run.save(trainer.network, self._history)
