"""An epoch of training and one of validation, on one device or all GPUs of a machine.

Keras' own `fit` (3.15) does not say how long it waited for data, and gives every device the loss of its share of a
batch. Here each device computes the loss of the whole batch (`losses.Total`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from knee3d.learn.losses import Loss, sums_of
from knee3d.learn.pipeline import shares
from knee3d.postprocess.confusion import Scores

LOOK_EVERY = 8
"""Steps between two looks at results; a look waits for the device."""


@cache
def strategy() -> tf.distribute.Strategy:
    """What TensorFlow offers for the devices of this machine; the same object at every call.

    It is MirroredStrategy over all visible GPUs, or CPUs. With one device it is TensorFlow's own, which does the same
    without copies: on a CPU the mirror of one makes training 13 % and validation three times slower.

    It must be called before TensorFlow computes anything.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


@dataclass(frozen=True)
class Trained:
    """An epoch of training.

    Attributes:
        loss: Mean over slices.
        dice: Mean over tissues of the Dice of all labels of the epoch, as they were while the network changed.
        seconds: It took.
        waited: Share of the time spent waiting for data.
    """

    loss: float
    dice: float
    seconds: float
    waited: float


@dataclass(frozen=True, eq=False)
class Validated:
    """An epoch of validation.

    Attributes:
        loss: Mean over slices of the loss of their batch.
        knee_loss: Mean over knees of the loss of all slices of a knee together.
        cases: Scores of each knee, in the order of the stacks.
    """

    loss: float
    knee_loss: float
    cases: tuple[Scores, ...]

    @property
    def pooled(self) -> Scores:
        """Of all knees together."""
        return sum(self.cases[1:], self.cases[0])


def distributed(batches: tf.data.Dataset) -> Iterator[Any]:
    """Batches, each dealt out to the devices, without end: whoever takes them knows how many there are."""
    devices = strategy()
    dealt = shares(batches, devices.num_replicas_in_sync).repeat()
    return iter(devices.distribute_datasets_from_function(lambda context: dealt))


