"""The input pipeline and the training of knee3d against what a user would otherwise take, in one run.

Pipeline: sagittal slices of OAI's size (384 x 384) between their neighbours, with masks, in shuffled order, against
(a) a Python generator with cv2.imread and (b) PNGs listed, read and decoded one by one in tf.data, as
keras.utils.image_dataset_from_directory does. Training: an epoch of the VGG16-UNet against Keras' own fit of the same
network, with the same loss, on the same slices lying ready in memory; and the share of time spent waiting for data.

    python benchmarks/training.py
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import cv2
import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import knee3d.training  # noqa: F401, I001 sets how many threads TensorFlow has, as in a training
from knee3d.dataset.case_collection import load_cases
from knee3d.geometry.plane import Plane
from knee3d.losses import LOSSES
from knee3d.networks.augmentation import STRENGTHS, DrawnAugmentation, draw_augmentations
from knee3d.training.build_network import network_with_first_weights
from knee3d.training.config import TrainConfig
from knee3d.training.input_pipeline import SamplingOrder, training_batches, with_waiting_time
from knee3d.training.sample_index import SampleIndex, index_samples, volume_reader
from knee3d.training.sampler import SliceSampler
from knee3d.training.slice_stack import PlaneStack
from knee3d.training.trainer import Trainer

CONTEXT = 1
BATCH = 4
CLASSES = 5

Files = list[tuple[list[str], str]]
"""For each slice the images of it and its neighbours, and its mask."""


def make_dataset(folder: Path, shape: str, knees: int) -> Path:
    """Made-up knees, prepared."""
    knee3d = [sys.executable, "-c", "from knee3d.cli import main; main()"]
    phantom = ["phantom", str(folder / "cohort"), "--knees", str(knees), "--shape", shape]
    prepare = ["prepare", str(folder / "cohort" / "knees.csv"), str(folder / "dataset")]
    for command in (phantom, prepare):
        subprocess.run([*knee3d, *command], check=True, capture_output=True)
    return folder / "dataset"


def files_of(slices: SampleIndex) -> Files:
    """What the alternatives read."""
    found = []
    for stack in slices.stacks:
        for index, mask in enumerate(stack.masks):
            around = [min(max(index + offset, 0), len(stack.images) - 1) for offset in range(-CONTEXT, CONTEXT + 1)]
            found.append(([stack.images[neighbour] for neighbour in around], mask))
    return found


def by_generator(files: Files) -> Iterator[tf.Tensor]:
    """(a) One slice after the other, read by OpenCV in Python."""

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, mask in random.Random(0).sample(files, len(files)):
            channels = [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in images]
            yield np.stack(channels, axis=-1), cv2.imread(mask, cv2.IMREAD_GRAYSCALE)

    kinds = (tf.TensorSpec((None, None, 2 * CONTEXT + 1), tf.uint8), tf.TensorSpec((None, None), tf.uint8))
    return iter(tf.data.Dataset.from_generator(read, output_signature=kinds).batch(BATCH).prefetch(tf.data.AUTOTUNE))


def by_files(files: Files) -> Iterator[tf.Tensor]:
    """(b) Files listed, shuffled, read and decoded in parallel by tf.data."""

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0]

    def load(images: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels = [decode(images[channel]) for channel in range(2 * CONTEXT + 1)]
        return tf.stack(channels, axis=-1), decode(mask)

    listed = tf.data.Dataset.from_tensor_slices(([images for images, _ in files], [mask for _, mask in files]))
    loaded = listed.shuffle(len(files), seed=0).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(loaded.batch(BATCH).prefetch(tf.data.AUTOTUNE))


def slices_per_second(batches: Iterator[tf.Tensor], limit: int) -> float:
    """Over at most so many slices, without the first batch, which starts the machinery."""
    next(batches)
    started, count = time.perf_counter(), 0
    for images, *_ in batches:
        count += len(images)
        if count >= limit:
            break
    return count / (time.perf_counter() - started)


def augmented(slices: SampleIndex) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Batches of which the first, again and again, is changed: what the changes alone take."""
    sampler = SliceSampler(CONTEXT)
    change = DrawnAugmentation(STRENGTHS["medium"], [sampler.frame(one.shape, one.voxel_mm) for one in slices.stacks])
    step = tf.function(lambda images, masks, stacks, drawn: change(images, masks, stacks, drawn))
    images, masks, stacks, _ = next(iter(training_batches(slices, sampler, BATCH, SamplingOrder(0), range(1))))
    for number in range(10_000):
        yield step(images, masks, stacks, draw_augmentations(tf.constant([0, number], tf.int64), tf.constant(BATCH)))


