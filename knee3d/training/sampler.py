"""Samplers: what a network sees at a time, a slice between its neighbours or a patch of the volume.

A place is a number: of a slice, or of the voxel where a patch begins. Parts are cut from a stack's image and mask, both
(slices, height, width) uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import knee3d.tensorflow_setup  # noqa: F401

import numpy as np
import tensorflow as tf

TISSUE_SHARE = 1 / 3
"""Of the patches, around a voxel of tissue, unless another share is asked for (Isensee et al., nnU-Net, 2021)."""


@dataclass(frozen=True)
class SliceSampler:
    """A slice between its neighbours, (height, width, 2 * context + 1), and its own mask, (height, width).

    Attributes:
        context: Neighbours on each side; beyond the ends the outermost slice is repeated.
        sample_name: What its parts are.
        input_description: What a network is shown, for its card.
        mask_shape: Of its truth; None where stacks differ.
    """

    context: int
    sample_name: ClassVar[str] = "slices"
    input_description: ClassVar[str] = (
        "uint8 (n, height, width, 2 * context + 1): a slice between its neighbours, as a right knee's"
    )
    mask_shape: ClassVar[tuple[int | None, ...]] = (None, None)

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Of what a network is shown; None where stacks differ."""
        return None, None, 2 * self.context + 1

    def size_and_aspect(
        self, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        """Of a part: height and width in pixels, and how many times as wide as high a pixel is.

        Args:
            shape: Of the stack.
            voxel_mm: Of the stack.
        """
        return shape[1], shape[2], voxel_mm[2] / voxel_mm[1]

    def positions(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Those that show every voxel of a stack once."""
        return np.arange(shape[0])

    def samples(self, positions: tf.Tensor, mask: tf.Tensor, foreground: float | None, seed: tf.Tensor) -> tf.Tensor:
        """The places that an epoch of training sees, in its order; as many as there are.

        Args:
            positions: Of the stack.
            mask: Of the stack.
            foreground: Share of the samples that show tissue; None samples each position once.
            seed: (2,) integers.
        """
        seeds = tf.random.split(seed, 3)
        if foreground is not None:
            tissue = tf.reduce_any(tf.gather(mask, positions) > 0, axis=(1, 2))
            with_tissue, without = tf.boolean_mask(positions, tissue), tf.boolean_mask(positions, ~tissue)
            count = tf.size(positions)
            wanted = tf.cast(tf.round(foreground * tf.cast(count, tf.float32)), tf.int32)
            wanted = tf.where(tf.size(without) == 0, count, tf.where(tf.size(with_tissue) == 0, 0, wanted))
            positions = tf.concat([_dealt(with_tissue, wanted, seeds[1]), _dealt(without, count - wanted, seeds[2])], 0)
        return tf.random.experimental.stateless_shuffle(positions, seeds[0])

    def cut(self, image: tf.Tensor, mask: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What a network is shown, and its truth."""
        index = tf.clip_by_value(position + tf.range(-self.context, self.context + 1), 0, tf.shape(image)[0] - 1)
        return tf.transpose(tf.gather(image, index), (1, 2, 0)), mask[position]


@dataclass(frozen=True)
class PatchSampler:
    """A patch of a stack and of its mask, zeros where it reaches beyond.

    Attributes:
        patch: Its shape.
        sample_name: See `SliceSampler`.
        input_description: See `SliceSampler`.
    """

    patch: tuple[int, int, int]
    sample_name: ClassVar[str] = "patches"
    input_description: ClassVar[str] = "uint8 (n, inferior, posterior, left): a patch of the volume, as a right knee's"

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Of what a network is shown."""
        return self.patch

    @property
    def mask_shape(self) -> tuple[int | None, ...]:
        """Of its truth."""
        return self.patch

    def size_and_aspect(
        self, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]
    ) -> tuple[float, float, float]:
        """See `SliceSampler`: of its first two axes, as all slices along the third are changed alike."""
        return self.patch[0], self.patch[1], voxel_mm[1] / voxel_mm[0]

    def positions(self, shape: tuple[int, int, int]) -> np.ndarray:
        """See `SliceSampler`: tiles, within the volume where it is as large as a patch.

        The last of a row ends at the border, as inference has it, and what it shares with the one before counts twice.
        """
        along = [
            np.minimum(np.arange(0, size, length), max(size - length, 0))
            for size, length in zip(shape, self.patch, strict=True)
        ]
        return np.ravel_multi_index([one.ravel() for one in np.meshgrid(*along, indexing="ij")], shape)

    def samples(self, positions: tf.Tensor, mask: tf.Tensor, foreground: float | None, seed: tf.Tensor) -> tf.Tensor:
        """See `SliceSampler`; anywhere within the stack, a share of them around a voxel of tissue."""
        seeds = tf.random.split(seed, 3)
        count, shape = tf.size(positions), tf.shape(mask)
        last = tf.maximum(shape - self.patch, 0)
        anywhere = tf.random.stateless_uniform((count, 3), seeds[0], maxval=1.0) * tf.cast(last + 1, tf.float32)
        begins = tf.minimum(tf.cast(anywhere, tf.int32), last)
        tissue = tf.cast(tf.where(mask > 0), tf.int32)
        chosen = tf.random.stateless_uniform(
            (count,), seeds[1], maxval=tf.maximum(tf.size(tissue) // 3, 1), dtype=tf.int32
        )
        padded = tf.concat([tissue, tf.zeros((1, 3), tf.int32)], 0)
        around = tf.clip_by_value(tf.gather(padded, chosen) - tf.constant(self.patch) // 2, 0, last)
        share = TISSUE_SHARE if foreground is None else foreground
        wanted = (tf.random.stateless_uniform((count, 1), seeds[2]) < share) & (tf.size(tissue) > 0)
        begins = tf.where(wanted, around, begins)
        return (begins[:, 0] * shape[1] + begins[:, 1]) * shape[2] + begins[:, 2]

    def cut(self, image: tf.Tensor, mask: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `SliceSampler`."""
        begin = tf.unravel_index(position, tf.shape(image))
        size = tf.minimum(tf.shape(image) - begin, self.patch)
        beyond = tf.stack([tf.zeros(3, tf.int32), self.patch - size], axis=1)
        image, mask = (tf.pad(tf.slice(volume, begin, size), beyond) for volume in (image, mask))
        return tf.ensure_shape(image, self.patch), tf.ensure_shape(mask, self.patch)


Sampler = SliceSampler | PatchSampler


def _dealt(cards: tf.Tensor, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """So many of them, shuffled; all are dealt before any comes again."""
    shuffled = tf.random.experimental.stateless_shuffle(cards, seed)
    return tf.gather(shuffled, tf.range(count) % tf.maximum(tf.size(cards), 1))
