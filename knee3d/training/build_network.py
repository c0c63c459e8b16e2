"""Build a network for training: first weights, precision, batch normalisation, optimizer."""

import knee3d.tensorflow_setup  # noqa: F401

import keras
import tensorflow as tf

from knee3d.networks.architecture import build_network
from knee3d.networks.encoder import load_encoder
from knee3d.training.config import TrainConfig

STATISTICS_SLICES = 100


def untrained_network(classes: int, config: TrainConfig, precision: str = "float32") -> keras.Model:
    """A network with random weights and without an optimizer, which would be saved with it.

    Args:
        classes: Background included.
        config: Which network.
        precision: Of what it computes.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return build_network(config.network.network, classes, config.network.context, config.network.encoder)
    finally:
        keras.config.set_dtype_policy(before)


def network_with_first_weights(classes: int, config: TrainConfig, encoder_weights: str | None) -> keras.Model:
    """A network with its optimizer, its encoder holding `encoder_weights`.

    Raises:
        ValueError: The weights are not those of the encoder.
    """
    model = untrained_network(classes, config, config.optimizer.precision)
    load_encoder(model, str(config.network.encoder), encoder_weights)
    _match_running_statistics(model, config.sampling.batch_size)
    optimizer = make_optimizer(config)
    if config.optimizer.ema is not None:
        optimizer.use_ema, optimizer.ema_momentum = True, config.optimizer.ema
    if config.optimizer.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, auto_scale_loss=False)
    return model


def make_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """Keras' optimizer of some settings, new."""
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    if isinstance(config.optimizer.optimizer, keras.optimizers.Optimizer):
        return type(config.optimizer.optimizer).from_config(config.optimizer.optimizer.get_config())
    moments = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
    if config.optimizer.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.99, nesterov=True, weight_decay=decay)
    if config.optimizer.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, **moments, **({} if decay is None else {"weight_decay": decay}))
    return keras.optimizers.Adam(rate, **moments, weight_decay=decay)


def _match_running_statistics(model: keras.Model, batch_size: int) -> None:
    """Let batch normalisation average over about STATISTICS_SLICES slices, and over all devices.

    With Keras' momentum of 0.99 it averages over 100 batches. In a short training with larger batches it then lags
    behind the weights, and validation scores tell of a network that never was.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 1 - 1 / max(2.0, STATISTICS_SLICES / batch_size)
            layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
