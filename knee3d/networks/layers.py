"""Layers that fit raw pixels of any size to an encoder, and its output to the pixels.

All are made of operations that TensorFlow has for CPUs and GPUs, in graphs and under XLA, and that ONNX knows. They
want channels last.
"""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="knee3d")
class MiddleSlices(keras.initializers.Initializer):
    """A 1 x 1 kernel from an odd number of neighbours to three that passes the middle three on, or one three times."""

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
        """(1, 1, channels, 3) float32."""
        channels = shape[2]
        sources = [min(max(channels // 2 + offset, 0), channels - 1) for offset in (-1, 0, 1)]
        return tf.transpose(tf.one_hot(sources, channels, dtype=dtype or "float32"))[None, None]


@keras.saving.register_keras_serializable(package="knee3d")
class PadToStride(keras.layers.Layer):
    """Zeros behind the last pixels until height and width, and depth, are multiples of the network's stride."""

    def __init__(self, stride: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels) or with a depth, zeros being the mean of what an encoder knows."""
        # Not -size % stride: ONNX takes the sign of a remainder from the dividend.
        sizes = [tf.shape(inputs)[axis] for axis in range(1, inputs.shape.rank - 1)]
        missing = [(self.stride - size % self.stride) % self.stride for size in sizes]
        padded = tf.pad(inputs, [[0, 0], *([0, more] for more in missing), [0, 0]])
        return _of_channels(padded, inputs)

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"stride": self.stride}


@keras.saving.register_keras_serializable(package="knee3d")
class CropLike(keras.layers.Layer):
    """The inverse of `PadToStride`: the first tensor cut to the height and width, and depth, of the second."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """[(batch, >= height, >= width, classes), (batch, height, width, any)] -> (batch, height, width, classes)."""
        padded, like = inputs
        size = tf.shape(like)
        return padded[:, *(slice(size[axis]) for axis in range(1, padded.shape.rank - 1))]


@keras.saving.register_keras_serializable(package="knee3d")
class UpSample(keras.layers.Layer):
    """keras.layers.UpSampling2D made of operations that export with heights and widths unknown, and that others read.

    Keras' own, nearest, loses the number of channels on its way to LiteRT; bilinear, it does not export.

    Args:
        size: Factors of height and width.
        interpolation: "bilinear" or "nearest".
    """

    def __init__(self, size: tuple[int, int], interpolation: str = "bilinear", **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)
        self.interpolation = interpolation

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels) -> (batch, size[0] * height, size[1] * width, channels)."""
        batch, height, width = (tf.shape(inputs)[axis] for axis in range(3))
        rows, columns = self.size
        if self.interpolation == "bilinear":
            return _resized(inputs, height * rows, width * columns)
        channels = inputs.shape[-1]
        wide = tf.reshape(tf.concat([inputs] * columns, 3), (batch, height, width * columns, channels))
        return tf.reshape(tf.concat([wide] * rows, 2), (batch, height * rows, width * columns, channels))

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"size": self.size, "interpolation": self.interpolation}


@keras.saving.register_keras_serializable(package="knee3d")
class ResizeLike(keras.layers.Layer):
    """The first tensor resized bilinearly to the height and width of the second."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """[(batch, any, any, channels), (batch, height, width, any)] -> (batch, height, width, channels)."""
        small, like = inputs
        return _resized(small, tf.shape(like)[1], tf.shape(like)[2])


@keras.saving.register_keras_serializable(package="knee3d")
class PoolToGrid(keras.layers.Layer):
    """Means over cells of equal size: height and width become `cells`, of which they must be multiples."""

    def __init__(self, cells: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.cells = cells

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels) -> (batch, cells, cells, channels)."""
        height, width, channels = tf.shape(inputs)[1], tf.shape(inputs)[2], inputs.shape[-1]
        rows = tf.reshape(inputs, (-1, self.cells, height // self.cells, width, channels))
        columns = tf.reshape(tf.reduce_mean(rows, axis=2), (-1, self.cells, self.cells, width // self.cells, channels))
        return tf.reduce_mean(columns, axis=3)

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"cells": self.cells}


@keras.saving.register_keras_serializable(package="knee3d")
class PoolWithIndices(keras.layers.Layer):
    """Max pooling by 2 that remembers which of the four pixels was the largest, the first of equals.

    Not tf.nn.max_pool_with_argmax: XLA does not compile it.
    """

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(batch, 2 height, 2 width, channels) -> (batch, height, width, channels), and the same of 0 to 3, int32."""
        corners = [inputs[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        where = tf.argmax(tf.stack(corners), axis=0, output_type=tf.int32)
        return tf.nn.max_pool2d(inputs, 2, 2, "VALID"), where


@keras.saving.register_keras_serializable(package="knee3d")
class UnpoolWithIndices(keras.layers.Layer):
    """The way back from `PoolWithIndices`: each value returns to its pixel, the other three are zero."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """[(batch, height, width, channels), its indices] -> (batch, 2 height, 2 width, channels)."""
        values, where = inputs
        corners = [tf.where(where == corner, values, tf.zeros_like(values)) for corner in range(4)]
        return tf.nn.depth_to_space(tf.concat(corners, axis=-1), 2)


@keras.saving.register_keras_serializable(package="knee3d")
class Bilinear(keras.initializers.Initializer):
    """A kernel of a transposed convolution that interpolates each channel by itself (Long et al. 2015)."""

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
        """(size, size, channels, channels), the size twice the stride."""
        size, _, out, channels = shape
        ramp = 1 - tf.abs(tf.range(size, dtype=tf.float32) - (size - 1) / 2) / (size / 2)
        kernel = ramp[:, None, None, None] * ramp[None, :, None, None] * tf.eye(out, channels)
        return tf.cast(kernel, dtype or "float32")


def _resized(inputs: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The inputs resized bilinearly, in their own dtype, where TensorFlow returns float32."""
    resized = tf.image.resize(inputs, (height, width))
    return _of_channels(tf.cast(resized, inputs.dtype), inputs)


def _of_channels(tensor: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A tensor that has lost how many channels it has, which are those of another one.

    Not by tf.ensure_shape, an operation that not all converters know (LiteRT does not).
    """
    sizes = tf.shape(tensor)
    return tf.reshape(tensor, [*(sizes[axis] for axis in range(tensor.shape.rank - 1)), like.shape[-1]])
