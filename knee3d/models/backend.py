"""Backend: precision and device of inference. LoadedModel: a trained network that is ready to predict.

The result is a `Predictor`: it takes uint8 slices and returns float32 probabilities.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import numpy as np
import tensorflow as tf

from knee3d.geometry.plane import Plane
from knee3d.models.float32_precision import exact_float32
from knee3d.models.model_card import load_card, view_folder
from knee3d.models.saved_model import check_model_folder, load_saved_model

PRECISIONS = ("float32", "bfloat16")
GAIN = 1.2
"""bfloat16 must be so many times faster than float32 to be chosen."""
PROBES = 4
CHANNELS = 128

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Backend:
    """How networks are computed.

    Attributes:
        precision: One of `PRECISIONS`.
        device: TensorFlow's name of it, as "CPU:0"; None is TensorFlow's own choice.

    Raises:
        ValueError: There is no such precision.
    """

    precision: str = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"there is no precision {self.precision!r}; take one of {', '.join(PRECISIONS)}")

    def __str__(self) -> str:
        return f"tensorflow, {self.precision}" + (f", {self.device}" if self.device else "")


@dataclass(frozen=True)
class LoadedModel:
    """A trained network, ready to be computed: the Predictor, or PatchPredictor, of `postprocess`.

    Attributes:
        classes: Background included.
        context: Neighbours on each side; calls take 2 * context + 1 channels.
        run: uint8 (n, height, width, 2 * context + 1) -> float32 (n, height, width, classes).
        patch: Of a network of patches, which takes uint8 (n, *patch) instead; (0, 0, 0) of others.
    """

    classes: int
    context: int
    run: Run
    patch: tuple[int, int, int] = (0, 0, 0)

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """The network's answer."""
        return self.run(slices)


def load_model(models: Path, plane: Plane | str, engine: Backend | None = None) -> LoadedModel:
    """The network of a plane, or of other slices, see `view_folder`; it is computed in float32 by default.

    Raises:
        FileNotFoundError: There is no model for this plane.
        ValueError: The SavedModel or its card cannot be read, or is another plane's.
    """
    engine, card = engine or Backend(), load_card(models, plane)
    run = _computed(view_folder(models, plane) / "saved_model", engine)
    check_model_folder(models, plane, card)
    return LoadedModel(len(card.class_names), card.context, run, card.patch or (0, 0, 0))


def check_device(device: str | None) -> str | None:
    """TensorFlow's name of a device.

    Args:
        device: "cpu", "gpu" or "gpu:1"; None leaves it to TensorFlow.

    Raises:
        ValueError: This machine has none of that name.
    """
    if device is None:
        return None
    name = device.upper() if ":" in device else f"{device.upper()}:0"
    there = [one.name.split(":", 1)[-1].removeprefix("device:") for one in tf.config.list_logical_devices()]
    if name not in there:
        raise ValueError(f"there is no device {device}; this machine has {', '.join(name.lower() for name in there)}")
    return name


def gpu_names() -> list[str]:
    """Of the GPUs that TensorFlow can use, as their makers call them."""
    details = tf.config.experimental.get_device_details
    return [details(gpu).get("device_name", gpu.name) for gpu in tf.config.list_physical_devices("GPU")]


def choose_backend(precision: str = "auto", device: str | None = None) -> Backend:
    """How to compute on this machine.

    Args:
        precision: One of `PRECISIONS`, or "auto": bfloat16 on a processor that is `GAIN` times faster in it, see
            `has_bfloat16`, and else float32.
        device: See `check_device`.

    Raises:
        ValueError: There is no such device.
    """
    device = check_device(device)
    on_processor = device.startswith("CPU") if device else not tf.config.list_physical_devices("GPU")
    if precision == "auto":
        precision = "bfloat16" if on_processor and has_bfloat16() else "float32"
    return Backend(precision, device)


@cache
def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16: by the clock, on a convolution like those of the networks.

    With it in hardware they take about half the time; without, more than in float32. Both are timed in turn, and the
    quickest of several counts, so that other work on the machine hardly has a say.
    """
    rng = np.random.default_rng(0)
    layers = [tf.constant(rng.normal(size=(3, 3, CHANNELS, CHANNELS)), tf.float32) for _ in range(2)]
    image = tf.constant(rng.normal(size=(2, 96, 96, CHANNELS)), tf.float32)

    @tf.function
    def convolve(image: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            image = tf.nn.relu(tf.nn.conv2d(image, layer, 1, "SAME"))
        return image

    seconds = {precision: float("inf") for precision in PRECISIONS}
    with tf.device("CPU:0"):
        for _ in range(PROBES + 1):  # in turn, so that other work on the machine slows both
            for precision in PRECISIONS:
                with _rewritten_to_bfloat16(precision == "bfloat16"):
                    start = time.perf_counter()
                    convolve(image).numpy()
                    seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    return seconds["bfloat16"] * GAIN < seconds["float32"]


@contextmanager
def _rewritten_to_bfloat16(wanted: bool) -> Iterator[None]:
    """TensorFlow computes graphs that run within the block in bfloat16 where that is safe; there is no finer switch."""
    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    if before != wanted:
        tf.config.optimizer.set_experimental_options({name: wanted})
    try:
        yield
    finally:
        if before != wanted:
            tf.config.optimizer.set_experimental_options({name: before})


def _computed(folder: Path, engine: Backend) -> Run:
    model = load_saved_model(folder)

    def run(slices: np.ndarray) -> np.ndarray:
        half = engine.precision == "bfloat16"
        with tf.device(engine.device), _rewritten_to_bfloat16(half), exact_float32(not half):
            try:
                return model.serve(tf.constant(slices)).numpy()
            except tf.errors.OpError as error:  # such as a GPU's memory
                raise RuntimeError(f"TensorFlow cannot compute slices of {slices.shape}: {error.message}") from error

    return run
