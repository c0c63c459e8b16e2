"""Random changes of (image, mask) pairs: one geometry for both, linear for the image, nearest for the mask.

`Augmentation` is a Keras layer for anyone's data or model; it draws its random numbers itself. In knee3d's own training
they are drawn where batches are made (`draw_augmentations`), a row of numbers for each slice, so that they do not
depend on which device changes the slice (`DrawnAugmentation`). Both call `augment`, a function of these numbers.

There is no left-right flip: labels name sides. The set of changes is nnU-Net's (Isensee et al. 2021), without its
mirroring, and with the slowly varying brightness of a surface coil.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

ELASTIC_GRID = 6
BIAS_GRID = 4
BLUR_TAPS = 3
EVEN, SHARES = 7, 3
"""Numbers drawn evenly from -1 to 1, and from 0 to 1, for each slice."""
NODES = 2 * ELASTIC_GRID**2 + BIAS_GRID**2
"""Numbers drawn from a normal distribution for each slice."""
DRAWN = EVEN + SHARES + NODES + 1
SEEDS = 1 << 23
"""The last number drawn for a slice, the seed of its noise, is whole and below this: float32 holds it."""
KEYS_A = -0.5
"""Of the cubic by which grids become smooth fields (Keys, 1981)."""


@dataclass(frozen=True)
class AugmentationStrength:
    """The largest amount of each change.

    What is drawn for a slice is spread evenly between 0 and this amount, on both sides of 0 where there are two; for
    `elastic` and `bias` it is normally distributed. An amount of 0 switches its change off.

    Attributes:
        rotation_deg: Rotation in degrees, in millimetres: pixels need not be square.
        scale: Zoom, as a share of the size.
        shift: Shift, as a share of height and width.
        elastic: Standard deviation of the displacement of the nodes of a coarse grid, as a share of the height in mm.
        gamma: Natural logarithm of the exponent of pixel values in [0, 1].
        contrast: Change of pixel values, as a share of them.
        brightness: Grey levels, out of 255, that are added.
        bias: Natural logarithm of a smooth factor, as standard deviation at the nodes of a coarse grid.
        noise: Standard deviation of Gaussian noise in grey levels.
        blur: Standard deviation of a Gaussian filter in pixels.
        coarse: Factor by which the resolution within a slice is lowered and raised again, of each axis by itself, as
            nnU-Net does it; 1 or less switches it off.
        often: Share of the slices, in [0, 1], that get noise, of those that get blur, of those that get lower
            resolution, and of those that become thicker.
        thick: Factor by which slices become thicker: each channel becomes the mean over as many neighbours, as in a
            scan of thicker slices. 1 or less switches it off; one channel has no neighbours.

    Example:
        >>> light = STRENGTHS["light"]
        >>> augment = Augmentation(dataclasses.replace(light, rotation_deg=3))  # doctest: +SKIP
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
    thick: float = 1.0


STRENGTHS: Mapping[str, AugmentationStrength | None] = {
    "none": None,
    "light": AugmentationStrength(5, 0.05, 0.03, 0.0, 0.1, 0.1, 10, 0.0, 4, 0.0, 1.0, 0.15),
    "medium": AugmentationStrength(10, 0.1, 0.05, 0.008, 0.2, 0.15, 20, 0.15, 8, 1.0, 1.5, 0.2, 1.5),
    "strong": AugmentationStrength(20, 0.2, 0.1, 0.015, 0.35, 0.3, 30, 0.3, 15, 1.5, 2.0, 0.3, 2.0),
}
"""Presets of `Augmentation` and of `--augment`."""


