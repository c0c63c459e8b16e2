"""TrainingFolder: what a training writes while it runs, and how it goes on after an interruption.

train.toml          settings; knee3d-train --config takes them
card.json           which cases and patients, in which split; at the end of the training also how well it does
environment.json    versions, devices, the commit of knee3d
metrics.csv         one line an epoch
logs/               TensorBoard
checkpoints/        epoch-0007.keras: weights, optimizer, and the scores of all epochs so far; the last two
best.keras          the checkpoint with the best validation Dice
last_epoch.keras    of a finished training, the last checkpoint: more epochs begin with it; it may be deleted
"""

import csv
import errno
import json
import logging
import os
import platform
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d import __version__
from knee3d.atomic import whole_file
from knee3d.models.model_card import CARD, ModelCard, SoftwareEnvironment
from knee3d.records import Record

log = logging.getLogger(__name__)

LAST = "last_epoch.keras"
SETTINGS = "train.toml"
ENVIRONMENT = "environment.json"
HISTORY = "knee3d-history.json"
WEIGHTS = "model.weights.h5"
"""Where Keras keeps those of network and optimizer in a .keras file."""
DAMAGE = (
    ValueError, KeyError, TypeError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a broken archive may raise; of RuntimeError is what says that bits ask for an unknown compression."""
NO_FAULT_OF_THE_SYSTEM = (None, errno.ENOENT, errno.EINVAL)
"""Of an OSError: HDF5 gives none for damage, and a place before the file's beginning is invalid."""
FILES = {
    SETTINGS, ENVIRONMENT, "metrics.csv", "logs", "checkpoints", "best.keras", LAST,
    CARD, "model.keras", "saved_model", "curves.png",
}  # fmt: skip
"""What a training leaves, and `card` beside it."""
KEPT = 2

Kind = TypeVar("Kind", bound=Record)
History = list[dict[str, float]]
"""Scores of each epoch so far, by name."""


@dataclass(frozen=True)
class TrainingFolder:
    """A run's folder."""

    folder: Path

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation Dice."""
        return self.folder / "best.keras"

    @property
    def last(self) -> Path:
        """The last checkpoint of a finished training."""
        return self.folder / LAST

    @property
    def checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted((self.folder / "checkpoints").glob("epoch-*.keras"), reverse=True)

    def _checkpoint(self, epoch: int) -> Path:
        return self.folder / "checkpoints" / f"epoch-{epoch:04d}.keras"

    def load_card(self) -> ModelCard | None:
        """The model card; None if there is none, or none that can be read."""
        return _read(ModelCard, self.folder / CARD)

    def load_environment(self) -> SoftwareEnvironment | None:
        """What the training began with; None if that cannot be read."""
        return _read(SoftwareEnvironment, self.folder / ENVIRONMENT)

    def write_metrics(self, history: History) -> None:
        """Write metrics.csv anew: one line an epoch."""
        with whole_file(self.folder / "metrics.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *history[0]])
            writer.writeheader()
            writer.writerows({"epoch": epoch, **scores} for epoch, scores in enumerate(history, start=1))

    def save(self, model: keras.Model, history: History) -> None:
        """Write the checkpoint of the epoch just done, and keep it as `best` if it is.

        The history is a member of the same file, so that weights and epochs cannot come apart.
        """
        with whole_file(self._checkpoint(len(history))) as partial:
            _save_checkpoint(model, history, partial)
            if best_epoch(history) == len(history) - 1:  # first, so that no epoch counts as done whose best is not kept
                with whole_file(self.best) as copy:
                    shutil.copyfile(partial, copy)  # no link: what damages one should leave the other
        known = [self._checkpoint(epoch) for epoch in range(len(history), 0, -1)][:KEPT]
        for old in set(self.checkpoints) - set(known):  # later epochs, too, that could not be read and were done again
            old.unlink()

    def continue_from(self, finished: "TrainingFolder", model: keras.Model) -> None:
        """Bring a finished training here, to which more epochs are added.

        Args:
            finished: Its folder.
            model: As it was built, its optimizer too; its weights change.

        Raises:
            ValueError: Its last checkpoint is gone, or cannot be read.
        """
        if not finished.last.is_file():
            raise ValueError(
                f"{finished.folder} has no {LAST} any more, without which no epochs can be added; begin anew with "
                "--overwrite, or give it as --init to another --models"
            )
        history = load_checkpoint(model, finished.last)
        best = best_epoch(history)
        self.write_metrics(history)
        for log_file in (one for one in sorted((finished.folder / "logs").rglob("*")) if one.is_file()):
            copy = self.folder / log_file.relative_to(finished.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log_file, copy)
        with whole_file(self.best) as partial:
            if best == len(history) - 1:
                shutil.copyfile(finished.last, partial)
            else:
                without_optimizer = keras.Model(model.inputs, model.outputs)  # as the file is
                without_optimizer.load_weights(finished.folder / "model.keras")
                _save_checkpoint(model, history[: best + 1], partial)
        with whole_file(self._checkpoint(len(history))) as partial:
            shutil.copyfile(finished.last, partial)

    def check_only_training_files(self) -> None:
        """Refuse a folder that cannot be replaced, or in which lies what no training has put there.

        Raises:
            ValueError: Names the folder, and the files.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise ValueError(f"{self.folder} is no folder of its own but a link or a file; choose another --models")
        if not self.folder.is_dir():
            return
        there = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(".partial-"))
        others = [name for name in there if name not in FILES]
        if others:
            raise ValueError(
                f"{self.folder} holds {', '.join(others[:3])}, which no training has put there and would be lost; "
                "move it away, or choose another --models"
            )

    def tidy(self) -> None:
        """Remove what only a training under way needs; its last checkpoint stays, for more epochs."""
        for newest in self.checkpoints[:1]:
            newest.replace(self.last)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        self.best.unlink(missing_ok=True)

    def load_best(self, model: keras.Model) -> History:
        """Load the best epoch, or where its file is damaged the newest of the other checkpoints, and say so.

        Returns:
            The scores up to that epoch.

        Raises:
            ValueError: All are damaged.
            OSError: See `load_checkpoint`.
        """
        return self._first_whole(model, (self.best, *self.checkpoints))

    def restore(self, model: keras.Model) -> History:
        """Load the newest checkpoint, or where its file is damaged one before it, and say so.

        A damaged file stays until the epoch is done again, for whoever can mend it.

        Args:
            model: As it was built, its optimizer too.

        Returns:
            Its history; empty where there is no checkpoint.

        Raises:
            ValueError: All are damaged.
            OSError: See `load_checkpoint`.
        """
        there = self.checkpoints
        return self._first_whole(model, (*there, self.best)) if there else []

    def _first_whole(self, model: keras.Model, paths: Sequence[Path]) -> History:
        for path in paths:
            try:
                history = load_checkpoint(model, path)
            except ValueError as error:
                log.warning("%s", error)
                continue
            if path != paths[0]:
                log.warning("%s: taking epoch %d instead", self.folder, len(history))
            return history
        raise ValueError(f"{self.folder} has no checkpoint that can be read; bring one back, or begin anew --overwrite")


