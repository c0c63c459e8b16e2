"""Metrics of segmentations: `keras.metrics.Metric` classes for anyone's `model.compile(metrics=[...])`.

They take integer masks and probabilities, and count the voxels of the most probable labels since the last reset. Dice
is then computed of these counts, not averaged over batches. For the mean intersection over union, Keras has a metric:
`keras.metrics.MeanIoU(num_classes, sparse_y_true=True, sparse_y_pred=False)`.

Example:
    >>> model.compile("adam", loss=knee3d.losses.SoftDice(), metrics=[knee3d.metrics.Dice(4)])  # doctest: +SKIP
"""

from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import tensorflow as tf

from knee3d.losses import integer_masks

__all__ = ["Dice", "ForegroundDice", "mean_dice"]


class _OverlapMetric(keras.metrics.Metric):
    """Counts of voxels on which truth and prediction agree (twice), and of the voxels of both, for each class."""

    def __init__(self, counted: int, name: str, dtype: str) -> None:
        super().__init__(name=name, dtype=dtype)
        self._both = self.add_variable((counted,), "zeros", dtype=dtype, name="both")
        self._sizes = self.add_variable((counted,), "zeros", dtype=dtype, name="sizes")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Count the voxels of a batch.

        Args:
            y_true: Integer classes of any dtype, (batch, height, width), (batch, height, width, 1), or with more axes
                for patches.
            y_pred: Probabilities or scores, (batch, height, width, classes), or with as many more axes.
            sample_weight: How many times each voxel counts, of a shape that broadcasts to that of the masks once axes
                of length 1 are added behind, such as (batch,); None counts each once.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        masks = integer_masks(y_true, y_pred)
        truth, found = self._channels(tf.cast(masks, tf.int32), y_pred)
        both, sizes = 2 * truth * found, truth + found
        axes = masks.shape.rank
        if sample_weight is not None:
            weights = tf.cast(sample_weight, tf.float32)
            if weights.shape.rank == axes + 1 and weights.shape[-1] == 1:
                weights = tf.squeeze(weights, axis=-1)
            weights = tf.reshape(weights, tf.concat([tf.shape(weights), [1] * (axes + 1 - weights.shape.rank)], 0))
            both, sizes = both * weights, sizes * weights
        voxels = list(range(axes))
        self._both.assign_add(tf.cast(tf.reduce_sum(both, axis=voxels), self._both.dtype))
        self._sizes.assign_add(tf.cast(tf.reduce_sum(sizes, axis=voxels), self._sizes.dtype))

    def result(self) -> tf.Tensor:
        """Dice since the last reset, averaged over classes; 0 where there is nothing at all."""
        return mean_dice(tf.convert_to_tensor(self._both), tf.convert_to_tensor(self._sizes))

    def _channels(self, masks: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Truth and prediction as float32 of 0 and 1, (batch, ..., counted)."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="knee3d")
class Dice(_OverlapMetric):
    """Mean over tissues of the Dice similarity coefficient of the most probable labels.

    A tissue that neither the masks nor the predictions contain is left out of the mean.

    Source: Dice 1945.

    Args:
        classes: Number of classes, background included.
        background: Whether class 0 counts as a tissue; False leaves it out.
        name: Name of the metric in Keras' logs.
        dtype: Dtype in which voxels are counted; float64 counts up to 9e15 of them exactly, float32 16 million.

    Raises:
        ValueError: No class is left to count.

    Example:
        >>> import numpy as np
        >>> metric = Dice(classes=3)
        >>> metric.update_state(np.array([[[0, 1, 2, 2]]]), np.eye(3, dtype="float32")[[[[0, 1, 2, 0]]]])
        >>> round(float(metric.result()), 3)
        0.833
    """

    def __init__(self, classes: int = 4, background: bool = False, name: str = "dice", dtype: str = "float64") -> None:
        if classes < (1 if background else 2):
            raise ValueError(f"classes must be at least {1 if background else 2}, got {classes}")
        super().__init__(classes if background else classes - 1, name, dtype)
        self.classes, self.background = classes, bool(background)

    def get_config(self) -> dict[str, Any]:
        """What is needed to build the metric again."""
        return super().get_config() | {"classes": self.classes, "background": self.background}

    def _channels(self, masks: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if scores.shape[-1] != self.classes:
            raise ValueError(f"{self.name} counts {self.classes} classes; y_pred has {scores.shape[-1]}")
        first = 0 if self.background else 1
        truth = tf.one_hot(masks, self.classes)[..., first:]
        return truth, tf.one_hot(tf.argmax(scores, axis=-1), self.classes)[..., first:]


@keras.saving.register_keras_serializable(package="knee3d")
class ForegroundDice(_OverlapMetric):
    """Dice similarity coefficient of all tissues as one: class 0 against all others, by the most probable labels.

    A voxel of one tissue that is predicted as another tissue counts as found.

    Args:
        name: Name of the metric in Keras' logs.
        dtype: Dtype in which voxels are counted; float64 counts up to 9e15 of them exactly, float32 16 million.

    Example:
        >>> import numpy as np
        >>> metric = ForegroundDice()
        >>> metric.update_state(np.array([[[0, 1, 2, 2]]]), np.eye(3, dtype="float32")[[[[0, 2, 1, 0]]]])
        >>> round(float(metric.result()), 3)
        0.8
    """

    def __init__(self, name: str = "foreground_dice", dtype: str = "float64") -> None:
        super().__init__(1, name, dtype)

    def _channels(self, masks: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        truth, found = tf.cast(masks > 0, tf.float32), tf.cast(tf.argmax(scores, axis=-1) > 0, tf.float32)
        return truth[..., None], found[..., None]


def mean_dice(both: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Compute the mean of Dice over the classes that occur.

    Args:
        both: (classes,) float, for each class twice the voxels on which truth and prediction agree.
        sizes: (classes,) float, for each class the voxels of the truth plus those of the prediction.

    Returns:
        A scalar of the same dtype, 0 where no class occurs.
    """
    known = tf.cast(sizes > 0, both.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.math.divide_no_nan(both, sizes)), tf.reduce_sum(known))