def total(value: tf.Tensor) -> tf.Tensor:
    """Inside a replica: the sum over all replicas, with its gradient."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def training_step(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    loss: Loss,
    background: bool,
    clip_norm: float | None,
    xla: bool,
) -> Callable[[Any], tf.Tensor]:
    """Compile a step of training.

    Args:
        model: Compiled with its optimizer, built in the scope of `strategy()`.
        variables: Those that learn.
        loss: See `losses`.
        background: Whether the loss counts it.
        clip_norm: Largest norm of all gradients together.
        xla: Compile with XLA.

    Returns:
        Function of a distributed batch -> (2, classes) float32: in the first column the loss, twice; then for each
        tissue twice the overlap, and the sizes.
    """
    devices = strategy()
    replicas, optimizer = devices.num_replicas_in_sync, model.optimizer

    def on_replica(images: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            value = loss(masks, probabilities, background, total)
            scaled = optimizer.scale_loss(value / replicas)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        if clip_norm is not None:
            shared = [total(gradient) for gradient in gradients]
            clipped, _ = tf.clip_by_global_norm(shared, optimizer.scale_loss(clip_norm))
            gradients = [gradient / replicas for gradient in clipped]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        classes = tf.shape(probabilities)[-1]
        truth = tf.one_hot(tf.cast(masks, tf.int32), classes)[..., 1:]
        found = tf.one_hot(tf.argmax(probabilities, axis=-1), classes)[..., 1:]
        voxels = list(range(masks.shape.rank))
        overlap, sizes = (tf.reduce_sum(part, axis=voxels) for part in (2 * truth * found, truth + found))
        mine = [value / replicas]
        return tf.stack([tf.concat([mine, overlap], 0), tf.concat([mine, sizes], 0)])

    compiled = tf.function(on_replica, reduce_retracing=True, jit_compile=True) if xla else on_replica

    @tf.function(reduce_retracing=True)
    def step(batch: Any) -> tf.Tensor:
        return devices.reduce(tf.distribute.ReduceOp.SUM, devices.run(compiled, batch), axis=None)

    return step


def validation_step(model: keras.Model, loss: Loss, background: bool, cases: int) -> Callable[[Any], tuple[tf.Tensor]]:
    """Compile a step of validation.

    Returns:
        Function of a distributed batch -> its loss, scalar float32; (cases, classes, classes) int64, voxels by true and
        predicted class; and (cases, 4, classes) float32, what the loss of each case is computed from.
    """
    devices = strategy()

    def on_replica(images: tf.Tensor, masks: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, ...]:
        probabilities = model(images, training=False)
        classes = probabilities.shape[-1]
        sums = sums_of(masks, probabilities, loss.surprise)
        value = loss.of_sums(total(tf.reduce_sum(sums, axis=0)), background)
        pairs = tf.cast(masks, tf.int32) * classes + tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        bins = (cases + 1) * classes**2  # the first for parts that fill a batch up, case -1
        owned = (tf.reshape(owners, [-1] + [1] * (masks.shape.rank - 1)) + 1) * classes**2 + pairs
        counts = tf.math.bincount(tf.reshape(owned, [-1]), minlength=bins, maxlength=bins)
        matrices = tf.reshape(tf.cast(counts, tf.int64), (cases + 1, classes, classes))[1:]
        return value / devices.num_replicas_in_sync, matrices, tf.math.unsorted_segment_sum(sums, owners, cases)

    @tf.function(reduce_retracing=True)
    def step(batch: Any) -> tuple[tf.Tensor, ...]:
        results = devices.run(on_replica, batch)
        return tuple(devices.reduce(tf.distribute.ReduceOp.SUM, part, axis=None) for part in results)

    return step


def train_epoch(
    step: Callable[[Any], tf.Tensor], batches: Iterator[Any], sizes: Sequence[int], advance: Callable[[int], object]
) -> Trained:
    """Take the steps of an epoch.

    Args:
        step: From `training_step`.
        batches: From `distributed`.
        sizes: Slices in each batch.
        advance: Told how many steps were just done.
    """
    started = time.perf_counter()
    waited, results, pending = 0.0, [], []
    for number in range(len(sizes)):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        pending.append(step(batch))
        if len(pending) == LOOK_EVERY or number == len(sizes) - 1:
            results += [result.numpy() for result in pending]
            advance(len(pending))
            pending.clear()
    seconds = time.perf_counter() - started
    loss = np.average([result[0, 0] for result in results], weights=sizes)
    overlap, voxels = np.sum(results, axis=0, dtype=np.float64)[:, 1:]
    present = voxels > 0
    dice = np.mean(overlap[present] / voxels[present]) if present.any() else 0.0
    return Trained(float(loss), float(dice), seconds, waited / seconds)


def validate(
    step: Callable[[Any], tuple[tf.Tensor, ...]],
    batches: Iterator[Any],
    sizes: Sequence[int],
    names: tuple[str, ...],
    of_sums: Callable[[tf.Tensor], tf.Tensor],
) -> Validated:
    """Score every slice once.

    Args:
        step: From `validation_step`.
        batches: From `distributed`.
        sizes: Slices in each batch.
        names: Of the tissues.
        of_sums: The loss of (cases, 4, classes) sums, see `losses`.
    """
    losses, matrices, sums = [], np.int64(0), np.float64(0)
    for _ in sizes:
        value, counts, parts = step(next(batches))
        losses.append(float(value))
        matrices, sums = matrices + counts.numpy(), sums + parts.numpy().astype(np.float64)
    knees = of_sums(tf.constant(sums, tf.float32)).numpy()
    scores = tuple(Scores(matrix, names) for matrix in matrices)
    return Validated(float(np.average(losses, weights=sizes)), float(knees.mean()), scores)
