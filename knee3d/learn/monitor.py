"""What the person sees of a training: a line an epoch on the terminal, and TensorBoard's pages."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.slicing import to_slices
from knee3d.anatomy.tissue import Scheme
from knee3d.dataset.cases import Case, Dataset
from knee3d.postprocess.confusion import Scores
from knee3d.postprocess.predict import with_neighbours

log = logging.getLogger(__name__)

SHOWN = 4
WORST = 3
OPACITY = 0.5

DrawConfusion = Callable[[Scores, Path], None]
"""Writes a picture of a confusion matrix."""


@dataclass(frozen=True)
class Hooks:
    """What others do with a training.

    Attributes:
        draw_confusion: Draws the confusion matrix for TensorBoard.
        after_epoch: Called when all of an epoch is on disk.
    """

    draw_confusion: DrawConfusion | None = None
    after_epoch: Callable[[], object] | None = None


HEADER = "    epoch     loss   Dice  val loss   Dice      rate  slices/s  waits  left"


def table_line(epoch: int, epochs: int, scores: dict[str, float], seconds_left: float) -> str:
    """One line of the table under `HEADER`."""
    hours, minutes = divmod(round(seconds_left / 60), 60)
    left = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds_left:.0f} s"
    return (
        f"{epoch:>4}/{epochs:<4}  {scores['loss']:7.4f} {scores['dice']:6.4f}  "
        f"{scores['val_loss']:8.4f} {scores['val_dice']:6.4f}  {scores['learning_rate']:8.2e}  "
        f"{scores['slices_per_s']:8.1f} {scores['waited']:6.1%}  {left}"
    )


@dataclass(frozen=True, eq=False)
class Example:
    """A slice to look at: (1, height, width, channels) uint8 and its (height, width) uint8 truth."""

    name: str
    window: np.ndarray
    truth: np.ndarray


class TensorBoard:
    """Writes the pages of one run.

    Args:
        folder: Gets the event files.
        dataset: With the cases to look at.
        plane: Direction of slicing.
        cases: Those of validation.
        context: Neighbours on each side.
        draw_confusion: See `Hooks`; None leaves the page out.
    """

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        plane: Plane,
        cases: Sequence[Case],
        context: int,
        draw_confusion: DrawConfusion | None = None,
    ) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))
        self._dataset, self._plane, self._cases, self._context = dataset, plane, cases, context
        self._draw_confusion = draw_confusion
        chosen = np.unique(np.linspace(0, len(cases) - 1, min(SHOWN, len(cases))).round().astype(int))
        self._examples = [self._example(cases[index]) for index in chosen]

    def start(self, model: keras.Model, settings: dict[str, Any], batch: tuple[tf.Tensor, tf.Tensor]) -> None:
        """The pages that do not change: hyper-parameters, graph, and a batch as the network sees it."""
        images, masks = batch
        pairs = [
            _side_by_side(image[..., image.shape[-1] // 2], [mask], self._dataset.scheme)
            for image, mask in zip(images.numpy(), masks.numpy(), strict=True)
        ]
        call = tf.function(lambda slices: model(slices, training=False))
        graph = call.get_concrete_function(tf.TensorSpec(images.shape[:0] + [None, *images.shape[1:]], tf.uint8)).graph
        with self._writer.as_default(step=0):
            hparams.hparams({name: value if value is not None else "none" for name, value in settings.items()})
            tf.summary.graph(graph.as_graph_def())
            tf.summary.image("pairs as trained on, truth to the right", np.stack(pairs), max_outputs=len(pairs))
        self._writer.flush()

    def epoch(self, number: int, scores: dict[str, float], cases: Sequence[Scores], model: keras.Model) -> None:
        """The pages of one epoch.

        Args:
            number: From 1 on.
            scores: By name.
            cases: Validation scores of each case.
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
            self._draw("worst cases of validation", [self._example(self._cases[case]) for case in worst], model)
            if self._draw_confusion is not None:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "confusion.png"
                    self._draw_confusion(pooled, path)
                    tf.summary.image("confusion", tf.io.decode_png(path.read_bytes(), channels=3)[None])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _example(self, case: Case) -> Example:
        """The slice of a case with most tissue."""
        masks = to_slices(self._dataset.mask(case), self._plane)
        best = int(np.count_nonzero(masks, axis=(1, 2)).argmax())
        stack = to_slices(self._dataset.image(case), self._plane)
        return Example(case.name, with_neighbours(stack, [best], self._context), masks[best])

    def _draw(self, title: str, examples: Sequence[Example], model: keras.Model) -> None:
        for number, example in enumerate(examples):
            labels = np.argmax(model(example.window, training=False), axis=-1)[0]
            picture = _side_by_side(
                example.window[0, ..., self._context], [example.truth, labels], self._dataset.scheme
            )
            tf.summary.image(f"{title}/{number}", picture[None], description=example.name)


def _side_by_side(image: np.ndarray, labels: Sequence[np.ndarray], scheme: Scheme) -> np.ndarray:
    """(height, width x (1 + labels), 3) uint8: the image, and then with each labelling over it."""
    colours = np.array([(0, 0, 0), *(tissue.colour for tissue in scheme.tissues)], dtype=np.float32)
    grey = np.repeat(image[..., None], 3, axis=-1)
    panels = [grey]
    for labelling in labels:
        mixed = (1 - OPACITY) * grey + OPACITY * colours[labelling]
        panels.append(np.where(labelling[..., None] > 0, mixed, grey).astype(np.uint8))
    return np.concatenate(panels, axis=1)
