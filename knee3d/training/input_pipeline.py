"""Stream batches of slices and masks with `tf.data`.

    for each epoch: stacks, shuffled -> a stack's voxels, read once -> its places, shuffled, cut out as the network is
                    shown them, taken in turn from a few stacks -> batch, with random numbers -> prefetch

Everything an epoch shows is a function of the seed and the epoch's number, so an interrupted training goes on with the
batches that it would have seen. Stacks are read whole, 2 x 24 MB at OAI size, and parts are cut from that: neighbours
cost no second read, and memory depends on the stacks open at a time, not on how many there are: tf.data holds up to
about 30 ready, 1.5 GB at OAI size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import knee3d.tensorflow_setup  # noqa: F401

import tensorflow as tf

from knee3d.networks.augmentation import draw_augmentations
from knee3d.training.sample_index import SampleIndex, VolumeReader, index_samples, ragged_tensor, volume_reader
from knee3d.training.sampler import Sampler
from knee3d.training.slice_stack import Stack

STACKS_AT_ONCE = 8
READ_AHEAD = 2


@dataclass(frozen=True)
class SamplingOrder:
    """How the places of an epoch are drawn.

    Attributes:
        seed: The same seed and epoch give the same batches.
        foreground: Share of the samples of each stack that show tissue; None is up to the sampler. With a share, an
            epoch has as many samples; some slices are seen twice and others not, and others in the next epoch.
    """

    seed: int
    foreground: float | None = None


def training_batches(
    index: SampleIndex,
    sampler: Sampler,
    batch_size: int,
    order: SamplingOrder,
    epochs: range,
    read: VolumeReader | None = None,
) -> tf.data.Dataset:
    """Stream the batches of some epochs, one epoch after the other.

    Args:
        index: The samples of an epoch, by stack.
        sampler: What a network is shown at a time.
        batch_size: Global, over all devices; the last batch of an epoch may be smaller, nothing is dropped.
        order: Seed, and share of samples with tissue.
        epochs: Their numbers, such as range(3, 100) for a training that goes on after three.
        read: From `volume_reader`, to take stacks from a cache; None reads them anew.

    Returns:
        Dataset of (images, masks, stacks, drawn): images and masks are batches of what the sampler gives, uint8, stacks
        are the numbers of each part's stack, (batch,) int32, and drawn is what `augmentation.draw_augmentations` drew
        for each. It has
        `len(epochs) * visits.steps(batch_size)` elements. A batch is of one plane, as slices of others have another
        size. Where sizes differ all the same, from knee to knee or among oblique directions, slices are padded with 0
        below and to the right.
    """
    numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
    stream = _epochs(index, sampler, batch_size, order, numbers, read)
    known = tf.data.experimental.assert_cardinality(len(epochs) * index.steps(batch_size))
    return _untuned(stream.apply(known).prefetch(READ_AHEAD))


def slice_batches(
    stacks: Sequence[Stack], sampler: Sampler, batch_size: int, seed: int | None = None, cache: str | None = None
) -> tf.data.Dataset:
    """Stream one epoch of slices and masks, for any Keras model. Each iteration over the stream is an epoch.

    Args:
        stacks: Slices and masks of each knee.
        sampler: What a network sees at a time, such as a slice between its neighbours.
        batch_size: Slices in a batch; the last batch may be smaller.
        seed: Seed of the order of slices, which is another one in each epoch. None keeps the order of the files.
        cache: See `sample_index.volume_reader`.

    Returns:
        Batches of (images, masks): uint8 (batch, height, width, 2 * context + 1) and uint8 (batch, height, width).
    """
    index = index_samples(stacks, sampler)
    read = volume_reader(index.stacks, cache)
    if seed is None:
        batches = validation_batches(index, sampler, batch_size, read)
    else:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        stream = _epochs(index, sampler, batch_size, SamplingOrder(seed), numbers, read)
        batches = stream.apply(tf.data.experimental.assert_cardinality(index.steps(batch_size)))
    return _untuned(batches.map(lambda images, masks, *_: (images, masks)).prefetch(READ_AHEAD))


def _epochs(
    index: SampleIndex,
    sampler: Sampler,
    batch_size: int,
    order: SamplingOrder,
    numbers: tf.data.Dataset,
    read: VolumeReader | None,
) -> tf.data.Dataset:
    """The batches of the epochs of some numbers, int64, as `training_batches` has them."""
    read = read or volume_reader(index.stacks)
    positions = ragged_tensor(index.positions, tf.int32)

    def visit(stack: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image, mask = read(stack)
        mine = tf.random.experimental.stateless_fold_in(seed, stack)
        return image, mask, sampler.samples(positions[stack], mask, order.foreground, mine), stack

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        seed = tf.stack([tf.constant(order.seed, tf.int64), epoch])
        stacks = tf.random.experimental.stateless_shuffle(tf.range(len(index.stacks)), seed)
        volumes = tf.data.Dataset.from_tensor_slices(stacks).map(
            lambda stack: visit(stack, seed), num_parallel_calls=READ_AHEAD, deterministic=True
        )
        stream = volumes.prefetch(READ_AHEAD).interleave(
            lambda image, mask, where, stack: tf.data.Dataset.from_tensor_slices(where).map(
                lambda position: (*sampler.cut(image, mask, position), stack)
            ),
            cycle_length=STACKS_AT_ONCE,
            num_parallel_calls=2,
            deterministic=True,
        )
        batched = _of_one_plane(stream, index.planes, batch_size, sampler)
        return batched.enumerate().map(
            lambda step, batch: (
                *batch,
                draw_augmentations(tf.random.experimental.stateless_fold_in(seed, step), tf.size(batch[2])),
            )
        )

    return numbers.flat_map(one_epoch)


def _of_one_plane(stream: tf.data.Dataset, planes: Sequence[int], batch_size: int, sampler: Sampler) -> tf.data.Dataset:
    """Batches of the (image, mask, stack) of a stream, a plane each, in the order in which they are full."""
    shapes = (sampler.image_shape, sampler.mask_shape, ())
    if max(planes, default=0) == 0:
        return stream.padded_batch(batch_size, shapes)
    numbers = tf.constant(planes, tf.int64)
    return stream.group_by_window(
        lambda image, mask, stack: numbers[stack],
        lambda plane, window: window.padded_batch(batch_size, shapes),
        window_size=batch_size,
    )


def validation_batches(
    index: SampleIndex, sampler: Sampler, batch_size: int, read: VolumeReader | None = None
) -> tf.data.Dataset:
    """Stream every place once, in the order of stacks and places.

    Returns:
        Dataset of (images, masks, stacks): as `training_batches`, and the number of each part's stack, (batch,) int32.
    """
    read = read or volume_reader(index.stacks)
    positions = ragged_tensor(index.positions, tf.int32)
    volumes = tf.data.Dataset.range(len(index.stacks)).map(
        lambda stack: (*read(stack), positions[stack], tf.cast(stack, tf.int32)), num_parallel_calls=READ_AHEAD
    )
    stream = volumes.flat_map(
        lambda image, mask, where, stack: tf.data.Dataset.from_tensor_slices(where).map(
            lambda position: (*sampler.cut(image, mask, position), stack)
        )
    )
    batched = _of_one_plane(stream, index.planes, batch_size, sampler)
    known = tf.data.experimental.assert_cardinality(index.steps(batch_size))
    return _untuned(batched.apply(known).prefetch(READ_AHEAD))


def _untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Keep tf.data's tuner away: whoever lets go of an iterator waits until it has slept, up to a minute (D72)."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def with_waiting_time(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Each batch, and how many seconds went by from when it was asked for to when it was there, float64.

    Several devices ask ahead of what they need: there it is how long making the batch took.
    """
    clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
    zipped = tf.data.Dataset.zip((clock, batches, clock))
    return _untuned(zipped.map(lambda asked, batch, there: (batch, there - asked)))


