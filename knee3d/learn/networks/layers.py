"""Layers that make raw PNG pixels of any size fit an ImageNet encoder, and its answer fit the pixels."""

import keras
import tensorflow as tf

# Keras' VGG weights were trained on blue, green, red pixels of 0 to 255 minus these means.
IMAGENET_MEANS = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable(package="knee3d")
class ToEncoder(keras.layers.Layer):
    """Three grey channels of 0 to 255, a slice between its neighbours -> float32, minus an ImageNet VGG's means."""

    def call(self, slices: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, 3), of any dtype -> float32."""
        return tf.cast(slices, tf.float32) - tf.constant(IMAGENET_MEANS)


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
    """Zeros below and to the right until height and width are multiples of the network's stride."""

    def __init__(self, stride: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels), zeros being the mean after `ToEncoder`."""
        # Not -size % stride: ONNX takes the sign of a remainder from the dividend.
        height, width = tf.shape(inputs)[1], tf.shape(inputs)[2]
        down, right = ((self.stride - size % self.stride) % self.stride for size in (height, width))
        padded = tf.pad(inputs, [[0, 0], [0, down], [0, right], [0, 0]])
        # The number of channels is lost on the way. Not ensure_shape: LiteRT does not have it.
        return tf.reshape(padded, (-1, height + down, width + right, inputs.shape[-1]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Height and width are known at run time only."""
        return (input_shape[0], None, None, input_shape[-1])

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"stride": self.stride}


@keras.saving.register_keras_serializable(package="knee3d")
class CropLike(keras.layers.Layer):
    """The inverse of `PadToStride`: the first tensor cut to the height and width of the second."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """[(batch, >= height, >= width, classes), (batch, height, width, any)] -> (batch, height, width, classes)."""
        padded, like = inputs
        return padded[:, : tf.shape(like)[1], : tf.shape(like)[2]]

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Height and width of the second, channels of the first."""
        padded, like = input_shape
        return (padded[0], like[1], like[2], padded[-1])


@keras.saving.register_keras_serializable(package="knee3d")
class UpSampleNearest(keras.layers.Layer):
    """What keras.layers.UpSampling2D does by default, as one operation."""

    def __init__(self, size: tuple[int, int], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels) -> (batch, size[0] * height, size[1] * width, channels)."""
        height, width = tf.shape(inputs)[1], tf.shape(inputs)[2]
        return tf.image.resize(inputs, (height * self.size[0], width * self.size[1]), method="nearest")

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Height and width are known at run time only."""
        return (input_shape[0], None, None, input_shape[-1])

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"size": self.size}
