"""Export networks as SavedModels and load them again.

models/<plane>/saved_model/     tf.saved_model.load(...).serve(uint8 slices) -> float32 probabilities; see
`export_saved_model` models/<plane>/card.json        what it was trained on, how, and how well
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d.geometry.plane import Plane
from knee3d.models.float32_precision import exact_float32
from knee3d.models.model_card import ModelCard, SavedModelDescription, saved_model_description, view_folder
from knee3d.progress import root_logger_kept

ASSET = Path("assets.extra") / "knee3d.json"
"""The description's place in a SavedModel: in the folder that the format leaves to its users."""
PARITY = 1e-5
VOLUME_BATCH = 8
DEPTH = 19
"""Of the noise that networks of patches are tried on."""


def export_saved_model(model: keras.Model, folder: Path, description: SavedModelDescription) -> float:
    """Write a SavedModel that says itself what it is.

    Its signatures, each also a method of what `tf.saved_model.load` returns:

        serve, serving_default  slices: uint8 (n, height, width, channels) -> float32 (n, height, width, classes)
        labels                  slices: the same -> uint8 (n, height, width), the most probable class
        volume                  stack: uint8 (slices, height, width), all slices of a knee in order
                                -> float32 (slices, height, width, classes); neighbours are put together inside
        about                   nothing -> the description, JSON in a string

    A network of patches has no fixed number of channels: its slices are (n, inferior, posterior, left) and so are its
    probabilities, with classes; its stack is a whole volume, seen at once.

    `assets.extra/knee3d.json` holds the description.

    Args:
        model: uint8 slices of any size, with an odd number of channels, or patches -> probabilities.
        folder: Made; must not exist.
        description: What the SavedModel says of itself.

    Returns:
        The largest difference between what the network says and what the SavedModel, loaded again, says.

    Raises:
        RuntimeError: It is above `PARITY`.
    """
    channels = model.input_shape[-1]
    slices = tf.TensorSpec((None, None, None, channels), tf.uint8, name="slices")
    stack = tf.TensorSpec((None, None, None), tf.uint8, name="stack")

    @tf.function(input_signature=[slices])  # all three call the one graph, which is traced and written once
    def serve(slices: tf.Tensor) -> tf.Tensor:
        return model(slices, training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve)
    archive.add_endpoint(
        "labels", lambda slices: tf.cast(tf.argmax(serve(slices), axis=-1), tf.uint8), input_signature=[slices]
    )
    archive.add_endpoint("volume", lambda stack: _whole_stack(serve, stack, channels), input_signature=[stack])
    told = description.to_json()

    @tf.function(input_signature=[])
    def about() -> tf.Tensor:
        return tf.constant(told)

    about.get_concrete_function()
    archive.add_endpoint("about", about)
    with root_logger_kept():
        archive.write_out(str(folder), verbose=False)
    (folder / ASSET).parent.mkdir()
    (folder / ASSET).write_text(told + "\n")
    loaded = tf.saved_model.load(str(folder))

    def run(slices: np.ndarray) -> np.ndarray:
        return loaded.serve(tf.constant(slices)).numpy()

    return largest_difference(model, run, PARITY, f"the SavedModel in {folder}")


def _whole_stack(serve: Callable[[tf.Tensor], tf.Tensor], stack: tf.Tensor, channels: int | None) -> tf.Tensor:
    """Batches of slices between their neighbours, the outermost repeated, as `prediction.stack_neighbours` does."""
    if channels is None:
        return serve(stack[None])[0]
    count = tf.shape(stack)[0]
    tf.debugging.assert_positive(count, "a stack needs at least one slice")
    neighbours = tf.range(channels) - channels // 2

    def batch(start: tf.Tensor) -> tf.Tensor:
        index = tf.clip_by_value(start + tf.range(VOLUME_BATCH)[:, None] + neighbours, 0, count - 1)
        return serve(tf.transpose(tf.gather(stack, index), (0, 2, 3, 1)))

    batches = tf.map_fn(batch, tf.range(0, count, VOLUME_BATCH), fn_output_signature=tf.float32, parallel_iterations=1)
    shape = tf.shape(batches)
    return tf.reshape(batches, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))[:count]


def largest_difference(model: keras.Model, run: Callable[[np.ndarray], np.ndarray], limit: float, name: str) -> float:
    """The largest difference between two networks on noise of two sizes, neither a multiple of the stride.

    They are computed by the processor.

    Args:
        model: What it should be.
        run: uint8 slices -> probabilities.
        limit: Largest difference that is let through.
        name: For the message.

    Raises:
        RuntimeError: It is above `limit`.
    """
    rng = np.random.default_rng(0)
    worst = 0.0
    for size in ((40, 33), (64, 50)):
        slices = rng.integers(0, 256, (2, *size, model.input_shape[-1] or DEPTH), dtype=np.uint8)
        with tf.device("CPU:0"), exact_float32():  # a GPU rounds in its own way, and in another one in a graph
            found, expected = run(slices), np.asarray(model(slices, training=False))
        worst = max(worst, float(np.abs(found - expected).max()))
    if not worst < limit:
        raise RuntimeError(f"{name} differs from the network by {worst:.2g}; please report this")
    return worst


def load_saved_model(folder: Path) -> Any:
    """A SavedModel of ours, as `tf.saved_model.load` returns it.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        model = tf.saved_model.load(str(folder))
        model.serve  # noqa: B018 the endpoint that a predictor calls
    except (OSError, ValueError, AttributeError, IndexError, tf.errors.OpError) as error:
        raise ValueError(f"{folder} is not a readable SavedModel; train this plane again") from error
    return model


def check_model_folder(models: Path, plane: Plane | str, card: ModelCard) -> None:
    """Refuse a card or a SavedModel that lies in the folder of another plane, or beside the card of another model.

    Oblique slices are a plane in this respect; see `view_folder`.

    Raises:
        ValueError: Says which.
    """
    folder = view_folder(models, plane)
    try:
        told = SavedModelDescription.from_json((folder / "saved_model" / ASSET).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / 'saved_model' / ASSET} cannot be read; train this plane again") from error
    expected = saved_model_description(card)
    name = folder.name
    if card.plane != name or told.plane != name:
        other = card.plane if card.plane != name else told.plane
        raise ValueError(f"{folder} holds a network of the {other} plane; put each model into the folder of its plane")
    if replace(told, scores={}) != replace(expected, scores={}):
        raise ValueError(f"the SavedModel and the card in {folder} are of different trainings; copy the folder whole")
