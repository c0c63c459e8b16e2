"""The wall between TensorFlow and numpy: what is exported, and how it is loaded again.

models/<plane>/saved_model/     tf.saved_model.load(...).serve(uint8 slices) -> float32 probabilities
models/<plane>/card.json        what it was trained on, how, and how well
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from knee3d.anatomy.plane import Plane
from knee3d.learn.card import load_card, model_folder


@dataclass(frozen=True)
class SavedModelPredictor:
    """A network behind a numpy door: the Predictor of `postprocess`.

    Attributes:
        classes: Background included.
        context: Neighbours on each side; calls take 2 * context + 1 channels.
        model: What `tf.saved_model.load` returned.
    """

    classes: int
    context: int
    model: Any

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """Uint8 (n, height, width, 2 * context + 1) -> float32 (n, height, width, classes)."""
        return self.model.serve(tf.constant(slices)).numpy()


def export(model: keras.Model, folder: Path) -> None:
    """Write a SavedModel with the endpoint `serve` and the signature `serving_default`.

    Args:
        model: uint8 slices of any size -> probabilities.
        folder: Made, or filled if empty.
    """
    model.export(str(folder), format="tf_saved_model", verbose=False)


def load_predictor(models: Path, plane: Plane) -> SavedModelPredictor:
    """The network of a plane, ready for numpy slices.

    Raises:
        FileNotFoundError: There is no model for this plane.
        ValueError: The SavedModel or its card cannot be read.
    """
    card = load_card(models, plane)
    folder = model_folder(models, plane) / "saved_model"
    try:
        model = tf.saved_model.load(str(folder))
        model.serve  # noqa: B018 the endpoint that the predictor calls
    except (OSError, ValueError, AttributeError, tf.errors.OpError) as error:
        raise ValueError(f"{folder} is not a readable SavedModel; train this plane again") from error
    return SavedModelPredictor(classes=len(card["classes"]), context=int(card["settings"]["context"]), model=model)
