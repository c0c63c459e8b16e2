"""Losses for segmentation: `keras.losses.Loss` classes for anyone's `model.compile(loss=...)`, and a table of them.

Every loss is a function of sums over voxels, which `overlap_sums` computes. Sums of several devices, batches or slices
of a knee can be added up before the loss is computed of them (`OverlapLoss.of_sums`):

    sums    (..., 4, classes) float32. Leading axes count knees, for example.

The sums run over the whole batch and not over each slice (Isensee et al., nnU-Net, 2021), so that slices without
cartilage do not count as failures. A class that is absent from the truth costs nothing where nothing is predicted as
it. It costs more with every voxel that is: one voxel is added above and below each fraction line (`SMOOTH`).

Example:
    >>> model.compile("adam", loss=knee3d.losses.SoftDice())  # doctest: +SKIP
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import tensorflow as tf

__all__ = [
    "LOSSES",
    "DiceCrossEntropy",
    "FocalTversky",
    "GeneralisedDice",
    "OverlapLoss",
    "SoftDice",
    "Tversky",
    "sum_over_replicas",
    "overlap_sums",
]

SMOOTH = 1.0


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Add a tensor up over the devices that share a batch.

    Args:
        value: Any float tensor; every device must have one of the same shape.

    Returns:
        Inside `tf.distribute.Strategy.run` the sum over all replicas, through which gradients flow; elsewhere, or with
        one replica, the tensor itself.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def overlap_sums(truth: tf.Tensor, probabilities: tf.Tensor, cross_entropy: bool = False) -> tf.Tensor:
    """Sum over the voxels of each slice; every loss is computed from these sums.

    Args:
        truth: Integer classes of any dtype, (batch, height, width) or, for patches, with more axes.
        probabilities: Probabilities in [0, 1] that add up to 1 over the last axis, (batch, height, width, classes) or
            with more axes.
        cross_entropy: Whether to compute the fourth row, which only some losses need.

    Returns:
        (batch, 4, classes) float32: sum(p t), sum(t), sum(p), and sum(-t log p), which is 0 unless it is asked for.
    """
    found = tf.cast(probabilities, tf.float32)
    true = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(probabilities)[-1], dtype=tf.float32)
    voxels = list(range(1, len(truth.shape)))
    sums = [tf.reduce_sum(part, axis=voxels) for part in (true * found, true, found)]
    bits = tf.reduce_sum(-true * tf.math.log(tf.maximum(found, 1e-7)), axis=voxels) if cross_entropy else sums[0] * 0
    return tf.stack([*sums, bits], axis=1)


def integer_masks(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """Give integer masks without a last axis of length 1.

    Args:
        y_true: Classes, with the axes of `y_pred` but its last, or with a last axis of length 1 in its place.
        y_pred: Probabilities, (..., classes).

    Returns:
        The masks with one axis fewer than `y_pred`.

    Raises:
        ValueError: The masks have other axes than the probabilities, such as one-hot masks have.
    """
    axes = len(y_pred.shape)
    if len(y_true.shape) == axes and y_true.shape[-1] == 1:
        return tf.squeeze(y_true, axis=-1)
    if len(y_true.shape) != axes - 1:
        raise ValueError(
            f"y_true of shape {tuple(y_true.shape)} does not fit y_pred of shape {tuple(y_pred.shape)}; y_true holds "
            "integer classes and has no axis of classes (of one-hot masks give tf.argmax(masks, axis=-1))"
        )
    return y_true


class OverlapLoss(keras.losses.Loss):
    """A loss that is computed from sums over all voxels of a batch; the base class of the losses of this module.

    A subclass defines `of_sums`, and sets `cross_entropy` if it needs the fourth row of the sums.

    The value is one scalar for the whole batch. With several replicas of a `tf.distribute` strategy, each computes the
    loss of the batch that they share, so that two GPUs train what one would. Whatever the precision of the model is,
    the loss is computed in float32.

    Args:
        background: Whether class 0 counts as a class of its own; True counts it. Background is 98 % of a knee.
        name: Name of the loss in Keras.
    """

    cross_entropy = False

    def __init__(self, background: bool = True, name: str | None = None) -> None:
        super().__init__(name=name, dtype="float32")
        self.background = bool(background)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """The loss as Keras wants it, a scalar float32: on each of several replicas its share of the batch's loss.

        Raises:
            ValueError: There are weights of samples, which a loss of the whole batch cannot heed.
        """
        if sample_weight is not None:
            raise ValueError(f"{self.name} is one number for a whole batch; it takes no sample_weight or class_weight")
        value = super().__call__(y_true, y_pred)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Keras adds the gradients of replicas up; it divides losses by their number unless they are scalars already.
        return value if replicas == 1 else value / replicas

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Compute the loss of a batch.

        Args:
            y_true: Integer classes of any dtype, (batch, height, width), (batch, height, width, 1), or with more axes
                for patches.
            y_pred: Probabilities that add up to 1, (batch, height, width, classes), or with as many more axes.

        Returns:
            A scalar float32, the loss of the batch that all replicas share.

        Raises:
            ValueError: The shapes do not fit each other.
        """
        truth = integer_masks(y_true, y_pred)
        sums = tf.reduce_sum(overlap_sums(truth, y_pred, self.cross_entropy), axis=0)
        return self.of_sums(sum_over_replicas(sums))

    @abstractmethod
    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """Compute the loss from sums over voxels.

        Args:
            sums: (..., 4, classes) float32, see `overlap_sums`.

        Returns:
            (...) float32, a loss for each of the leading axes.
        """

    def get_config(self) -> dict[str, Any]:
        """What is needed to build the loss again."""
        return {"background": self.background, "name": self.name}

    def _rows(self, sums: tf.Tensor) -> list[tf.Tensor]:
        """The four rows, of the classes that count."""
        return tf.unstack(sums[..., 0 if self.background else 1 :], axis=-2)


