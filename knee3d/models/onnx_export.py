"""Export trained networks to ONNX, and compare each with its network."""

import gc
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import numpy as np

from knee3d.atomic import whole_folder
from knee3d.geometry.plane import Plane
from knee3d.models.keras_file import load_keras_file
from knee3d.models.model_card import load_card, saved_model_description, view_folder
from knee3d.models.saved_model import largest_difference

MODEL = "model.onnx"
DESCRIPTION = "knee3d.json"
KEY = "knee3d"
"""Of the description in an ONNX file's metadata."""
PACKAGES = ("tf2onnx", "onnxruntime", "onnx")
"""What is needed, by import name; the extra knee3d[onnx] brings them."""
ONNX_PARITY = 1e-4
"""ONNX Runtime adds up in another order: 2e-6 to 1e-5 was seen (D39); a wrong export is far off."""


def load_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function of uint8 slices -> probabilities that ONNX Runtime computes on the processor, in float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda slices: session.run(None, {session.get_inputs()[0].name: slices})[0]


@contextmanager
def _collecting_often() -> Iterator[None]:
    """Let go of copies early: tf2onnx makes one of the graph, weights and all, for each of its optimisations.

    They are cycles, which Python frees rarely in a process of so many objects: a U-Net of 95 MB took up to 11 GB.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.collect()  # how often full collections come depends on what the last one left
    gc.set_threshold(thresholds[0], 5, 2)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _add_metadata(path: Path, told: str) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: told})
    onnx.save(model, path)


def export_onnx(models: Path, view: Plane | str, out: Path) -> float:
    """Write a trained network as ONNX.

    It takes and gives what the SavedModel's `serve` does: uint8 slices of any size and number, float32 probabilities.
    Its metadata have, under the key knee3d, what the SavedModel's `about` says.

    Args:
        models: Folder with a trained network.
        view: Which network, see `view_folder`.
        out: Folder; replaced. It gets the model, model.onnx, and its description, knee3d.json.

    Returns:
        The largest difference from the network's probabilities, computed from the file.

    Raises:
        FileNotFoundError: The plane was not trained to the end.
        ValueError: model.keras cannot be read.
        RuntimeError: `PACKAGES` are not installed, or the difference is above `ONNX_PARITY`.
    """
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeError(f"{' and '.join(missing)} not installed; pip install 'knee3d[onnx]'")
    description = saved_model_description(load_card(models, view))
    path = view_folder(models, view) / "model.keras"
    model = load_keras_file(path)
    model(np.zeros((1, 32, 32, model.input_shape[-1] or 32), np.uint8))  # Keras exports a network that was called once
    with whole_folder(out) as partial:
        with warnings.catch_warnings(), _collecting_often():
            warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for the old np.object
            model.export(str(partial / MODEL), format="onnx", verbose=False)
        told = description.to_json()
        (partial / DESCRIPTION).write_text(told + "\n")
        _add_metadata(partial / MODEL, told)
        return largest_difference(model, load_onnx(partial / MODEL), ONNX_PARITY, f"{out / MODEL}")
