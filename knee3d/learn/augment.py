"""Random changes of (image, mask) pairs: one geometry for both, linear for the image, nearest for the mask.

Every op is stateless, in the graph, and vectorised over the batch: the same seed gives the same pictures. There is no
left-right flip: labels name sides. The set is nnU-Net's (Isensee et al. 2021), without its mirroring, and with the
slowly varying brightness of a surface coil.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

ELASTIC_GRID = 6
BIAS_GRID = 4
BLUR_TAPS = 3


@dataclass(frozen=True)
class Strength:
    """The most that each change does; what is drawn lies evenly below it, on either side where there are two.

    Attributes:
        rotation_deg: Degrees.
        scale: Zoom, as a share.
        shift: Share of height and width.
        elastic: Standard deviation of the displacement of a coarse grid's nodes, as a share of the height.
        gamma: Logarithm of the exponent.
        contrast: Share of the pixel value.
        brightness: Grey levels.
        bias: Logarithm of a smooth factor, as standard deviation at the nodes of a coarse grid.
        noise: Standard deviation of Gaussian noise in grey levels.
        blur: Standard deviation of a Gaussian in pixels.
        coarse: Factor by which resolution is lowered and raised again, above 1.
        often: Share of the slices that get noise, and of those that get blur; of batches that get lower resolution.
    """

    rotation_deg: float
    scale: float
    shift: float
    elastic: float
    gamma: float
    contrast: float
    brightness: float
    bias: float
    noise: float
    blur: float
    coarse: float
    often: float


STRENGTHS: Mapping[str, Strength | None] = {
    "none": None,
    "light": Strength(5, 0.05, 0.03, 0.0, 0.1, 0.1, 10, 0.0, 4, 0.0, 1.0, 0.15),
    "medium": Strength(10, 0.1, 0.05, 0.008, 0.2, 0.15, 20, 0.15, 8, 1.0, 1.5, 0.2),
    "strong": Strength(20, 0.2, 0.1, 0.015, 0.35, 0.3, 30, 0.3, 15, 1.5, 2.0, 0.3),
}
"""Presets of `--augment`."""


def augment(images: tf.Tensor, masks: tf.Tensor, seed: tf.Tensor, strength: Strength) -> tuple[tf.Tensor, tf.Tensor]:
    """Change each pair of a batch: geometry, then intensities.

    Args:
        images: (batch, height, width, channels) uint8; the channels of a pair are changed alike, but for their noise.
        masks: (batch, height, width) uint8, or with channels as the images have, for patches of a volume.
        seed: (2,) integers.
        strength: How much.

    Returns:
        The same shapes and dtypes. What comes in from outside the slice is 0: black, background.
    """
    geometry, intensity = tf.unstack(tf.random.split(seed, 2))
    rows, columns = _sources(tf.shape(images), geometry, strength)
    moved = _linear(tf.cast(images, tf.float32), rows, columns)
    labels = _nearest(masks, rows, columns)
    return tf.saturate_cast(tf.round(_intensities(moved, intensity, strength)), tf.uint8), labels


def _sources(shape: tf.Tensor, seed: tf.Tensor, strength: Strength) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each pixel comes from: (batch, height, width) float32 rows and columns, turned about the middle."""
    seeds = tf.unstack(tf.random.split(seed, 2))
    batch, height, width = shape[0], tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
    drawn = tf.random.stateless_uniform((4, batch, 1, 1), seeds[0], -1.0, 1.0)
    angle, zoom = drawn[0] * math.radians(strength.rotation_deg), 1 + strength.scale * drawn[1]
    middle = (height - 1) / 2, (width - 1) / 2
    y = tf.range(height)[None, :, None] - middle[0]
    x = tf.range(width)[None, None, :] - middle[1]
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    rows = cos * y + sin * x + middle[0] + strength.shift * height * drawn[2]
    columns = cos * x - sin * y + middle[1] + strength.shift * width * drawn[3]
    if strength.elastic:
        nodes = tf.random.stateless_normal((batch, ELASTIC_GRID, ELASTIC_GRID, 2), seeds[1])
        bend = tf.image.resize(nodes * strength.elastic * height, shape[1:3], "bicubic")
        rows, columns = rows + bend[..., 0], columns + bend[..., 1]
    return rows, columns