@keras.saving.register_keras_serializable(package="knee3d")
class SoftDice(OverlapLoss):
    """One minus the mean over classes of (2 sum(p t) + 1) / (sum(p) + sum(t) + 1).

    Source: Milletari et al., V-Net, 2016, there with squares in the denominator; the loss of Luan et al. 2025.

    Args:
        background: Whether class 0 counts as a class of its own; True counts it.
        name: Name of the loss in Keras.

    Example:
        >>> import numpy as np
        >>> loss = SoftDice()
        >>> masks = np.array([[[0, 1]]], np.uint8)
        >>> float(loss(masks, np.eye(2, dtype="float32")[masks]))
        0.0
    """

    def __init__(self, background: bool = True, name: str = "soft_dice") -> None:
        super().__init__(background, name)

    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """See `OverlapLoss.of_sums`."""
        hits, true, found, _ = self._rows(sums)
        return 1 - tf.reduce_mean((2 * hits + SMOOTH) / (true + found + SMOOTH), axis=-1)


@keras.saving.register_keras_serializable(package="knee3d")
class DiceCrossEntropy(SoftDice):
    """Soft Dice plus the mean over voxels of the cross-entropy, which always counts background.

    Source: Isensee et al., nnU-Net, 2021.

    Args:
        background: Whether class 0 counts as a class of its own in Dice; True counts it.
        name: Name of the loss in Keras.
    """

    cross_entropy = True

    def __init__(self, background: bool = True, name: str = "dice_cross_entropy") -> None:
        super().__init__(background, name)

    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """See `OverlapLoss.of_sums`."""
        _, true, _, entropy = tf.unstack(sums, axis=-2)
        return super().of_sums(sums) + tf.reduce_sum(entropy, axis=-1) / tf.reduce_sum(true, axis=-1)