def draw_augmentations(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Numbers for the changes of some slices: (count, DRAWN) float32; a function of the seed, (2,) integers."""
    seeds = tf.unstack(tf.random.split(seed, 4))
    return tf.concat(
        [
            tf.random.stateless_uniform((count, EVEN), seeds[0], -1.0, 1.0),
            tf.random.stateless_uniform((count, SHARES), seeds[1]),
            tf.random.stateless_normal((count, NODES), seeds[2]),
            tf.cast(tf.random.stateless_uniform((count, 1), seeds[3], maxval=SEEDS, dtype=tf.int32), tf.float32),
        ],
        axis=1,
    )


@keras.saving.register_keras_serializable(package="knee3d")
class Augmentation(keras.layers.Layer):
    """Random changes of (image, mask) pairs: one geometry for both, and other intensities for the image.

    Call it with images and masks, `images, masks = augment(images, masks)`. Each pair gets changes of its own. It works
    eagerly, in a model, and in `tf.data.Dataset.map`, before or after batching; batched it is faster. It changes pairs
    unless it is called with `training=False`, or within a model that is.

    Args:
        strength: How much: a key of `STRENGTHS`, "none", "light", "medium" or "strong", or an `AugmentationStrength` of
            your own. "medium" is the default of knee3d's own training.
        aspect: How many times as wide as high a pixel is, above 0. The default 1 means square pixels. Rotations turn
            millimetres, and need it.
        seed: An integer that fixes the random numbers; None draws one.
        **kwargs: `name` and others that every Keras layer takes.

    Raises:
        ValueError: There is no such strength, or the aspect is not above 0.

    Example:
        >>> augment = Augmentation("light", seed=1)
        >>> images, masks = augment(np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32), np.uint8))
        >>> images.shape, masks.shape
        (TensorShape([2, 32, 32, 3]), TensorShape([2, 32, 32]))
        >>> slices = slices.map(augment)  # doctest: +SKIP
    """

    def __init__(
        self,
        strength: str | AugmentationStrength = "medium",
        *,
        aspect: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**({"trainable": False, "autocast": False} | kwargs))
        if isinstance(strength, str) and strength not in STRENGTHS:
            raise ValueError(f"unknown strength {strength!r}; there are: {', '.join(STRENGTHS)}")
        if not 0 < aspect < math.inf:
            raise ValueError(f"aspect must be above 0, got {aspect}")
        self.strength, self.aspect, self.seed = strength, float(aspect), seed
        self.supports_jit = False  # how many slices are blurred is not known beforehand
        with keras.device("cpu:0"):  # tf.data, which computes on the CPU, may not read it elsewhere
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, masks: tf.Tensor, training: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
        """Change each pair of a batch, or one pair.

        Args:
            images: uint8 slices, (batch, height, width, channels), or patches, (batch, inferior, posterior, left); the
                channels of a slice, and the planes of a patch, are changed alike, but for their noise. One slice or
                patch comes without the first axis.
            masks: Integer classes, (batch, height, width), or with a last axis of length 1, or of patches as the images
                are.
            training: Whether to change anything; True changes each pair.

        Returns:
            Images and masks of the same shapes and dtypes. What comes in from outside the slice is 0: black, and
            background.

        Raises:
            ValueError: The images are not uint8, or have another number of axes.
        """
        if images.dtype not in ("uint8", tf.uint8) or len(images.shape) not in (3, 4):
            raise ValueError(
                f"images are uint8 with 3 or 4 axes, got {images.dtype} of shape {tuple(images.shape)}; see "
                "`Augmentation.call`"
            )
        strength = STRENGTHS[self.strength] if isinstance(self.strength, str) else self.strength
        if strength is None or not training:
            return images, masks
        if len(images.shape) == 3:
            images, masks = self._changed(images[None], masks[None], strength)
            return images[0], masks[0]
        return self._changed(images, masks, strength)

    def _changed(
        self, images: tf.Tensor, masks: tf.Tensor, strength: AugmentationStrength
    ) -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.shape(images)
        frame = tf.stack([tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32), self.aspect])
        drawn = draw_augmentations(self.seed_generator.next(), shape[0])
        return augment(images, masks, tf.repeat(frame[None], shape[0], axis=0), drawn, strength)

    def compute_output_shape(self, images_shape: tuple, masks_shape: tuple) -> tuple[tuple, tuple]:
        """The shapes that come in."""
        return images_shape, masks_shape

    def get_config(self) -> dict[str, Any]:
        """What is needed to build the layer again."""
        strength = self.strength if isinstance(self.strength, str) else asdict(self.strength)
        return super().get_config() | {"strength": strength, "aspect": self.aspect, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Augmentation":
        """Build the layer from what `get_config` gave."""
        strength = config["strength"]
        strength = AugmentationStrength(**strength) if isinstance(strength, dict) else strength
        return cls(**(config | {"strength": strength}))


class DrawnAugmentation(keras.layers.Layer):
    """Changes batches by numbers that were drawn before, on the device that trains with them; see `augment`.

    Args:
        strength: How much.
        frames: (stacks, 3) numbers of each stack, see `augment`.
    """

    def __init__(self, strength: AugmentationStrength, frames: Sequence[Sequence[float]]) -> None:
        super().__init__(name="augmentation", trainable=False)
        self._strength, self._frames = strength, np.array(frames, np.float32)

    def call(
        self, images: tf.Tensor, masks: tf.Tensor, stacks: tf.Tensor, drawn: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images and masks of the numbers of their stacks, with what was drawn for each."""
        return augment(images, masks, tf.gather(self._frames, stacks), drawn, self._strength)


