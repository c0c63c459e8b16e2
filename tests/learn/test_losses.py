"""Soft Dice against sums done by hand, eagerly and inside tf.data."""

import numpy as np
import pytest

from knee3d.postprocess.confusion import Scores, confusion_matrix

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
losses = pytest.importorskip("knee3d.learn.losses")

# Two slices of 1 x 2 pixels, two tissues.
TRUTH = np.array([[[1, 0]], [[1, 2]]], dtype=np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.9, 0.1, 0.0]]], [[[0.5, 0.5, 0.0], [0.1, 0.3, 0.6]]]], dtype=np.float32)
# Tissue 1: overlap 0.7 + 0.5, sizes 2 + (0.7 + 0.1 + 0.5 + 0.3). Tissue 2: overlap 0.6, sizes 1 + (0.1 + 0.6).
BY_HAND = 1 - ((2 * 1.2 + 1) / (3.6 + 1) + (2 * 0.6 + 1) / (1.7 + 1)) / 2


def test_loss_by_hand():
    assert float(losses.soft_dice_loss(TRUTH, PROBABILITIES)) == pytest.approx(BY_HAND, abs=1e-6)


def test_loss_inside_tf_data_and_keras():
    pairs = tf.data.Dataset.from_tensors((TRUTH, PROBABILITIES)).map(losses.soft_dice_loss)
    assert float(next(iter(pairs))) == pytest.approx(BY_HAND, abs=1e-6)
    assert float(losses.SoftDice()(TRUTH, PROBABILITIES)) == pytest.approx(BY_HAND, abs=1e-6)


def test_perfect_is_zero_and_empty_costs_nothing():
    perfect = np.eye(3, dtype=np.float32)[TRUTH]
    assert float(losses.soft_dice_loss(TRUTH, perfect)) == pytest.approx(0, abs=1e-6)
    nothing = np.zeros_like(TRUTH)
    background = np.eye(3, dtype=np.float32)[nothing]
    assert float(losses.soft_dice_loss(nothing, background)) == pytest.approx(0, abs=1e-6)
    assert float(losses.soft_dice_loss(nothing, perfect)) > 0.4


def test_loss_and_metric_can_be_saved():
    loss = losses.SoftDice(smooth=0.5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(TRUTH, PROBABILITIES)) == pytest.approx(float(loss(TRUTH, PROBABILITIES)))
    metric = keras.metrics.deserialize(keras.metrics.serialize(losses.PooledDice(3)))
    assert metric.classes == 3


def test_pooled_dice_is_that_of_the_confusion_matrix():
    rng = np.random.default_rng(0)
    metric = losses.PooledDice(4)
    truths, labels = [], []
    for _ in range(3):
        truth, probabilities = rng.integers(0, 3, (2, 5, 6)), rng.random((2, 5, 6, 4)).astype(np.float32)
        probabilities[..., 3] = 0  # neither side has the last tissue
        metric.update_state(truth, probabilities)
        truths.append(truth)
        labels.append(probabilities.argmax(-1))
    matrix = confusion_matrix(np.stack(truths), np.stack(labels), 4)
    assert float(metric.result()) == pytest.approx(Scores(matrix, ("a", "b", "c")).mean_dice, abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0
