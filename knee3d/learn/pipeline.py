"""Cases and a plane -> tf.data of (image, mask) batches.

    for each epoch: cases, shuffled -> a case's PNGs, decoded once -> its slices, shuffled, between their neighbours,
                    taken in turn from a few cases -> batch -> augment -> prefetch

Everything an epoch shows is a function of the seed and the epoch's number, so an interrupted training goes on with the
batches that it would have seen. Cases are decoded whole, 2 x 24 MB at OAI size, and windows are cut from that:
neighbours cost no second read, and memory depends on the cases open at a time, not on how many there are: tf.data holds
up to about 30 ready, 1.5 GB at OAI size.
"""

from dataclasses import dataclass

import tensorflow as tf

from knee3d.learn.augment import Strength, augment
from knee3d.learn.reading import Reader, Slices, ragged, reader

CASES_AT_ONCE = 8
READ_AHEAD = 2


@dataclass(frozen=True)
class Order:
    """How the slices of an epoch are drawn.

    Attributes:
        seed: The same seed and epoch give the same batches.
        foreground: Share of the visits, case by case, that go to slices with tissue; None visits every slice once.
            With a share, an epoch has as many visits, some slices are seen twice and others not; in the next epoch it
            is others.
        strength: Of augmentation; None leaves slices as they are.
    """

    seed: int
    foreground: float | None = None
    strength: Strength | None = None


def training_batches(
    slices: Slices, context: int, batch_size: int, order: Order, epochs: range, read: Reader | None = None
) -> tf.data.Dataset:
    """Stream the batches of some epochs, one epoch after the other.

    Args:
        slices: What to visit.
        context: Neighbours on each side, as channels; beyond the ends the outermost slice is repeated.
        batch_size: Global, over all devices; the last batch of an epoch may be smaller, nothing is dropped.
        order: Seed, share of slices with tissue, augmentation.
        epochs: Their numbers, such as range(3, 100) for a training that goes on after three.
        read: From `reader`, to take cases from a cache; None decodes PNGs.

    Returns:
        Dataset of ((batch, height, width, 2 * context + 1) uint8, (batch, height, width) uint8) of
        `len(epochs) * slices.steps(batch_size)` elements. Slices of different sizes in a batch are padded with 0 below
        and to the right.
    """
    read = read or reader(slices)
    centres = ragged(slices.centres, tf.int32)

    def visit(case: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, mask = read(case)
        mine = tf.random.experimental.stateless_fold_in(seed, case)
        return image, mask, _visits(centres[case], mask, order.foreground, mine)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.constant(order.seed, tf.int64), epoch])
        cases = tf.random.experimental.stateless_shuffle(tf.range(len(slices.names)), seed)
        volumes = tf.data.Dataset.from_tensor_slices(cases).map(
            lambda case: visit(case, seed), num_parallel_calls=READ_AHEAD, deterministic=True
        )
        stream = volumes.prefetch(READ_AHEAD).interleave(
            lambda image, mask, visits: tf.data.Dataset.from_tensor_slices(visits).map(
                lambda centre: (_window(image, centre, context), mask[centre])
            ),
            cycle_length=CASES_AT_ONCE,
            num_parallel_calls=2,
            deterministic=True,
        )
        batched = stream.padded_batch(batch_size, ((None, None, 2 * context + 1), (None, None)))
        strength = order.strength
        if strength is None:
            return batched
        return batched.enumerate().map(
            lambda step, pair: augment(*pair, tf.random.experimental.stateless_fold_in(seed, step), strength),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    stream = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    known = tf.data.experimental.assert_cardinality(len(epochs) * slices.steps(batch_size))
    return stream.apply(known).prefetch(tf.data.AUTOTUNE)


def validation_batches(slices: Slices, context: int, batch_size: int, read: Reader | None = None) -> tf.data.Dataset:
    """Stream every slice once, in the order of cases and slices.

    Returns:
        Dataset of (images, masks, cases): as `training_batches`, and the number of each slice's case, (batch,) int32.
    """
    read = read or reader(slices)
    centres = ragged(slices.centres, tf.int32)
    volumes = tf.data.Dataset.range(len(slices.names)).map(
        lambda case: (*read(case), centres[case], tf.cast(case, tf.int32)), num_parallel_calls=READ_AHEAD
    )
    stream = volumes.flat_map(
        lambda image, mask, visits, case: tf.data.Dataset.from_tensor_slices(visits).map(
            lambda centre: (_window(image, centre, context), mask[centre], case)
        )
    )
    batched = stream.padded_batch(batch_size, ((None, None, 2 * context + 1), (None, None), ()))
    known = tf.data.experimental.assert_cardinality(slices.steps(batch_size))
    return batched.apply(known).prefetch(tf.data.AUTOTUNE)


def shares(batches: tf.data.Dataset, replicas: int, mine: range) -> tf.data.Dataset:
    """Deal every batch out to the replicas of this process.

    Args:
        batches: Global ones.
        replicas: Over all processes; their shares of a batch differ by one slice at most. None is empty, as TensorFlow
            cannot convolve nothing: a batch with fewer slices than replicas repeats its last one, for case -1.
        mine: Those of this process.

    Returns:
        Dataset of one element for each batch and replica of mine.
    """

    def filled(part: tf.Tensor) -> tf.Tensor:
        missing = tf.maximum(replicas - tf.shape(part)[0], 0)
        filling = tf.fill([missing], -1) if part.shape.rank == 1 else tf.repeat(part[-1:], missing, axis=0)
        return tf.concat([part, filling], 0)

    def deal(*batch: tf.Tensor) -> tf.data.Dataset:
        parts = tuple(filled(part) for part in batch)
        count = tf.shape(parts[0], out_type=tf.int64)[0]
        return tf.data.Dataset.range(mine.start, mine.stop).map(
            lambda replica: tuple(
                part[count * replica // replicas : count * (replica + 1) // replicas] for part in parts
            )
        )

    return batches if replicas == 1 else batches.flat_map(deal).prefetch(len(mine))


def _visits(centres: tf.Tensor, mask: tf.Tensor, foreground: float | None, seed: tf.Tensor) -> tf.Tensor:
    """The slices of a case that an epoch visits, in its order; as many as there are centres."""
    seeds = tf.random.split(seed, 3)
    if foreground is not None:
        tissue = tf.reduce_any(tf.gather(mask, centres) > 0, axis=(1, 2))
        with_tissue, without = tf.boolean_mask(centres, tissue), tf.boolean_mask(centres, ~tissue)
        count = tf.size(centres)
        wanted = tf.cast(tf.round(foreground * tf.cast(count, tf.float32)), tf.int32)
        wanted = tf.where(tf.size(without) == 0, count, tf.where(tf.size(with_tissue) == 0, 0, wanted))
        centres = tf.concat([_dealt(with_tissue, wanted, seeds[1]), _dealt(without, count - wanted, seeds[2])], 0)
    return tf.random.experimental.stateless_shuffle(centres, seeds[0])


def _dealt(cards: tf.Tensor, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """So many of them, shuffled; all are dealt before any comes again."""
    shuffled = tf.random.experimental.stateless_shuffle(cards, seed)
    return tf.gather(shuffled, tf.range(count) % tf.maximum(tf.size(cards), 1))


def _window(volume: tf.Tensor, centre: tf.Tensor, context: int) -> tf.Tensor:
    """(height, width, 2 * context + 1): a slice between its neighbours."""
    index = tf.clip_by_value(centre + tf.range(-context, context + 1), 0, tf.shape(volume)[0] - 1)
    return tf.transpose(tf.gather(volume, index), (1, 2, 0))