def augment(
    images: tf.Tensor, masks: tf.Tensor, frames: tf.Tensor, drawn: tf.Tensor, strength: AugmentationStrength
) -> tuple[tf.Tensor, tf.Tensor]:
    """Change each pair of a batch: geometry, then intensities.

    Args:
        images: (batch, height, width, channels) uint8; the channels of a pair are changed alike, but for their noise.
        masks: (batch, height, width) uint8, or with channels as the images have, for patches of a volume.
        frames: (batch, 3) float32: height and width of each slice in pixels, which may be less than those of the batch,
            and how many times as wide as high its pixels are.
        drawn: From `draw_augmentations`.
        strength: How much.

    Returns:
        The same shapes and dtypes. What comes in from outside the slice is 0: black, background.
    """
    rows, columns = _sources(tf.shape(images), frames, drawn, strength)
    height, width, _ = _each(frames)
    inside = (rows > -0.5) & (rows < height - 0.5) & (columns > -0.5) & (columns < width - 0.5)
    moved = _linear(tf.cast(images, tf.float32), rows, columns)
    labels = tf.where(inside[..., None] if masks.shape.rank == 4 else inside, _nearest(masks, rows, columns), 0)
    changed = tf.where(inside[..., None], _intensities(moved, drawn[:, :, None, None, None], strength), 0.0)
    return tf.saturate_cast(tf.round(changed), tf.uint8), tf.cast(labels, masks.dtype)


def _each(frames: tf.Tensor) -> list[tf.Tensor]:
    """Height, width and aspect, each (batch, 1, 1)."""
    return tf.unstack(frames[:, :, None, None], axis=1)


