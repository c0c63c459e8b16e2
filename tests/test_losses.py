"""Losses against sums done by hand, eagerly and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from knee3d import losses

# Two slices of 1 x 2 pixels, two tissues.
TRUTH = np.array([[[1, 0]], [[1, 2]]], dtype=np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.9, 0.1, 0.0]]], [[[0.5, 0.5, 0.0], [0.1, 0.3, 0.6]]]], dtype=np.float32)
# Background: overlap 0.9, truth 1, found 1.7. Tissue 1: 1.2, 2, 1.6. Tissue 2: 0.6, 1, 0.7.
HITS, TRUE, FOUND = np.array([0.9, 1.2, 0.6]), np.array([1.0, 2.0, 1.0]), np.array([1.7, 1.6, 0.7])


def by_hand(name: str, first: int) -> float:
    hits, true, found = HITS[first:], TRUE[first:], FOUND[first:]
    dice = 1 - np.mean((2 * hits + 1) / (true + found + 1))
    index = (hits + 1) / (hits + 0.3 * (found - hits) + 0.7 * (true - hits) + 1)
    weights = 1 / true**2
    return {
        "dice": dice,
        "dice-ce": dice - np.mean(np.log([0.7, 0.9, 0.5, 0.6])),
        "generalised-dice": 1 - (2 * np.sum(weights * hits) + 1) / (np.sum(weights * (true + found)) + 1),
        "tversky": 1 - index.mean(),
        "focal-tversky": np.mean((1 - index) ** 0.75),
    }[name]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_by_hand_and_inside_tf_data(name, background):
    loss, expected = losses.LOSSES[name], by_hand(name, 0 if background else 1)
    assert float(loss(TRUTH, PROBABILITIES, background, tf.identity)) == pytest.approx(expected, abs=1e-5)
    pairs = tf.data.Dataset.from_tensors((TRUTH, PROBABILITIES))
    mapped = pairs.map(lambda truth, found: loss(truth, found, background, tf.identity))
    assert float(next(iter(mapped))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_perfect_is_zero_and_empty_costs_nothing(name):
    loss = losses.LOSSES[name]
    perfect = np.eye(3, dtype=np.float32)[TRUTH]
    assert float(loss(TRUTH, perfect)) == pytest.approx(0, abs=1e-4)
    nothing = np.zeros_like(TRUTH)
    background = np.eye(3, dtype=np.float32)[nothing]
    assert float(loss(nothing, background)) == pytest.approx(0, abs=1e-4)
    assert float(loss(nothing, perfect)) > 0.2


@pytest.mark.parametrize("name", losses.LOSSES)
def test_slopes_are_finite_where_a_class_is_absent_or_perfect(name):
    loss = losses.LOSSES[name]
    for truth in (TRUTH, np.zeros_like(TRUTH)):
        for certain in (np.eye(3, dtype=np.float32)[TRUTH], PROBABILITIES):
            found = tf.constant(certain)
            with tf.GradientTape() as tape:
                tape.watch(found)
                value = loss(truth, found)
            assert np.isfinite(tape.gradient(value, found)).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_loss_is_that_of_the_whole_batch_not_the_mean_of_slices(name):
    """Two devices with a slice each, adding their sums up, get what one gets from both."""
    loss = losses.LOSSES[name]
    collected: list[list] = [[], []]
    for slice_, sums in enumerate(collected):
        one = slice(slice_, slice_ + 1)
        loss(TRUTH[one], PROBABILITIES[one], False, lambda x, kept=sums: kept.append(x) or x)
    totals = iter([a + b for a, b in zip(*collected, strict=True)])
    shared = loss(TRUTH[:1], PROBABILITIES[:1], False, lambda _: next(totals))
    assert float(shared) == pytest.approx(float(loss(TRUTH, PROBABILITIES)), abs=1e-6)
    alone = [float(loss(TRUTH[i : i + 1], PROBABILITIES[i : i + 1])) for i in range(2)]
    assert float(shared) != pytest.approx(np.mean(alone), abs=1e-4)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_sums_of_slices_add_up_to_the_loss_of_a_knee(name):
    """Leading axes count knees; each knee's loss is that of all its slices in one batch."""
    loss = losses.LOSSES[name]
    each = losses.sums_of(TRUTH, PROBABILITIES, surprise=True)
    assert each.shape == (2, 4, 3)
    knees = tf.stack([tf.reduce_sum(each, axis=0), each[0], each[1]])
    expected = [loss(TRUTH, PROBABILITIES), *(loss(TRUTH[i : i + 1], PROBABILITIES[i : i + 1]) for i in range(2))]
    np.testing.assert_allclose(loss.of_sums(knees, False), expected, rtol=1e-5)


def test_the_loss_of_knees_does_not_reward_a_missing_tissue():
    """In 9 of 10 slices there is no tissue and none is found; the mean over slices is then nearly perfect."""
    truth = np.zeros((10, 8, 8), np.uint8)
    truth[0, :4] = 1
    found = np.eye(2, dtype=np.float32)[np.zeros_like(truth)]
    loss = losses.LOSSES["dice"]
    assert np.mean([float(loss(truth[i : i + 1], found[i : i + 1])) for i in range(10)]) < 0.1
    pooled = loss.of_sums(tf.reduce_sum(losses.sums_of(truth, found), axis=0), False)
    assert float(pooled) > 0.95
