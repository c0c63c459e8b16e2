"""What happens beside the training: progress, checkpoints, learning rate, logs."""

import logging
import time
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


def standard_callbacks(folder: Path, name: str) -> list[keras.callbacks.Callback]:
    """The callbacks of every training, in order.

    Args:
        folder: Of the run: `logs/` for TensorBoard, `metrics.csv`, `best.weights.h5` by validation Dice.
        name: Of the run, in the log.
    """
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss"),
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
