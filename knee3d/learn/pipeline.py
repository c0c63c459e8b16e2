"""Cases and a plane -> tf.data of (image, mask) batches.

    cases (shuffled) -> all PNGs of a case decoded once -> windows of neighbours, interleaved over cases
                     -> shuffle -> batch -> prefetch

A case is decoded whole, 2 x 24 MB at OAI size, and its windows are cut from that: neighbours cost no second read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from knee3d.anatomy.plane import Plane
from knee3d.dataset.cases import Case, Dataset

CASES_AT_ONCE = 4
SHUFFLED_SLICES = 512


@dataclass(frozen=True)
class Slices:
    """The slices that one epoch visits, as paths.

    Attributes:
        images: PNG paths of each case in slice order.
        masks: The same of the masks.
        centres: For each case, the slices to visit; all PNGs may still serve as neighbours.
    """

    images: tuple[tuple[str, ...], ...]
    masks: tuple[tuple[str, ...], ...]
    centres: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """Slices in one epoch."""
        return sum(len(centres) for centres in self.centres)


def slices_of(dataset: Dataset, cases: Sequence[Case], plane: Plane, limit: int | None = None) -> Slices:
    """List the slices of some cases along a plane.

    Args:
        dataset: Where they lie.
        cases: Labelled cases.
        plane: Direction of slicing.
        limit: Visit so many slices only, spaced evenly over all of them; None visits all.
    """
    counts = [case.shape[plane.axis] for case in cases]
    total = sum(counts)
    chosen = np.arange(total) if limit is None else np.unique(np.linspace(0, total - 1, min(limit, total)).round())
    ends = np.cumsum(counts)
    centres = [
        chosen[(chosen >= end - count) & (chosen < end)] - (end - count)
        for end, count in zip(ends, counts, strict=True)
    ]
    visited = [(case, where) for case, where in zip(cases, centres, strict=True) if len(where)]

    def paths(kind: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(map(str, dataset.slice_paths(case, plane, kind))) for case, _ in visited)

    return Slices(paths("image"), paths("mask"), tuple(tuple(map(int, where)) for _, where in visited))


def batches(slices: Slices, context: int, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """Stream (image, mask) batches, once over all slices.

    Args:
        slices: What to visit.
        context: Neighbours on each side, as channels; beyond the ends the outermost slice is repeated.
        batch_size: Global, over all devices; the last batch may be smaller, nothing is dropped.
        shuffle_seed: None keeps the order of cases and slices; otherwise the order is new in each epoch, and the same
            for the same seed.

    Returns:
        Dataset of ((batch, height, width, 2 * context + 1) uint8, (batch, height, width) uint8) with known
        cardinality. Slices of different sizes in a batch are padded with 0 below and to the right.
    """
    shuffled = shuffle_seed is not None
    columns = (tf.ragged.constant(column) for column in (slices.images, slices.masks, slices.centres))
    cases = tf.data.Dataset.from_tensor_slices(tuple(columns))
    if shuffled:
        cases = cases.shuffle(len(slices.images), seed=shuffle_seed)
    volumes = cases.map(_read_case, num_parallel_calls=CASES_AT_ONCE if shuffled else 2)
    stream = volumes.interleave(
        lambda image, mask, centres: tf.data.Dataset.from_tensor_slices(centres).map(
            lambda centre: (_window(image, centre, context), mask[centre])
        ),
        cycle_length=CASES_AT_ONCE if shuffled else 1,
        num_parallel_calls=CASES_AT_ONCE if shuffled else 1,
        deterministic=True,
    )
    if shuffled:
        stream = stream.shuffle(min(SHUFFLED_SLICES, slices.count), seed=shuffle_seed)
    stream = stream.padded_batch(batch_size, padded_shapes=((None, None, 2 * context + 1), (None, None)))
    return stream.prefetch(tf.data.AUTOTUNE).apply(
        tf.data.experimental.assert_cardinality(-(-slices.count // batch_size))
    )


def _read_case(images: tf.Tensor, masks: tf.Tensor, centres: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(slices, height, width) uint8 image and mask of one case."""
    return _decode(images), _decode(masks), centres


def _decode(paths: tf.Tensor) -> tf.Tensor:
    spec = tf.TensorSpec((None, None), tf.uint8)
    return tf.map_fn(
        lambda path: tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0], paths, fn_output_signature=spec
    )


def _window(volume: tf.Tensor, centre: tf.Tensor, context: int) -> tf.Tensor:
    """(height, width, 2 * context + 1): a slice between its neighbours."""
    index = tf.clip_by_value(centre + tf.range(-context, context + 1), 0, tf.shape(volume)[0] - 1)
    return tf.transpose(tf.gather(volume, index), (1, 2, 0))
