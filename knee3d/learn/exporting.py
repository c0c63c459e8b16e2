"""Trained planes in the formats of other runtimes, each checked against the network before it is handed out."""

import gc
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.atomic import whole_folder
from knee3d.learn.card import for_saved_model, load_card, model_folder
from knee3d.learn.networks.layers import UpSample
from knee3d.learn.savedmodel import worst_difference

DESCRIPTION = "knee3d.json"
RUNTIME_PARITY = 1e-4
"""Other runtimes add up in another order: 2e-6 to 1e-5 was seen (once more, D39); a wrong export is far off."""


@dataclass(frozen=True)
class Format:
    """A file format and its runtime.

    Attributes:
        suffix: Of the file.
        packages: What is needed, by import name; the extra of knee3d that brings them has the format's name.
        load: Path -> function of uint8 slices -> probabilities, computed by the runtime in float32.
        adapt: Makes of the network one that computes the same, in a way that the format knows.
        volumes: Whether it has pooling and transposed convolutions of three axes.
    """

    suffix: str
    packages: tuple[str, ...]
    load: Callable[[Path], Callable[[np.ndarray], np.ndarray]]
    adapt: Callable[[keras.Model], keras.Model] = lambda model: model
    volumes: bool = True


def _with_plain_upsampling(model: keras.Model) -> keras.Model:
    """Keras repeats rows and columns; LiteRT loses the number of channels over that."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.UpSampling2D):
            return UpSample(layer.size, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=copy, recursive=True)
    twin.set_weights(model.get_weights())
    return twin


def _onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda slices: session.run(None, {session.get_inputs()[0].name: slices})[0]


def _openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda slices: model(slices)[0]


def _litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (slices_in,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(slices: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(slices_in["index"], slices.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(slices_in["index"], slices)
        interpreter.invoke()
        return interpreter.get_tensor(probabilities["index"])

    return run


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", ("tf2onnx", "onnxruntime"), _onnx),
    "openvino": Format(".xml", ("openvino",), _openvino),
    "litert": Format(".tflite", ("ai_edge_litert",), _litert, _with_plain_upsampling, volumes=False),
}


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


def export_view(models: Path, view: Plane | str, name: str, out: Path) -> float:
    """Write a trained network for another runtime.

    It takes and gives what the SavedModel's `serve` does: uint8 slices of any size and number, float32 probabilities.

    Args:
        models: With a trained network.
        view: Which, see `model_folder`.
        name: Key of `FORMATS`.
        out: Folder; replaced. Gets the model (OpenVINO's weights in a second file) and its description, knee3d.json.

    Returns:
        The largest difference from what the network says, computed by the runtime from the file.

    Raises:
        FileNotFoundError: The plane was not trained to the end.
        ValueError: model.keras cannot be read, or the format does not compute such a network.
        RuntimeError: The format's packages are not installed, or the difference is above `RUNTIME_PARITY`.
    """
    form = FORMATS[name]
    missing = [package for package in form.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeError(f"{' and '.join(missing)} not installed; pip install 'knee3d[{name}]'")
    description = for_saved_model(load_card(models, view))
    if description["patch"] and not form.volumes:
        whole = ", ".join(other for other, one in FORMATS.items() if one.volumes)
        raise ValueError(f"{name} does not compute networks of the volume, {model_folder(models, view)}; take {whole}")
    path = model_folder(models, view) / "model.keras"
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read; train this plane again ({error})") from error
    with whole_folder(out) as partial:
        file = partial / f"model{form.suffix}"
        adapted = form.adapt(model)
        adapted(np.zeros((1, 32, 32, model.input_shape[-1] or 32), np.uint8))  # Keras wants it called once
        with warnings.catch_warnings(), _collecting_often():
            warnings.simplefilter("ignore", FutureWarning)  # Keras asks NumPy for the old np.object
            adapted.export(str(file), format=name, verbose=False)
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        return worst_difference(model, form.load(file), RUNTIME_PARITY, f"{out} ({name})")
