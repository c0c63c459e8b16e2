"""Random changes of an (image, mask) pair: the same geometry for both, linear for the image, nearest for the mask.

Every op is stateless: the same seed gives the same epoch. There is no left-right flip: labels name sides.
"""

import math

import tensorflow as tf

ROTATION_DEG = 10.0
SCALE = 0.1
SHIFT = 0.05
CONTRAST = 0.15
BRIGHTNESS = 20.0
GAMMA = 0.2


def augment_batch(batches: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Augment every pair of every batch, anew in each epoch.

    Args:
        batches: Of ((batch, height, width, channels) uint8, (batch, height, width) uint8).
        seed: Same seed, same pictures in the same epoch.
    """
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip(batches, seeds)
    augmented = pairs.map(lambda pair, number: augment(*pair, number), num_parallel_calls=tf.data.AUTOTUNE)
    known = augmented.apply(tf.data.experimental.assert_cardinality(batches.cardinality()))
    return known.prefetch(tf.data.AUTOTUNE)


def augment(images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Turn, scale, shift and change the contrast of each pair.

    Args:
        images: (batch, height, width, channels) uint8; the channels of a pair are changed alike.
        masks: (batch, height, width) uint8.
        seed: (2,) int64.

    Returns:
        The same shapes and dtypes. What comes in from outside the slice is 0: black, background.
    """
    seeds = tf.unstack(tf.random.split(seed, 2))
    transforms = _transforms(tf.shape(images), seeds[0])
    moved = _warp(tf.cast(images, tf.float32), transforms, "BILINEAR")
    labels = _warp(masks[..., None], transforms, "NEAREST")[..., 0]
    return tf.cast(tf.round(_contrast(moved, seeds[1])), tf.uint8), labels


def _transforms(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """(batch, 8) float32 projective transforms, output to input pixels, about the middle of the slice."""
    height, width = (tf.cast(shape[axis] - 1, tf.float32) for axis in (1, 2))
    angle, zoom, down, right = tf.unstack(tf.random.stateless_uniform((4, shape[0]), seed, -1.0, 1.0))
    angle = angle * math.radians(ROTATION_DEG)
    cos, sin = tf.cos(angle) * (1 + SCALE * zoom), tf.sin(angle) * (1 + SCALE * zoom)
    x = width / 2 * (1 - cos) + height / 2 * sin + SHIFT * right * width
    y = height / 2 * (1 - cos) - width / 2 * sin + SHIFT * down * height
    nothing = tf.zeros_like(x)
    return tf.stack([cos, -sin, x, sin, cos, y, nothing, nothing], axis=1)


def _warp(images: tf.Tensor, transforms: tf.Tensor, interpolation: str) -> tf.Tensor:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )


def _contrast(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Gamma, contrast and brightness of each pair; float32 0 to 255 in and out."""
    gamma, gain, offset = tf.unstack(tf.random.stateless_uniform((3, tf.shape(images)[0], 1, 1, 1), seed, -1.0, 1.0))
    curved = 255 * tf.pow(images / 255, tf.exp(GAMMA * gamma))
    return tf.clip_by_value(curved * (1 + CONTRAST * gain) + BRIGHTNESS * offset, 0.0, 255.0)