def _linear(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """(batch, height, width, channels) float32, sampled between pixels."""
    above, left = tf.floor(rows), tf.floor(columns)
    down, right = (rows - above)[..., None], (columns - left)[..., None]
    top = _pixels(images, above, left) * (1 - right) + _pixels(images, above, left + 1) * right
    bottom = _pixels(images, above + 1, left) * (1 - right) + _pixels(images, above + 1, left + 1) * right
    return top * (1 - down) + bottom * down


def _nearest(masks: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The class of the nearest pixel, of each channel if there are several."""
    if masks.shape.rank == 4:
        return _pixels(masks, tf.round(rows), tf.round(columns))
    return _pixels(masks[..., None], tf.round(rows), tf.round(columns))[..., 0]


def _pixels(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Pixels at whole coordinates; 0 outside."""
    shape = tf.shape(images)
    row, column = tf.cast(rows, tf.int32), tf.cast(columns, tf.int32)
    inside = (row >= 0) & (row < shape[1]) & (column >= 0) & (column < shape[2])
    flat = tf.reshape(images, (shape[0], shape[1] * shape[2], images.shape[-1]))
    found = tf.gather(flat, tf.where(inside, row * shape[2] + column, 0), batch_dims=1)
    return tf.where(inside[..., None], found, tf.zeros((), images.dtype))


def _intensities(images: tf.Tensor, seed: tf.Tensor, strength: Strength) -> tf.Tensor:
    """Bias field, gamma, contrast, brightness, blur, resolution, noise; float32 0 to 255 in and out."""
    seeds = tf.unstack(tf.random.split(seed, 5))
    batch = tf.shape(images)[0]
    gamma, gain, offset = tf.unstack(tf.random.stateless_uniform((3, batch, 1, 1, 1), seeds[0], -1.0, 1.0))
    if strength.bias:
        nodes = tf.random.stateless_normal((batch, BIAS_GRID, BIAS_GRID, 1), seeds[1])
        images = images * tf.exp(tf.image.resize(nodes * strength.bias, tf.shape(images)[1:3], "bicubic"))
    images = 255 * tf.pow(tf.clip_by_value(images / 255, 0.0, 1.0), tf.exp(strength.gamma * gamma))
    images = images * (1 + strength.contrast * gain) + strength.brightness * offset
    sometimes = tf.random.stateless_uniform((3, batch, 1, 1, 1), seeds[2])
    amounts = tf.where(sometimes < strength.often, sometimes / max(strength.often, 1e-6), 0.0)
    if strength.blur:
        images = _blurred(images, strength.blur * amounts[0])
    if strength.coarse > 1:
        factor = 1 + (strength.coarse - 1) * amounts[1, 0, 0, 0, 0]
        images = tf.cond(factor > 1, lambda: _coarser(images, factor), lambda: images)
    noise = tf.random.stateless_normal(tf.shape(images), seeds[3])
    return tf.clip_by_value(images + strength.noise * amounts[2] * noise, 0.0, 255.0)


def _blurred(images: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Each slice under its own Gaussian of (batch, 1, 1, 1) pixels, as sums of shifted copies; 0 leaves it alone."""
    variance = tf.maximum(sigma, 1e-3) ** 2
    taps = [tf.exp(-(offset**2) / (2 * variance)) for offset in range(BLUR_TAPS + 1)]
    total = taps[0] + 2 * tf.add_n(taps[1:])
    for axis in (1, 2):
        padding = [[BLUR_TAPS, BLUR_TAPS] if one == axis else [0, 0] for one in range(4)]
        padded = tf.pad(images, padding, "SYMMETRIC")
        size = tf.shape(images)[axis]
        shifted = [tf.gather(padded, tf.range(size) + offset, axis=axis) for offset in range(2 * BLUR_TAPS + 1)]
        images = tf.add_n([part * taps[abs(offset - BLUR_TAPS)] for offset, part in enumerate(shifted)]) / total
    return images


def _coarser(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    size = tf.shape(images)[1:3]
    small = tf.cast(tf.maximum(tf.cast(size, tf.float32) / factor, 1.0), tf.int32)
    return tf.image.resize(tf.image.resize(images, small, "area"), size, "bilinear")