@keras.saving.register_keras_serializable(package="knee3d")
class GeneralisedDice(OverlapLoss):
    """One minus Dice of all classes at once, each weighed by 1 / (its voxels in the truth)^2.

    A class that is absent from the truth has the weight of the rarest class that is present.

    Source: Sudre et al. 2017.

    Args:
        background: Whether class 0 counts as a class of its own; True counts it.
        name: Name of the loss in Keras.
    """

    def __init__(self, background: bool = True, name: str = "generalised_dice") -> None:
        super().__init__(background, name)

    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """See `OverlapLoss.of_sums`."""
        hits, true, found, _ = self._rows(sums)
        weights = tf.math.divide_no_nan(1.0, true**2)
        rarest = tf.reduce_max(weights, axis=-1, keepdims=True)
        weights = tf.where(true > 0, weights, tf.where(rarest > 0, rarest, 1.0))
        weights = weights / tf.reduce_max(weights, axis=-1, keepdims=True)
        above, below = (tf.reduce_sum(weights * part, axis=-1) for part in (hits, true + found))
        return 1 - (2 * above + SMOOTH) / (below + SMOOTH)


@keras.saving.register_keras_serializable(package="knee3d")
class Tversky(OverlapLoss):
    """One minus the mean over classes of the Tversky index, (TP + 1) / (TP + a FP + b FN + 1).

    TP, FP and FN are sums of probabilities: those of a class in its own voxels, those of it elsewhere, and what its own
    voxels lack. With the defaults a missed voxel costs more than a false one.

    Source: Salehi et al. 2017.

    Args:
        background: Whether class 0 counts as a class of its own; True counts it.
        false_positives: Weight a of false positives, at least 0; the default is the paper's 0.3.
        false_negatives: Weight b of false negatives, at least 0; the default is the paper's 0.7.
        name: Name of the loss in Keras.

    Raises:
        ValueError: A weight is below 0.
    """

    def __init__(
        self,
        background: bool = True,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        name: str = "tversky",
    ) -> None:
        super().__init__(background, name)
        if not (false_positives >= 0 and false_negatives >= 0):
            raise ValueError(f"weights must be at least 0, got {false_positives} and {false_negatives}")
        self.false_positives, self.false_negatives = false_positives, false_negatives

    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """See `OverlapLoss.of_sums`."""
        return 1 - tf.reduce_mean(self._index(sums), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What is needed to build the loss again."""
        weights = {"false_positives": self.false_positives, "false_negatives": self.false_negatives}
        return super().get_config() | weights

    def _index(self, sums: tf.Tensor) -> tf.Tensor:
        hits, true, found, _ = self._rows(sums)
        wrong = self.false_positives * (found - hits) + self.false_negatives * (true - hits)
        return (hits + SMOOTH) / (hits + wrong + SMOOTH)


@keras.saving.register_keras_serializable(package="knee3d")
class FocalTversky(Tversky):
    """Mean over classes of (1 - Tversky index)^(1 / gamma): classes that are found badly count more.

    Source: Abraham and Khan 2019.

    Args:
        background: Whether class 0 counts as a class of its own; True counts it.
        false_positives: Weight of false positives in the index, see `Tversky`.
        false_negatives: Weight of false negatives in the index, see `Tversky`.
        gamma: The exponent's inverse, above 0; the default is the paper's 4/3.
        name: Name of the loss in Keras.

    Raises:
        ValueError: A weight is below 0, or gamma is not above 0.
    """

    def __init__(
        self,
        background: bool = True,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        gamma: float = 4 / 3,
        name: str = "focal_tversky",
    ) -> None:
        super().__init__(background, false_positives, false_negatives, name)
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.gamma = gamma

    def of_sums(self, sums: tf.Tensor) -> tf.Tensor:
        """See `OverlapLoss.of_sums`."""
        missing = 1 - self._index(sums)
        # at 0 the slope would be infinite
        return tf.reduce_mean(tf.maximum(missing, 1e-7) ** (1 / self.gamma), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """What is needed to build the loss again."""
        return super().get_config() | {"gamma": self.gamma}


LOSSES: Mapping[str, type[OverlapLoss]] = {
    "dice": SoftDice,
    "dice-ce": DiceCrossEntropy,
    "generalised-dice": GeneralisedDice,
    "tversky": Tversky,
    "focal-tversky": FocalTversky,
}
"""The losses by the names that `TrainConfig` and `--loss` take."""