def split_validation_batches(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Deal every batch of validation out to the replicas.

    Args:
        batches: Of (images, masks, stacks).
        replicas: How many there are; their shares of a batch differ by one slice at most. None is empty, as TensorFlow
            cannot convolve nothing: a batch with fewer slices than replicas is filled up with its last one, as if of
            stack -1, which counts nowhere.

    Returns:
        Dataset of one element for each batch and replica.
    """

    def filled(images: tf.Tensor, masks: tf.Tensor, stacks: tf.Tensor) -> tuple[tf.Tensor, ...]:
        missing = tf.maximum(replicas - tf.shape(stacks)[0], 0)
        more = (tf.repeat(part[-1:], missing, axis=0) for part in (images, masks))
        return tuple(
            tf.concat([part, filling], 0)
            for part, filling in zip((images, masks, stacks), (*more, tf.fill([missing], -1)), strict=True)
        )

    return batches.map(filled).flat_map(lambda *batch: _parts(batch, replicas)).prefetch(replicas)


def split_training_batches(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Deal every batch of training out to the replicas, with the seconds that it was waited for.

    Args:
        batches: From `with_waiting_time`.
        replicas: How many there are. A batch with fewer slices, the last of an epoch, is left out.

    Returns:
        Dataset of one element for each batch and replica; the first replica has the seconds.
    """

    def deal(batch: tuple[tf.Tensor, ...], waited: tf.Tensor) -> tf.data.Dataset:
        seconds = tf.concat([[waited], tf.zeros(replicas - 1, tf.float64)], 0)
        return tf.data.Dataset.zip((_parts(batch, replicas), tf.data.Dataset.from_tensor_slices(seconds)))

    enough = batches.filter(lambda batch, _: tf.shape(batch[2])[0] >= replicas)
    return enough.flat_map(deal).prefetch(replicas)


def _parts(batch: tuple[tf.Tensor, ...], replicas: int) -> tf.data.Dataset:
    """A batch, cut into as many parts as there are replicas."""
    count = tf.shape(batch[0], out_type=tf.int64)[0]
    return tf.data.Dataset.range(replicas).map(
        lambda replica: tuple(part[count * replica // replicas : count * (replica + 1) // replicas] for part in batch)
    )