def _sources(
    shape: tf.Tensor, frames: tf.Tensor, drawn: tf.Tensor, strength: AugmentationStrength
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each pixel comes from: (batch, height, width) float32 rows and columns, turned about the slice's middle."""
    even = drawn[:, :EVEN, None, None]
    height, width, aspect = _each(frames)
    angle, zoom = even[:, 0] * math.radians(strength.rotation_deg), 1 + strength.scale * even[:, 1]
    middle = (height - 1) / 2, (width - 1) / 2
    y = tf.range(tf.cast(shape[1], tf.float32))[None, :, None] - middle[0]
    x = (tf.range(tf.cast(shape[2], tf.float32))[None, None, :] - middle[1]) * aspect  # in heights of a pixel
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    rows = cos * y + sin * x + middle[0] + strength.shift * height * even[:, 2]
    columns = (cos * x - sin * y) / aspect + middle[1] + strength.shift * width * even[:, 3]
    if strength.elastic:
        nodes = drawn[:, EVEN + SHARES : EVEN + SHARES + 2 * ELASTIC_GRID**2]
        nodes = tf.reshape(nodes, (-1, ELASTIC_GRID, ELASTIC_GRID, 2))
        bend = _smooth(nodes, shape) * (strength.elastic * height)[..., None]
        rows, columns = rows + bend[..., 0], columns + bend[..., 1] / aspect
    return rows, columns


def _smooth(nodes: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """(batch, height, width, channels) between the nodes of a coarse grid, (batch, n, n, channels), by cubics."""
    count = nodes.shape[1]

    def weights(size: tf.Tensor) -> tf.Tensor:
        place = (tf.range(tf.cast(size, tf.float32)) + 0.5) * (count / tf.cast(size, tf.float32)) - 0.5
        around = tf.floor(place)[:, None] + tf.range(-1.0, 3.0)
        away = tf.abs(place[:, None] - around)
        near = ((KEYS_A + 2) * away - (KEYS_A + 3)) * away**2 + 1
        far = KEYS_A * (((away - 5) * away + 8) * away - 4)
        nearest = tf.cast(tf.clip_by_value(around, 0.0, count - 1.0), tf.int32)  # edges are repeated
        return tf.reduce_sum(tf.one_hot(nearest, count) * tf.where(away <= 1, near, far)[..., None], axis=1)

    return tf.einsum("yi,bijc,xj->byxc", weights(shape[1]), nodes, weights(shape[2]))


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


def _intensities(images: tf.Tensor, drawn: tf.Tensor, strength: AugmentationStrength) -> tf.Tensor:
    """Bias field, gamma, contrast, brightness, blur, resolution, noise; float32 0 to 255 in and out."""
    gamma, gain, offset = drawn[:, 4], drawn[:, 5], drawn[:, 6]
    if strength.bias:
        nodes = tf.reshape(drawn[:, EVEN + SHARES + 2 * ELASTIC_GRID**2 : -1], (-1, BIAS_GRID, BIAS_GRID, 1))
        images = images * tf.exp(_smooth(nodes * strength.bias, tf.shape(images)))
    images = 255 * tf.pow(tf.clip_by_value(images / 255, 0.0, 1.0), tf.exp(strength.gamma * gamma))
    images = images * (1 + strength.contrast * gain) + strength.brightness * offset
    sometimes = drawn[:, EVEN : EVEN + SHARES, 0, 0, 0]
    amounts = tf.where(sometimes < strength.often, sometimes / max(strength.often, 1e-6), 0.0)
    if strength.blur:
        images = _of_some(images, strength.blur * amounts[:, 0], _blurred)
    seeds = tf.cast(drawn[:, -1, 0, 0, 0], tf.int32)
    more = _uniform(seeds, 4)
    if strength.coarse > 1:
        lower = (strength.coarse - 1) * amounts[:, 1, None] * more[:, :2]
        images = _of_some(images, lower, _coarser)
    if strength.thick > 1 and images.shape[-1] != 1:
        amount = tf.where(more[:, 2] < strength.often, more[:, 3], 0.0)
        images = _of_some(images, (strength.thick - 1) * amount[:, None], _thicker)
    if strength.noise:
        sigmas = strength.noise * amounts[:, 2]
        noisy = tf.boolean_mask(seeds, sigmas > 0)
        images = _of_some(images, sigmas, lambda some, sigma: _noisy(some, sigma, noisy))
    return tf.clip_by_value(images, 0.0, 255.0)


def _of_some(images: tf.Tensor, amounts: tf.Tensor, change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Change the slices one of whose amounts, (batch,) or (batch, n), is above 0; the others cost nothing."""
    chosen = tf.where(amounts > 0 if amounts.shape.rank == 1 else tf.reduce_any(amounts > 0, axis=1))

    def changed() -> tf.Tensor:
        some = tf.gather(images, chosen[:, 0])
        return tf.tensor_scatter_nd_update(images, chosen, change(some, tf.gather(amounts, chosen[:, 0])))

    return tf.cond(tf.size(chosen) > 0, changed, lambda: images)


def _noisy(images: tf.Tensor, sigma: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Each slice with Gaussian noise of its own seed."""
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_normal(tf.shape(images)[1:], tf.stack([seed, 0])),
        seeds,
        fn_output_signature=tf.float32,
    )
    return images + sigma[:, None, None, None] * noise


def _blurred(images: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Each slice under its own Gaussian of so many pixels, (batch,), as sums of shifted copies."""
    variance = tf.maximum(sigma[:, None, None, None], 1e-3) ** 2
    taps = [tf.exp(-(offset**2) / (2 * variance)) for offset in range(BLUR_TAPS + 1)]
    total = taps[0] + 2 * tf.add_n(taps[1:])
    for axis in (1, 2):
        padding = [[BLUR_TAPS, BLUR_TAPS] if one == axis else [0, 0] for one in range(4)]
        padded = tf.pad(images, padding, "SYMMETRIC")
        size = tf.shape(images)[axis]
        shifted = [tf.gather(padded, tf.range(size) + offset, axis=axis) for offset in range(2 * BLUR_TAPS + 1)]
        images = tf.add_n([part * taps[abs(offset - BLUR_TAPS)] for offset, part in enumerate(shifted)]) / total
    return images


def _uniform(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """(batch, count) numbers from 0 to 1: a function of the seed of each slice."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform((count,), tf.stack([seed, 1])), seeds, fn_output_signature=tf.float32
    )


def _coarser(images: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
    """Each slice at a resolution that is 1 + `lower` times less: means over larger pixels, and back.

    Args:
        images: (batch, height, width, channels).
        lower: (batch, 2), for height and width.
    """
    shape = tf.shape(images)

    def one(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, rows, columns = pair[0], 1 + pair[1][0], 1 + pair[1][1]
        return tf.einsum("yi,ijc,xj->yxc", _there_and_back(shape[1], rows), image, _there_and_back(shape[2], columns))

    return tf.map_fn(one, (images, lower), fn_output_signature=tf.float32)


def _there_and_back(size: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """(size, size): means over pixels that are `factor` times as large, and linearly between their middles again."""
    full = tf.cast(size, tf.float32)
    count = tf.maximum(tf.floor(full / factor), 1.0)
    large, pixel = tf.range(count), tf.range(full)
    begin, end = large[:, None] * full / count, (large[:, None] + 1) * full / count
    shared = tf.maximum(tf.minimum(end, pixel + 1) - tf.maximum(begin, pixel), 0.0) * count / full
    place = tf.clip_by_value((pixel + 0.5) * count / full - 0.5, 0.0, count - 1)
    between = tf.maximum(1 - tf.abs(place[:, None] - large[None, :]), 0.0)
    return between @ shared


def _thicker(images: tf.Tensor, more: tf.Tensor) -> tf.Tensor:
    """Each slice with its channels as if slices were 1 + `more` times as thick: means over a box of so many channels.

    Args:
        images: (batch, height, width, channels); beyond the outermost channel it is repeated.
        more: (batch, 1).
    """
    channels = images.shape[-1]
    half = (1 + more[:, :, None]) / 2  # (batch, 1, 1)
    centre, place = tf.range(channels, dtype=tf.float32)[:, None], tf.range(-channels, 2 * channels, dtype=tf.float32)
    shared = tf.minimum(place + 0.5, centre + half) - tf.maximum(place - 0.5, centre - half)
    weights = tf.maximum(shared, 0.0) / (2 * half)  # (batch, channels, places), those beyond the ends too
    inside = tf.one_hot(tf.clip_by_value(tf.cast(place, tf.int32), 0, channels - 1), channels)
    return tf.einsum("byxc,bkp,pc->byxk", images, weights, inside)
