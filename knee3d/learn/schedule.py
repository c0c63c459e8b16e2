"""What happens between epochs: the learning rate, and whether to stop.

Keras' callbacks decide. Their memory is no file of its own: it is rebuilt by showing them the epochs that were, so that
an interrupted training goes on as if it had not been.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

MONITORED = "val_knee_loss"
"""What ReduceLROnPlateau watches: the mean over validation knees of the loss of all slices of a knee together. In the
mean over batches, a batch without a tissue counts as one in which the tissue is found."""
SCHEDULES = ("plateau", "cosine", "constant")


def deciding_callbacks(
    rate: float,
    epochs: int,
    schedule: str = "plateau",
    warmup_epochs: int = 0,
    plateau: dict[str, float] | None = None,
    stop_patience: int | None = None,
) -> list[keras.callbacks.Callback]:
    """The callbacks that set the learning rate and end the training early.

    Args:
        rate: The learning rate after warm-up.
        epochs: Of the whole training.
        schedule: "plateau": ReduceLROnPlateau of `MONITORED`. "cosine": from `rate` towards 0 along half a cosine
            (Loshchilov and Hutter, SGDR, 2017), epoch by epoch. "constant": neither.
        warmup_epochs: Epochs in which the rate rises evenly to `rate`.
        plateau: Options of ReduceLROnPlateau: factor, patience, min_delta, cooldown, min_lr.
        stop_patience: Epochs without a better validation Dice before training ends; None goes on to the last epoch.
    """
    callbacks: list[keras.callbacks.Callback] = []
    if schedule == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau(monitor=MONITORED, mode="min", **(plateau or {})))

    def planned(epoch: int, now: float) -> float:
        if epoch < warmup_epochs:
            return rate * (epoch + 1) / warmup_epochs
        if schedule == "cosine":
            done = (epoch - warmup_epochs) / max(epochs - warmup_epochs, 1)
            return rate * (1 + math.cos(math.pi * done)) / 2
        return rate if epoch == warmup_epochs else now

    callbacks.append(keras.callbacks.LearningRateScheduler(planned))
    if stop_patience is not None:
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_dice", mode="max", patience=stop_patience))
    return callbacks


class Decisions:
    """The callbacks at work on a model.

    Args:
        callbacks: From `deciding_callbacks`.
        model: Compiled; its optimizer's learning rate is set.
        history: Scores of the epochs that were.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, history: Sequence[dict[str, Any]]
    ) -> None:
        self._list = keras.callbacks.CallbackList(list(callbacks), model=model)
        self._model = model
        model.stop_training = False
        self._list.on_train_begin()
        for epoch, scores in enumerate(history):
            self.begin(epoch)
            self.end(epoch, scores)

    @property
    def stopped(self) -> bool:
        """Whether training has ended early."""
        return bool(self._model.stop_training)

    def begin(self, epoch: int) -> float:
        """Set the learning rate of an epoch and return it."""
        self._list.on_epoch_begin(epoch)
        return float(keras.ops.convert_to_numpy(self._model.optimizer.learning_rate))

    def end(self, epoch: int, scores: dict[str, Any]) -> bool:
        """Hear how an epoch went; returns whether to stop."""
        self._list.on_epoch_end(epoch, dict(scores))
        return self.stopped
