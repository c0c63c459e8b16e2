"""Trainer: the Keras model that `fit` trains, on one device or on all GPUs of a machine.

Every device computes the loss of the whole batch (`losses.OverlapLoss`), so that several train what one would. Sums
over all slices of a knee are kept as metrics, and scores and `val_knee_loss` are computed of them.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import knee3d.tensorflow_setup  # noqa: F401

import keras
import tensorflow as tf

from knee3d.losses import OverlapLoss, overlap_sums, sum_over_replicas
from knee3d.metrics import Dice
from knee3d.networks.augmentation import DrawnAugmentation
from knee3d.training.knee_scores import KneeScores

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Slices, their masks, and the number of each slice's stack, -1 for what only fills a batch up."""
TrainingBatch = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""The same of training, where no stack is -1, with what is drawn for the changes of each slice."""


def distribution_strategy(most: int | None = None) -> tf.distribute.Strategy:
    """What TensorFlow offers for the devices of this machine; the same object at every call.

    It is MirroredStrategy over visible GPUs, or CPUs. With one device it is TensorFlow's own, which does the same
    without copies: on a CPU the mirror of one makes training 13 % and validation three times slower.

    It must be called before TensorFlow computes anything.

    Args:
        most: Use so many devices at most, as no device can be given a part of a slice; None is all.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = tuple(device.name for device in devices[:most])
    return _mirrored(names) if len(names) > 1 else tf.distribute.get_strategy()


@cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@dataclass(frozen=True, eq=False)
class StepOptions:
    """What a step of training does beside going down the loss.

    Attributes:
        clip_norm: Largest norm of all gradients together; None leaves them alone.
        xla: Whether to compile the network's part of a step with XLA.
        augmentation: What changes the slices; None leaves them as they are.
    """

    clip_norm: float | None = None
    xla: bool = False
    augmentation: DrawnAugmentation | None = None


class Trainer(keras.Model):
    """A network with what it is trained by; `fit` takes batches as `input_pipeline` makes them.

    Args:
        network: Compiled with its optimizer, uint8 slices -> probabilities, built in the scope of
            `distribution_strategy()`.
        loss: One of `losses`.
        knees: Number of stacks of validation.
        learning: What else a step of training does.
    """

    def __init__(
        self, network: keras.Model, loss: OverlapLoss, knees: int, learning: StepOptions | None = None
    ) -> None:
        super().__init__(name="trainer")
        self.network = network
        self._loss, self._learning = loss, learning or StepOptions()
        classes = network.output_shape[-1]
        dice = Dice(classes, dtype="float32")  # as metrics.csv has always had it, digit for digit
        self.train_metrics = (keras.metrics.Mean("loss"), dice, keras.metrics.Sum("waited", "float64"))
        self.knees = KneeScores(knees, classes, loss)
        self.val_metrics = (keras.metrics.Mean("loss"), self.knees)
        self._validating = False
        self.built = True
        self.compile(optimizer=network.optimizer, auto_scale_loss=False)

    def call(self, slices: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The network's answer."""
        return self.network(slices, training=training)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of what is going on."""
        return list(self.val_metrics if self._validating else self.train_metrics)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the network is built. Keras would average the devices' parts of a batch, of unlike sizes."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras has it."""
        self._validating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._validating = False

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras has it, but the network is left as it was last validated."""
        optimizer = self.optimizer
        optimizer.finalize_variable_values = lambda variables: None  # puts the average in, see `RunningAverage`
        try:
            return super().fit(*args, **kwargs)
        finally:
            del optimizer.finalize_variable_values

    def train_step(self, data: tuple[TrainingBatch, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Learn from a batch, and from how long it was waited for."""
        (images, masks, owners, drawn), waited = data
        if self._learning.augmentation is not None:
            images, masks = self._learning.augmentation(images, masks, owners, drawn)
        learn = tf.function(self._learn, jit_compile=True, reduce_retracing=True) if self._learning.xla else self._learn
        value, probabilities = learn(images, masks)
        mean, dice, seconds = self.train_metrics
        mean.update_state(value, sample_weight=tf.shape(owners)[0])
        dice.update_state(masks, probabilities)
        seconds.update_state(waited)
        return {metric.name: metric.result() for metric in self.train_metrics}

    def _learn(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            probabilities = self.network(images, training=True)
            value = self._loss.call(masks, probabilities)  # of the whole batch, on every device
            scaled = self.optimizer.scale_loss(value / replicas)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        if self._learning.clip_norm is not None:
            shared = [sum_over_replicas(gradient) for gradient in gradients]
            clipped, _ = tf.clip_by_global_norm(shared, self.optimizer.scale_loss(self._learning.clip_norm))
            gradients = [gradient / replicas for gradient in clipped]
        if replicas > 1 and isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _finite_on_all(gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value, probabilities

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Score a batch."""
        images, masks, owners = data
        probabilities = self.network(images, training=False)
        sums = overlap_sums(masks, probabilities, self._loss.cross_entropy)
        mine = tf.cast(owners >= 0, tf.float32)
        summed = sum_over_replicas(tf.reduce_sum(sums * mine[:, None, None], axis=0))
        mean, knees = self.val_metrics
        mean.update_state(self._loss.of_sums(summed), sample_weight=tf.reduce_sum(mine))
        knees.update_state(owners, masks, probabilities, sums)
        return {"loss": mean.result(), **knees.result()}


def _finite_on_all(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients that are NaN on every device where they are not finite on one.

    Keras' optimizer for float16 asks the first device alone whether to leave the step out.
    """
    finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
    broken = sum_over_replicas(1.0 - tf.cast(tf.reduce_all(finite), tf.float32))
    return [tf.where(broken > 0, tf.constant(float("nan"), gradient.dtype), gradient) for gradient in gradients]
