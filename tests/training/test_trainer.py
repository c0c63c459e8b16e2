"""The trainer under Keras' own fit: what it is asked for, what it tells, what callbacks hear."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_network import TINY

from knee3d.losses import SoftDice
from knee3d.networks.encoder import encoder_model, set_encoder_trainable
from knee3d.training.build_network import network_with_first_weights
from knee3d.training.callbacks import FreezeEncoder, RunningAverage, inner_optimizer
from knee3d.training.config import TrainConfig
from knee3d.training.trainer import Trainer

CLASSES = 3


class Counting(SoftDice):
    """Knows how often it was built into a graph."""

    traced = 0

    def call(self, y_true, y_pred):
        Counting.traced += 1
        return super().call(y_true, y_pred)


def batches(sizes):
    """One of two slices of each size, without end."""

    def made():
        rng = np.random.default_rng(0)
        while True:
            for size in sizes:
                images = rng.integers(0, 256, (2, *size, 3), np.uint8)
                masks = (images[..., 0] > 128).astype(np.uint8) + (images[..., 1] > 200)
                yield (images, masks, np.zeros(2, np.int32), np.zeros((2, 1), np.float32)), 0.0

    slices = tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((None, None, None), tf.uint8)
    others = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, 1), tf.float32)
    return tf.data.Dataset.from_generator(made, output_signature=((*slices, *others), tf.TensorSpec((), tf.float64)))


def trainer(loss=None, **settings) -> Trainer:
    network = network_with_first_weights(CLASSES, TrainConfig().with_options(network=TINY, **settings), None)
    return Trainer(network, loss or SoftDice(), 1)


@pytest.mark.slow
def test_slices_of_many_sizes_are_traced_once():
    """Seven sizes cost four traces of 7 s each once."""
    one = trainer(Counting())
    Counting.traced = 0
    one.fit(batches([(16, 16)]), steps_per_epoch=1, shuffle=False, verbose=0)
    begun = Counting.traced
    sizes = [(16, 16), (16, 18), (20, 22), (24, 16), (18, 30), (32, 32), (14, 16)]
    one.fit(batches(sizes), steps_per_epoch=14, shuffle=False, verbose=0)
    assert Counting.traced == begun


@pytest.mark.slow
def test_keras_own_callbacks_see_and_steer_it(tmp_path):
    """CSVLogger, LambdaCallback and EarlyStopping, as a Keras user brings them."""
    one, heard = trainer(), []
    callbacks = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: heard.append(float(logs["loss"]))),
        keras.callbacks.EarlyStopping(monitor="val_knee_loss", mode="min", patience=1, min_delta=2.0),
    ]
    one.fit(
        batches([(16, 16)]), steps_per_epoch=3, epochs=9, shuffle=False, verbose=0, callbacks=callbacks,
        validation_data=batches([(16, 18)]).map(lambda batch, _: batch[:3]), validation_steps=2,
    )  # fmt: skip
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert len(rows) == 3  # nothing is better by 2, so it ended after two epochs
    assert {"loss", "dice", "val_loss", "val_knee_loss", "val_dice"} <= set(rows[0].split(","))
    assert len(heard) == 6
    assert all(0 < loss < 2 for loss in heard)


@pytest.mark.slow
def test_scores_are_those_of_the_confusion_matrix():
    one = trainer()
    stream = batches([(16, 16), (20, 18)]).map(lambda batch, _: batch[:3])
    told = one.evaluate(stream, steps=2, verbose=0, return_dict=True)
    (scores,) = one.knees.of_each(("a", "b"))
    assert scores.matrix.sum() == 2 * (16 * 16 + 20 * 18)
    assert told["dice"] == pytest.approx(float(np.nan_to_num(scores.mean_dice)), abs=1e-6)
    assert told["foreground_dice"] == pytest.approx(float(np.nan_to_num(scores.foreground_dice)), abs=1e-6)


@pytest.mark.slow
def test_a_frozen_encoder_keeps_its_batch_normalisation():
    network = keras.Sequential([keras.Input((None, None, 3)), encoder_model("resnet18")])
    normalised = [one for one in network._flatten_layers() if isinstance(one, keras.layers.BatchNormalization)]
    assert len(normalised) > 10
    assert set_encoder_trainable(network, "resnet18", False)
    assert not any(one.trainable for one in normalised)
    assert not set_encoder_trainable(network, "resnet18", False)
    assert set_encoder_trainable(network, "resnet18", True)
    assert all(one.trainable for one in normalised)


@pytest.mark.slow
def test_freezing_ends_with_adam_as_new():
    """Weights of the first layer, called as VGG's, stay for an epoch and move in the next."""
    one = trainer(learning_rate=1e-2)
    first = next(layer for layer in one.network._flatten_layers() if layer.name == "block1_conv1").kernel
    seen = [first.numpy()]
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(first.numpy()))
    one.fit(
        batches([(16, 16)]), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0,
        callbacks=[FreezeEncoder("vgg16", 1), told],
    )  # fmt: skip
    np.testing.assert_array_equal(seen[1], seen[0])
    assert not np.array_equal(seen[2], seen[1])
    assert int(one.optimizer.iterations.numpy()) == 3