def _save_checkpoint(model: keras.Model, history: History, path: Path) -> None:
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(HISTORY, json.dumps(history))


def load_checkpoint(model: keras.Model, path: Path) -> History:
    """Load weights and optimizer; returns the scores up to then.

    Weights are copied out of the archive first: Keras, reading them within it, takes four times as long.

    Raises:
        ValueError: It is damaged, is not there, or is of another network, of which the model may have some weights now.
        OSError: The system does not let it be read, or there is no room for the copy.
    """
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(WEIGHTS) as weights,
            NamedTemporaryFile(dir=path.parent, prefix=".partial-", suffix=f"-{WEIGHTS}") as copy,
        ):
            history = json.loads(archive.read(HISTORY))
            if not history or not all("val_dice" in scores for scores in history):
                raise ValueError("its scores are not those of a training")
            shutil.copyfileobj(weights, copy)  # to its end, where the archive compares the checksum
            copy.flush()
            model.load_weights(copy.name)
    except OSError as error:
        if error.errno not in NO_FAULT_OF_THE_SYSTEM:
            reason = f"{error.strerror}; a checkpoint is copied beside itself to be read"
            raise OSError(error.errno, reason, str(error.filename or path)) from error
        raise _damaged(path, error) from error
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return history


def _damaged(path: Path, error: Exception) -> ValueError:
    first_line = next(iter(str(error).splitlines()), type(error).__name__)  # Keras goes on with whole arrays
    return ValueError(f"{path} cannot be read ({first_line})")


def best_epoch(history: History) -> int:
    """Index of the epoch with the best validation Dice; the first of equals."""
    return int(np.argmax([scores["val_dice"] for scores in history]))


def _read(kind: type[Kind], path: Path) -> Kind | None:
    try:
        return kind.from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def software_environment() -> SoftwareEnvironment:
    """Versions, devices, and the git commit of knee3d if it runs from a checkout."""
    devices = tf.config.list_physical_devices()
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    return SoftwareEnvironment(
        knee3d=__version__,
        commit=_commit(),
        python=platform.python_version(),
        tensorflow=tf.__version__,
        keras=keras.__version__,
        numpy=np.__version__,
        platform=platform.platform(),
        cpus=len(os.sched_getaffinity(0)),
        devices=tuple(
            " ".join([device.device_type, *map(str, detail.values())])
            for device, detail in zip(devices, details, strict=True)
        ),
    )


def _commit() -> str | None:
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
