"""Segmenting a knee of OAI's size against what a user would otherwise take, in one run on one machine.

Three VGG16-UNets of seven classes with weights that nobody trained, as only time matters: each computes all that a
trained one does, and its answer is then replaced by what the brightness of the made-up image says, so that the quick
look finds a joint where there is one. Each way runs in a process of its own, which has loaded the networks and been
through a small knee, or batch, before the clock starts: it is what each of many knees takes.

    naive      model.predict in batches of 2 over every slice of the three planes, np.stack, np.average, argmax
    network    what calling the networks takes at the best size of batch, and nothing else
    whole      knee3d segment, from DICOM to labels, picture and record; also in float32
    fast       knee3d segment --fast

    python benchmarks/segment.py
    python benchmarks/segment.py --labels ../shared/data/labels/knee_b_label.nrrd
    python benchmarks/segment.py --spacing 0.55,1.4 --ways whole fast    # networks with voxels of their own
    python benchmarks/segment.py --nnunet runs/nnunet    # also nnU-Net's 3d_fullres; installs it there: 6 GB
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from knee3d.dataset.input_case import find_cases
from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.geometry.orientation import CANONICAL, Side, reorient
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import Predictor, stack_neighbours
from knee3d.inference.rectangles import STRIDE
from knee3d.inference.resampled_view import ResampledView
from knee3d.io.dicom.writer import write_series
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.parametric_knee import parametric_knee

SHAPE = (384, 384, 160)
FIELD_OF_VIEW_MM = (140.0, 140.0, 112.0)
SPACING_MM = (0.3646, 0.3646, 0.7)
SCHEME = "iwoai"
BATCHES = (1, 2, 4, 8, 16)
PEAK_SIZE = 3072


@dataclass(frozen=True)
class ByBrightness:
    """A network's time, and an answer that is the pixel's brightness divided by 30.

    Attributes:
        network: It computes, and its answer is thrown away.
        seconds: Gets what the network took,
        made_up: what making up the answer took, which no trained network does,
        pixels: and how many pixels it was given, padded as it pads them.
    """

    network: Predictor
    seconds: list[float]
    made_up: list[float]
    pixels: list[int]

    @property
    def classes(self) -> int:
        """The network's."""
        return self.network.classes

    @property
    def context(self) -> int:
        """The network's."""
        return self.network.context

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """Like a trained network's, sure of itself."""
        start = time.perf_counter()
        said = self.network(slices)
        done = time.perf_counter()
        self.seconds.append(done - start)
        height, width = (-(-side // STRIDE) * STRIDE for side in slices.shape[1:3])
        self.pixels.append(len(slices) * height * width)
        said = np.full(said.shape, 0.01, np.float32)
        grey = (slices[..., self.context].astype(np.intp) + 15) // 30
        classes = np.where(grey < self.classes, grey, 0)
        np.put_along_axis(said, classes[..., None], 1 - 0.01 * (self.classes - 1), axis=-1)
        self.made_up.append(time.perf_counter() - done)
        return said


def make_models(folder: Path, spacing: str | None = None) -> None:
    """Three networks with random weights, exported as trained ones are; with voxels of their own, or the scan's."""
    import keras

    from knee3d.models.model_card import CARD, ModelCard, NamesBySplit, saved_model_description
    from knee3d.models.saved_model import export_saved_model
    from knee3d.networks.architecture import build_network
    from knee3d.training.model_spacing import model_spacings

    scheme, own = SCHEMES[SCHEME], model_spacings(spacing, list(Plane), np.array([SPACING_MM]))
    for number, plane in enumerate(Plane):
        keras.utils.set_random_seed(number)
        model = build_network("unet", scheme.classes)
        card = ModelCard(
            knee3d="",
            plane=plane.value,
            scheme=scheme,
            class_names=("background", *scheme.names),
            input="",
            output="",
            settings={"context": 1},
            cases=NamesBySplit((), ()),
            patients=NamesBySplit((), ()),
            data_fingerprint="",
            window_rule=WINDOW_RULE,
            spacing_mm=SPACING_MM,
            model_spacing_mm=own,
        )
        export_saved_model(model, folder / plane.value / "saved_model", saved_model_description(card))
        model.save(folder / plane.value / "model.keras")
        card.write(folder / plane.value / CARD)


def make_knee(source: Volume, folder: Path) -> None:
    """DICOM whose brightness is the label: 30 for the first tissue, 60 for the second."""
    classes = labels_to_classes(source.array, LABEL_NAMES["pymskt"], SCHEMES[SCHEME])
    array = classes.astype(np.int16) * 30
    bright = np.random.default_rng(0).integers(250, 261, (3, *array.shape[1:]))  # of one value they would be padding
    array[:3] = bright  # more than the half percent that the window leaves out, so that it is 0 to about 260
    series = Volume(array, source.affine)
    write_series(series, folder, Side.RIGHT, patient="made up", description="brightness is the label", seed=0)


def naive(models: Path, knee: Path) -> dict[str, Any]:
    """What a notebook does."""
    import keras

    import knee3d.networks  # noqa: F401 registers layers

    image, views, networks = canonical(knee), [], {}
    for plane in Plane:
        networks[plane] = keras.models.load_model(models / plane.value / "model.keras", compile=False)
        networks[plane].predict(np.zeros((2, 64, 64, 3), np.uint8), verbose=0)
    start = time.perf_counter()
    for plane, model in networks.items():
        stack = np.moveaxis(image.array, plane.axis, 0)
        said = model.predict(stack_neighbours(stack, range(len(stack)), 1), batch_size=2, verbose=0)
        views.append(np.moveaxis(said, 0, plane.axis))
    fused = np.average(np.stack(views), axis=0, weights=[0.5, 0.4, 0.1])
    fused.argmax(axis=-1).astype(np.uint8)
    return {"seconds": time.perf_counter() - start}


def network_alone(models: Path, knee: Path, precision: str) -> dict[str, Any]:
    """The best batch of each plane, and what all of its slices take so."""
    from knee3d.models.backend import Backend, load_model

    image, found, total = canonical(knee), {}, 0.0
    for plane in Plane:
        run, stack = load_model(models, plane, Backend(precision=precision)), np.moveaxis(image.array, plane.axis, 0)
        seconds = {}
        for batch in BATCHES:
            slices = stack_neighbours(stack, range(batch), 1)
            seconds[batch] = min(timed(run, slices) for _ in range(3)) / batch
        best = min(seconds, key=lambda batch: seconds[batch])
        found[plane.value] = {"batch": best, "s_per_slice": {batch: round(one, 4) for batch, one in seconds.items()}}
        total += seconds[best] * len(stack)
    return {"seconds": total, "planes": found}


def ours(models: Path, knee: Path, precision: str, fast: bool) -> dict[str, Any]:
    """`knee3d segment` with the networks' answers replaced."""
    from knee3d import api
    from knee3d.api.segment_case import load_networks, segment_case
    from knee3d.inference.trained_models import models_fingerprint

    (entry,), (first,) = find_cases(knee), find_cases(knee.with_name("small"))
    config = api.SegmentConfig(fast=fast, precision=precision)
    start = time.perf_counter()
    mark = models_fingerprint(models)
    trained, seconds, made_up, pixels = load_networks(models, config, mark), list[float](), list[float](), list[int]()
    loaded = time.perf_counter() - start
    ensemble = trained.ensemble
    views = {}
    for name, view in ensemble.views.items():
        watched = ByBrightness(view.predictor, seconds, made_up, pixels)
        inner = replace(view.view if isinstance(view, ResampledView) else view, predictor=watched)
        views[name] = replace(view, view=inner) if isinstance(view, ResampledView) else inner
    trained = replace(trained, ensemble=replace(ensemble, views=views))
    with tempfile.TemporaryDirectory() as out:
        segment_case(first, trained, config, mark, Path(out))
    seconds.clear()
    made_up.clear()
    pixels.clear()
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        record = segment_case(entry, trained, config, mark, Path(out))
        taken = time.perf_counter() - start - sum(made_up)
    return {"seconds": taken, "loading": loaded, "network": sum(seconds), "engine": record.computed_by,
            "pixels": sum(pixels) / 1e6, "whole_because": record.computed_whole_because}  # fmt: skip


def peak(precision: str) -> float:
    """GFLOP/s that a large product of matrices reaches."""
    import tensorflow as tf

    dtype = tf.bfloat16 if precision == "bfloat16" else tf.float32
    matrix = tf.cast(tf.random.normal((PEAK_SIZE, PEAK_SIZE)), dtype)
    return 2 * PEAK_SIZE**3 / min(timed(lambda one: tf.matmul(one, one).numpy(), matrix) for _ in range(5)) / 1e9


def gflop_of_a_knee(models: Path) -> float:
    """Of all slices of the three planes: two for each weight of a convolution and pixel of its output."""
    import keras

    import knee3d.networks  # noqa: F401 registers layers

    model = keras.models.load_model(models / Plane.SAGITTAL.value / "model.keras", compile=False)
    counted: list[float] = []

    def counting(layer: keras.layers.Conv2D) -> Callable[[Any], Any]:
        call = layer.call

        def call_and_count(inputs: Any) -> Any:
            answer = call(inputs)
            counted.append(2e-9 * np.prod(layer.kernel.shape) * np.prod(answer.shape[1:3]))
            return answer

        return call_and_count

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D):
            layer.call = counting(layer)
    model(np.zeros((1, 96, 96, 3), np.uint8))
    return sum(counted) / 96**2 * len(Plane) * float(np.prod(SHAPE))  # all sides are multiples of the stride


def canonical(knee: Path) -> Volume:
    """What a network sees of it."""
    from knee3d.dataset.preparation import to_network_input
    from knee3d.io.image_source import read_image

    return to_network_input(read_image(knee))[0]


def timed(work: Callable[[Any], object], given: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    work(given)
    return time.perf_counter() - start


WAYS: Mapping[str, Callable[[Path, Path], dict[str, Any]]] = {
    "network, float32": lambda models, knee: network_alone(models, knee, "float32"),
    "network, bfloat16": lambda models, knee: network_alone(models, knee, "bfloat16"),
    "naive": naive,
    "whole, float32": lambda models, knee: ours(models, knee, "float32", fast=False),
    "whole": lambda models, knee: ours(models, knee, "auto", fast=False),
    "fast": lambda models, knee: ours(models, knee, "auto", fast=True),
    "peak": lambda models, knee: {precision: peak(precision) for precision in ("float32", "bfloat16")},
    "gflop": lambda models, knee: {"knee": gflop_of_a_knee(models)},
}


def main() -> None:
    """Run each way in a process of its own, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="Label map in pymskt numbering to make the knee of.")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--spacing", help="Voxels of the networks, as of knee3d-train.")
    parser.add_argument("--nnunet", type=Path, help="Folder for nnU-Net's own environment; compares with it, too.")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, models, knee = options.child
        found = WAYS[way](Path(models), Path(knee))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print("RESULT" + json.dumps(found | {"memory_gb": memory}))
        return
    with tempfile.TemporaryDirectory() as home:
        models, knee = Path(home) / "models", Path(home) / "knee"
        make_models(models, options.spacing)
        given = options.labels and reorient(read_volume(options.labels), CANONICAL)
        make_knee(given or parametric_knee(SHAPE, seed=1, field_of_view_mm=FIELD_OF_VIEW_MM), knee)
        part = tuple(side / 4 for side in FIELD_OF_VIEW_MM)
        make_knee(
            parametric_knee(tuple(side // 4 for side in SHAPE), 1, field_of_view_mm=part), knee.with_name("small")
        )
        found = {}
        for way in options.ways:
            command = [sys.executable, __file__, "--child", way, str(models), str(knee)]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
            if not lines:
                raise SystemExit(f"{way}: {done.stderr[-2000:]}")
            found[way] = json.loads(lines[0].removeprefix("RESULT"))
            print(way, found[way], flush=True)
    _show(found)
    if options.nnunet:
        subprocess.run([sys.executable, Path(__file__).with_name("nnunet.py"), options.nnunet], check=True)


def _show(found: Mapping[str, Mapping[str, Any]]) -> None:
    seconds = {way: one["seconds"] for way, one in found.items() if "seconds" in one}
    table = Table(title=f"a knee of {' x '.join(map(str, SHAPE))} voxels, three planes, seven classes")
    columns = (
        "seconds",
        "naive takes",
        "over the network alone",
        "not the network",
        "million pixels",
        "memory",
        "GFLOP/s",
        "of peak",
    )
    for column in ("way", *columns):
        table.add_column(column, justify="right")
    for way, taken in seconds.items():
        one = found[way]
        precision = "bfloat16" if "bfloat16" in one.get("engine", way) else "float32"
        alone = seconds.get(f"network, {precision}")
        speed = found["gflop"]["knee"] / taken if "gflop" in found and way != "fast" else None
        table.add_row(
            way,
            f"{taken:.1f}",
            f"{seconds['naive'] / taken:.2f} times" if "naive" in seconds else "",
            f"{taken / alone:.3f}" if alone and way.startswith("whole") else "",
            f"{1 - one['network'] / taken:.1%}" if "network" in one else "",
            f"{one['pixels']:.1f}" if "pixels" in one else "",
            f"{one['memory_gb']:.2f} GB",
            f"{speed:.0f}" if speed else "",
            f"{speed / found['peak'][precision]:.0%}" if speed and "peak" in found else "",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
