"""The epoch table on the terminal, and the pages of TensorBoard."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from knee3d.labels.label_scheme import LabelScheme
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.records import Settings
from knee3d.training.sampler import Sampler
from knee3d.training.slice_stack import Stack

log = logging.getLogger(__name__)

SHOWN = 4
WORST = 3
OPACITY = 0.5

DrawConfusion = Callable[[OverlapScores, Path], None]
"""Writes a picture of a confusion matrix."""


def epoch_table_header(sample_name: str) -> str:
    """Above the lines of the table; what is shown at a time is called slices, or patches."""
    return f"    epoch     loss   Dice  val loss   Dice      rate {sample_name + '/s':>9}  waits  left"


def epoch_table_row(epoch: int, epochs: int, scores: dict[str, float], seconds_left: float) -> str:
    """One line of the table under `epoch_table_header`."""
    hours, minutes = divmod(round(seconds_left / 60), 60)
    left = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds_left:.0f} s"
    return (
        f"{epoch:>4}/{epochs:<4}  {scores['loss']:7.4f} {scores['dice']:6.4f}  "
        f"{scores['val_knee_loss']:8.4f} {scores['val_dice']:6.4f}  {scores['learning_rate']:8.2e}  "
        f"{scores['slices_per_s']:8.1f} {scores['waited']:6.1%}  {left}"
    )


@dataclass(frozen=True, eq=False)
class Example:
    """What a network is shown, to look at: (1, height, width, channels) uint8, and its truth, uint8."""

    name: str
    shown: np.ndarray
    truth: np.ndarray


class TensorBoard(keras.callbacks.Callback):
    """Writes the pages of one run: scores, pictures of what the network finds, and the confusion matrix.

    Args:
        folder: Gets the event files.
        scheme: Names and colours of the tissues.
        stacks: Those of validation.
        sampler: What the network is shown of them at a time.
        draw_confusion: Draws the confusion matrix; None leaves the page out.
    """

    def __init__(
        self,
        folder: Path,
        scheme: LabelScheme,
        stacks: Sequence[Stack],
        sampler: Sampler,
        draw_confusion: DrawConfusion | None = None,
    ) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))
        self._scheme, self._stacks, self._cutting = scheme, stacks, sampler
        self._draw_confusion = draw_confusion
        chosen = np.unique(np.linspace(0, len(stacks) - 1, min(SHOWN, len(stacks))).round().astype(int))
        self._examples = [self._example(stacks[index]) for index in chosen]

    def start(self, model: keras.Model, settings: Settings, batch: tuple[tf.Tensor, tf.Tensor]) -> None:
        """The pages that do not change: hyper-parameters, graph, and a batch as the network sees it."""
        images, masks = batch
        pairs = [
            _side_by_side(*_flat(image, [mask]), self._scheme)
            for image, mask in zip(images.numpy(), masks.numpy(), strict=True)
        ]
        call = tf.function(lambda slices: model(slices, training=False))
        graph = call.get_concrete_function(tf.TensorSpec(images.shape[:0] + [None, *images.shape[1:]], tf.uint8)).graph
        with self._writer.as_default(step=0):
            hparams.hparams({name: _scalar(value) for name, value in settings.items()})
            tf.summary.graph(graph.as_graph_def())
            tf.summary.image("pairs as trained on, truth to the right", np.stack(pairs), max_outputs=len(pairs))
        self._writer.flush()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """See `epoch`; the model is a `trainer.Trainer`."""
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.epoch(epoch + 1, numbers, self.model.knees.of_each(self._scheme.names), self.model.network)

    def epoch(self, number: int, scores: dict[str, float], cases: Sequence[OverlapScores], model: keras.Model) -> None:
        """The pages of one epoch.

        Args:
            number: From 1 on.
            scores: By name.
            cases: Validation scores of each stack.
            model: As it is now.
        """
        pooled = sum(cases[1:], cases[0])
        worst = np.argsort([np.nan_to_num(case.mean_dice, nan=1.0) for case in cases])[:WORST]
        with self._writer.as_default(step=number):
            for name, value in scores.items():
                tf.summary.scalar(name, value)
            for name, dice, iou in zip(pooled.names, pooled.dice, pooled.iou, strict=True):
                tf.summary.scalar(f"validation Dice/{name}", dice)
                tf.summary.scalar(f"validation IoU/{name}", iou)
            self._draw("validation: image, truth, prediction", self._examples, model)
            self._draw("worst cases of validation", [self._example(self._stacks[stack]) for stack in worst], model)
            if self._draw_confusion is not None:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "confusion.png"
                    self._draw_confusion(pooled, path)
                    tf.summary.image("confusion", tf.io.decode_png(path.read_bytes(), channels=3)[None])
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Write what is left."""
        self._writer.close()

    def _example(self, stack: Stack) -> Example:
        """What there is to show of a stack with most tissue."""
        image, mask = (tf.constant(part) for part in stack.load())
        parts = (
            self._cutting.cut(image, mask, tf.constant(position, tf.int32))
            for position in self._cutting.positions(stack.shape)
        )
        shown, truth = max(parts, key=lambda part: np.count_nonzero(part[1]))
        return Example(stack.case, shown.numpy()[None], truth.numpy())

    def _draw(self, title: str, examples: Sequence[Example], model: keras.Model) -> None:
        for number, example in enumerate(examples):
            labels = np.argmax(model(example.shown, training=False), axis=-1)[0]
            picture = _side_by_side(*_flat(example.shown[0], [example.truth, labels]), self._scheme)
            tf.summary.image(f"{title}/{number}", picture[None], description=example.name)


def _scalar(value: Any) -> Any:
    """What TensorBoard's table of hyper-parameters takes."""
    return "none" if value is None else str(value) if isinstance(value, list | dict) else value


def _flat(shown: np.ndarray, labels: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of slices the middle channel; of a patch the slice with most tissue in the first labels."""
    truth = labels[0]
    if truth.ndim == 2:
        return shown[..., shown.shape[-1] // 2], list(labels)
    best = int(np.count_nonzero(truth, axis=(0, 1)).argmax())
    return shown[..., best], [one[..., best] for one in labels]


def _side_by_side(image: np.ndarray, labels: Sequence[np.ndarray], scheme: LabelScheme) -> np.ndarray:
    """(height, width x (1 + labels), 3) uint8: the image, and then with each labelling over it."""
    colours = np.array([(0, 0, 0), *(tissue.colour for tissue in scheme.tissues)], dtype=np.float32)
    grey = np.repeat(image[..., None], 3, axis=-1)
    panels = [grey]
    for labelling in labels:
        mixed = (1 - OPACITY) * grey + OPACITY * colours[labelling]
        panels.append(np.where(labelling[..., None] > 0, mixed, grey).astype(np.uint8))
    return np.concatenate(panels, axis=1)
