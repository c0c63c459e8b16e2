"""Soft Dice: as a pure function, as a Keras loss, and hard Dice over an epoch as a Keras metric."""

import keras
import tensorflow as tf


def soft_dice_loss(truth: tf.Tensor, probabilities: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """One minus the mean over tissues of (2 sum(p t) + s) / (sum(p) + sum(t) + s), sums over the whole batch.

    The sums run over the batch and not over each slice, so that slices without cartilage do not count as failures.
    Background is left out: it is 98 % of a knee and would hide the rest. Milletari et al., V-Net, 2016 (there with
    squares in the denominator), summed over the batch as in Isensee et al., nnU-Net, 2021.

    Args:
        truth: (batch, height, width) integer classes, of any dtype.
        probabilities: (batch, height, width, classes) float32 in [0, 1].
        smooth: Voxels added above and below the line; a tissue absent from both sides then costs nothing, and one
            predicted where there is none costs more the more of it there is.

    Returns:
        Scalar float32 in [0, 1].
    """
    tissues = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(probabilities)[-1], dtype=probabilities.dtype)[..., 1:]
    found = probabilities[..., 1:]
    overlap = tf.reduce_sum(tissues * found, axis=(0, 1, 2))
    sizes = tf.reduce_sum(tissues + found, axis=(0, 1, 2))
    return 1 - tf.reduce_mean((2 * overlap + smooth) / (sizes + smooth))


@keras.saving.register_keras_serializable(package="knee3d")
class SoftDice(keras.losses.Loss):
    """`soft_dice_loss` for `compile` and `.keras` files."""

    def __init__(self, smooth: float = 1.0, name: str = "soft_dice", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.smooth = smooth

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Scalar loss of a batch."""
        return soft_dice_loss(y_true, y_pred, self.smooth)

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"smooth": self.smooth}


@keras.saving.register_keras_serializable(package="knee3d")
class PooledDice(keras.metrics.Metric):
    """Mean over tissues of the Dice of the argmax labels, counted over all batches of an epoch.

    Unlike a mean of batch scores it does not depend on the batch size. Tissues that neither truth nor prediction
    contains are left out; with none at all the result is 0.
    """

    def __init__(self, classes: int, name: str = "dice", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.classes = classes
        self.overlap = self.add_weight(shape=(classes - 1,), initializer="zeros", name="overlap")
        self.sizes = self.add_weight(shape=(classes - 1,), initializer="zeros", name="sizes")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: object = None) -> None:
        """Count a batch: (batch, height, width) classes against (batch, height, width, classes) probabilities."""
        truth = tf.one_hot(tf.cast(y_true, tf.int32), self.classes)[..., 1:]
        found = tf.one_hot(tf.argmax(y_pred, axis=-1), self.classes)[..., 1:]
        self.overlap.assign_add(tf.reduce_sum(truth * found, axis=(0, 1, 2)))
        self.sizes.assign_add(tf.reduce_sum(truth + found, axis=(0, 1, 2)))

    def result(self) -> tf.Tensor:
        """Scalar float32 in [0, 1]."""
        sizes = tf.convert_to_tensor(self.sizes)
        present = tf.cast(sizes > 0, tf.float32)
        scores = tf.math.divide_no_nan(2 * tf.convert_to_tensor(self.overlap), sizes)
        return tf.math.divide_no_nan(tf.reduce_sum(scores * present), tf.reduce_sum(present))

    def get_config(self) -> dict:
        """What is needed to build it again."""
        return super().get_config() | {"classes": self.classes}
