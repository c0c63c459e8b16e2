"""KneeScores: a metric that scores whole knees of validation."""

import knee3d.tensorflow_setup  # noqa: F401

import keras
import numpy as np
import tensorflow as tf

from knee3d.losses import OverlapLoss
from knee3d.metrics import mean_dice
from knee3d.postprocess.confusion_matrix import OverlapScores


class KneeScores(keras.metrics.Metric):
    """For each knee: voxels by true and predicted class, and the sums that losses are computed of.

    Args:
        knees: Number of knees.
        classes: Number of classes, background included.
        loss: The loss that `knee_loss` is computed with.
    """

    def __init__(self, knees: int, classes: int, loss: OverlapLoss) -> None:
        super().__init__(name="knees", dtype="float64")
        self._loss, self._knees, self._classes = loss, knees, classes
        self._matrices = self.add_variable((knees, classes, classes), "zeros", name="matrices")
        self._sums = self.add_variable((knees, 4, classes), "zeros", name="sums")

    def update_state(self, owners: tf.Tensor, masks: tf.Tensor, probabilities: tf.Tensor, sums: tf.Tensor) -> None:
        """Add a batch; slices of no knee (-1) are left out.

        Args:
            owners: Number of each slice's knee, (batch,) int32; -1 for slices of no knee.
            masks: Integer classes, (batch, height, width) or with more axes.
            probabilities: The network's, (batch, height, width, classes) or with more axes.
            sums: From `losses.overlap_sums`, (batch, 4, classes) float32.
        """
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
        knees = self._loss.of_sums(tf.cast(tf.convert_to_tensor(self._sums), tf.float32))
        return {
            "knee_loss": tf.reduce_mean(knees),
            "dice": mean_dice(2 * tf.linalg.diag_part(matrix)[1:], sizes[1:]),
            "foreground_dice": tf.math.divide_no_nan(2 * tissue, either),
        }

    def of_each(self, names: tuple[str, ...]) -> tuple[OverlapScores, ...]:
        """Scores of each knee, by the names of tissues."""
        matrices = np.asarray(tf.convert_to_tensor(self._matrices)).round().astype(np.int64)
        return tuple(OverlapScores(matrix, names) for matrix in matrices)