@pytest.mark.parametrize(
    ("settings", "kind", "decay"),
    [
        ({}, keras.optimizers.Adam, None),
        ({"optimizer": "adamw"}, keras.optimizers.AdamW, 0.004),
        ({"optimizer": "adamw", "weight_decay": 0.01}, keras.optimizers.AdamW, 0.01),
        ({"optimizer": "sgd", "weight_decay": 3e-5, "learning_rate": 1e-2}, keras.optimizers.SGD, 3e-5),
    ],
)
@pytest.mark.slow
def test_other_optimizers_learn_too(settings, kind, decay):
    one = trainer(**{"learning_rate": 1e-2, **settings})
    assert type(one.optimizer) is kind
    assert one.optimizer.weight_decay == decay
    told = one.fit(batches([(16, 16)]), steps_per_epoch=8, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert told[-1] < told[0]


def test_an_optimizer_that_is_none_is_refused():
    with pytest.raises(ValueError, match="unknown optimizer 'rprop'; there are: adam, adamw, sgd"):
        TrainConfig().with_options(optimizer="rprop")


def average_of(one: Trainer):
    """Weights of the first layer: those in the network, and those that the optimizer keeps beside them."""
    layers = {id(weights): number for number, weights in enumerate(inner_optimizer(one.optimizer)._trainable_variables)}
    kernel = next(layer for layer in one.network._flatten_layers() if layer.name == "block1_conv1").kernel
    return kernel, inner_optimizer(one.optimizer)._model_variables_moving_average[layers[id(kernel)]]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.slow
def test_the_running_average_is_validated_and_the_weights_learn_on(precision):
    """Computed again from the weights after each step."""
    one = trainer(learning_rate=1e-2, ema=0.5, precision=precision)
    kernel, kept = average_of(one)
    steps, validated, written = [], [], []
    heard = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: steps.append(kernel.numpy()),
        on_epoch_end=lambda epoch, logs: written.append(kernel.numpy()),
    )
    heard.on_test_end = lambda logs=None: validated.append(kernel.numpy())
    one.fit(
        batches([(16, 16)]), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0,
        validation_data=batches([(16, 18)]).map(lambda batch, _: batch[:3]), validation_steps=1,
        callbacks=[RunningAverage(inside=False), heard],
    )  # fmt: skip
    average, expected = steps[0], []
    for number, weights in enumerate(steps[1:], start=2):
        average = 0.5 * average + 0.5 * weights
        expected += [average] if number in (3, 6) else []
    for found in (validated, written):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(written[1] - steps[5]).max() > 1e-4
    np.testing.assert_array_equal(kernel.numpy(), written[1])  # fit leaves what was written down
    np.testing.assert_array_equal(kept.numpy(), steps[5])  # and nothing is lost


@pytest.mark.slow
def test_freezing_and_averaging_go_together():
    one = trainer(learning_rate=1e-2, ema=0.9)
    one.fit(
        batches([(16, 16)]), steps_per_epoch=2, epochs=2, shuffle=False, verbose=0,
        validation_data=batches([(16, 18)]).map(lambda batch, _: batch[:3]), validation_steps=1,
        callbacks=[RunningAverage(inside=False), FreezeEncoder("vgg16", 5)],
    )  # fmt: skip
    assert np.isfinite(np.concatenate([weights.ravel() for weights in one.network.get_weights()])).all()


@pytest.mark.slow
def test_an_optimizer_of_ones_own_is_copied_and_its_rate_counts():
    mine = keras.optimizers.Lion(3e-3, weight_decay=0.1)
    config = TrainConfig().with_options(network=TINY, optimizer=mine)
    assert config.optimizer.learning_rate == 3e-3
    assert config.settings["optimizer"]["name"] == "Lion"
    assert config.settings["optimizer"]["weight_decay"] == 0.1
    json.dumps(config.settings)
    first, second = (network_with_first_weights(CLASSES, config, None).optimizer for _ in range(2))
    assert isinstance(first, keras.optimizers.Lion)
    assert first is not mine
    assert first is not second
    assert float(first.learning_rate.numpy()) == pytest.approx(3e-3)


def test_optimizers_that_cannot_be_steered_are_refused():
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-3, 10, 0.9)
    with pytest.raises(ValueError, match="must be a number, as the schedule sets it epoch by epoch"):
        TrainConfig().with_options(network=TINY, optimizer=keras.optimizers.Adam(schedule))
    with pytest.raises(ValueError, match="weight_decay is for knee3d's optimizers"):
        TrainConfig().with_options(network=TINY, optimizer=keras.optimizers.Adam(1e-3), weight_decay=1e-2)
    with pytest.raises(ValueError, match="ema must lie between 0 and 1, got 1"):
        TrainConfig().with_options(network=TINY, ema=1)