def time_pipelines(slices: SampleIndex, rounds: int) -> dict[str, float]:
    """Slices a second of each, the median of rounds in which all have their turn."""
    files, count = files_of(slices), slices.count
    ways = {
        "knee3d": lambda: iter(training_batches(slices, SliceSampler(CONTEXT), BATCH, SamplingOrder(0), range(1))),
        "(a) generator with cv2.imread": lambda: by_generator(files),
        "(b) tf.data, file by file": lambda: by_files(files),
        "knee3d, --cache memory": lambda: iter(
            training_batches(slices, SliceSampler(CONTEXT), BATCH, SamplingOrder(0), range(1), kept)
        ),
        "knee3d, --augment medium": lambda: augmented(slices),
    }
    kept = volume_reader(slices.stacks, "memory")
    measured = [
        {name: slices_per_second(way(), 100 if "augment" in name else count) for name, way in ways.items()}
        for _ in range(rounds)
    ]
    return {name: median(one[name] for one in measured) for name in ways}


def time_training(slices: SampleIndex, rounds: int) -> dict[str, float]:
    """Seconds of an epoch by knee3d and by fit from memory, and the share spent waiting, medians of the rounds."""
    config = TrainConfig().with_options(encoder_weights="none", batch_size=BATCH)
    loss = LOSSES[config.optimizer.loss](background=config.optimizer.loss_background)
    trainer = Trainer(network_with_first_weights(CLASSES, config, None), loss, len(slices.stacks))
    stream = with_waiting_time(
        training_batches(slices, SliceSampler(CONTEXT), BATCH, SamplingOrder(0), range(2 * rounds + 2))
    ).repeat()
    batches = list(training_batches(slices, SliceSampler(CONTEXT), BATCH, SamplingOrder(0), range(1)))
    images, masks = (np.concatenate([batch[part] for batch in batches]) for part in range(2))
    twin = network_with_first_weights(CLASSES, config, None)
    twin.compile(keras.optimizers.Adam(1e-4), loss)
    trainer.fit(stream, steps_per_epoch=1, shuffle=False, verbose=0)  # both are traced off the clock
    twin.fit(images[:BATCH], masks[:BATCH], batch_size=BATCH, verbose=0)
    measured = []
    for _ in range(rounds):
        started = time.perf_counter()
        epoch = trainer.fit(stream, steps_per_epoch=slices.steps(BATCH), shuffle=False, verbose=0).history
        ours = time.perf_counter() - started
        started = time.perf_counter()
        twin.fit(images, masks, batch_size=BATCH, verbose=0)
        measured.append((ours, time.perf_counter() - started, epoch["waited"][0] / ours))
    ours, fit, waited = (median(column) for column in zip(*measured, strict=True))
    return {"ours": ours, "fit": fit, "waited": waited}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="384,384,160", help="of the knees")
    parser.add_argument("--knees", type=int, default=3, help="3 or more")
    parser.add_argument("--slices", type=int, default=12, help="in the epochs of training")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        dataset = load_cases(make_dataset(Path(scratch), given.shape, given.knees))
        stacks = [PlaneStack.of(dataset, case, Plane.SAGITTAL) for case in dataset.cases]
        rates = time_pipelines(index_samples(stacks, SliceSampler(CONTEXT)), given.rounds)
        times = time_training(index_samples(stacks, SliceSampler(CONTEXT), given.slices), given.rounds)
    consumed = given.slices / times["ours"]
    table = Table("input", "slices/s", "knee3d is faster by", "wanted", title=f"{given.shape}, context {CONTEXT}")
    wanted = {"(a) generator with cv2.imread": "3", "(b) tf.data, file by file": "1.5"}
    for name, rate in rates.items():
        table.add_row(
            name, f"{rate:.0f}", f"{rates['knee3d'] / rate:.2f}" if name in wanted else "", wanted.get(name, "")
        )
    Console().print(table)
    table = Table("training", "measured", "wanted", title=f"VGG16-UNet, {given.slices} slices, batch {BATCH}")
    table.add_row("an epoch", f"{times['ours']:.1f} s, {consumed:.2f} slices/s", "")
    table.add_row("over Keras' fit from memory", f"{times['ours'] / times['fit']:.3f}", "at most 1.1")
    table.add_row("waiting for data", f"{times['waited']:.2%}", "at most 5%")
    table.add_row("--augment medium over what the network takes",
                  f"{rates['knee3d, --augment medium'] / consumed:.0f}", "at least 10")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
