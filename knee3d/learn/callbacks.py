"""What happens beside the training: progress, checkpoints, learning rate, logs."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras

from knee3d.progress import progress

log = logging.getLogger(__name__)


class Report(keras.callbacks.Callback):
    """A bar through each epoch, and a line in the log at its end."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.stack = ExitStack()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the bar."""
        self.started = time.perf_counter()
        title = f"{self.name} epoch {epoch + 1}/{self.params['epochs']}"
        self.advance = self.stack.enter_context(progress(title, self.params["steps"]))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        self.advance(1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the line."""
        self.stack.close()
        scores = "  ".join(f"{key} {value:.4g}" for key, value in (logs or {}).items())
        seconds = time.perf_counter() - self.started
        log.info("%s epoch %d/%d  %s  %.0f s", self.name, epoch + 1, self.params["epochs"], scores, seconds)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the bar away after an interrupted epoch."""
        self.stack.close()


def plateau(learning_rate: float, epochs: int) -> keras.callbacks.Callback:
    """The paper's: a tenth of the rate after ten epochs without a lower validation loss."""
    return keras.callbacks.ReduceLROnPlateau(monitor="val_loss")


def cosine(learning_rate: float, epochs: int) -> keras.callbacks.Callback:
    """From `learning_rate` towards 0 along half a cosine (Loshchilov and Hutter, SGDR, 2017), epoch by epoch."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
    )


SCHEDULES: Mapping[str, Callable[[float, int], keras.callbacks.Callback]] = {"plateau": plateau, "cosine": cosine}
"""Name of a schedule -> its callback, from the first learning rate and the number of epochs."""


def standard_callbacks(folder: Path, name: str, schedule: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """The callbacks of every training, in order.

    Args:
        folder: Of the run: `logs/` for TensorBoard, `metrics.csv`, `best.weights.h5` by validation Dice.
        name: Of the run, in the log.
        schedule: Of the learning rate.
    """
    return [
        schedule,
        keras.callbacks.ModelCheckpoint(
            str(folder / "best.weights.h5"),
            monitor="val_dice",
            mode="max",
            save_best_only=True,
            save_weights_only=True,
        ),
        keras.callbacks.CSVLogger(str(folder / "metrics.csv")),
        keras.callbacks.TensorBoard(str(folder / "logs"), write_graph=False),
        keras.callbacks.TerminateOnNaN(),
        Report(name),
    ]
