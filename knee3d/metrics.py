"""Keras metrics of segmentations."""

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d.losses import Loss
from knee3d.postprocess.confusion_matrix import OverlapScores


class TissueDice(keras.metrics.Metric):
    """Mean over tissues of the Dice of all labels since the last reset, as they were while the network changed."""

    def __init__(self, classes: int) -> None:
        super().__init__(name="dice", dtype="float64")
        self._both = self.add_variable((classes - 1,), "zeros", name="both")
        self._sizes = self.add_variable((classes - 1,), "zeros", name="sizes")

    def update_state(self, masks: tf.Tensor, probabilities: tf.Tensor) -> None:
        """Add a batch."""
        classes = probabilities.shape[-1]
        truth = tf.one_hot(tf.cast(masks, tf.int32), classes)[..., 1:]
        found = tf.one_hot(tf.argmax(probabilities, axis=-1), classes)[..., 1:]
        voxels = list(range(masks.shape.rank))
        self._both.assign_add(tf.cast(tf.reduce_sum(2 * truth * found, axis=voxels), tf.float64))
        self._sizes.assign_add(tf.cast(tf.reduce_sum(truth + found, axis=voxels), tf.float64))

    def result(self) -> tf.Tensor:
        """0 where there is no tissue at all."""
        return _mean_of_known(tf.convert_to_tensor(self._both), tf.convert_to_tensor(self._sizes))


class KneeScores(keras.metrics.Metric):
    """What a network says of each knee: voxels by true and predicted class, and the sums that losses are computed of.

    Args:
        knees: How many.
        classes: Background included.
        loss: Of which `knee_loss` is computed.
        background: Whether it counts background.
    """

    def __init__(self, knees: int, classes: int, loss: Loss, background: bool) -> None:
        super().__init__(name="knees", dtype="float64")
        self._loss, self._background, self._knees, self._classes = loss, background, knees, classes
        self._matrices = self.add_variable((knees, classes, classes), "zeros", name="matrices")
        self._sums = self.add_variable((knees, 4, classes), "zeros", name="sums")

    def update_state(self, owners: tf.Tensor, masks: tf.Tensor, probabilities: tf.Tensor, sums: tf.Tensor) -> None:
        """Add a batch, see `losses.sums_of`; slices of no knee (-1) are left out."""
        knees, classes = self._knees, self._classes
        pairs = tf.cast(masks, tf.int32) * classes + tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        bins = (knees + 1) * classes**2  # the first for slices of no knee
        owned = (tf.reshape(owners, [-1] + [1] * (masks.shape.rank - 1)) + 1) * classes**2 + pairs
        counts = tf.math.bincount(tf.reshape(owned, [-1]), minlength=bins, maxlength=bins)
        matrices = tf.reshape(counts, (knees + 1, classes, classes))[1:]
        self._matrices.assign_add(tf.cast(matrices, tf.float64))
        self._sums.assign_add(tf.math.unsorted_segment_sum(tf.cast(sums, tf.float64), owners, knees))

    def result(self) -> dict[str, tf.Tensor]:
        """The mean loss of a knee; of all knees together the mean Dice of tissues, and of any tissue."""
        matrix = tf.reduce_sum(tf.convert_to_tensor(self._matrices), axis=0)
        sizes = tf.reduce_sum(matrix, axis=0) + tf.reduce_sum(matrix, axis=1)
        tissue = tf.reduce_sum(matrix[1:, 1:])
        either = tf.reduce_sum(matrix[1:]) + tf.reduce_sum(matrix[:, 1:])
        knees = self._loss.of_sums(tf.cast(tf.convert_to_tensor(self._sums), tf.float32), self._background)
        return {
            "knee_loss": tf.reduce_mean(knees),
            "dice": _mean_of_known(2 * tf.linalg.diag_part(matrix)[1:], sizes[1:]),
            "foreground_dice": tf.math.divide_no_nan(2 * tissue, either),
        }

    def of_each(self, names: tuple[str, ...]) -> tuple[OverlapScores, ...]:
        """Scores of each knee, by the names of tissues."""
        matrices = np.asarray(tf.convert_to_tensor(self._matrices)).round().astype(np.int64)
        return tuple(OverlapScores(matrix, names) for matrix in matrices)


def _mean_of_known(above: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Mean of the fractions that are some, 0 where there is none."""
    known = tf.cast(below > 0, above.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.math.divide_no_nan(above, below)), tf.reduce_sum(known))
