"""Metrics against counts of numpy, eagerly and under Keras' fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_losses import bright_slices, scorer

from knee3d import losses, metrics
from knee3d.training.knee_scores import KneeScores

CLASSES = 4


def batch(seed: int, *size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(CLASSES), size).astype(np.float32)
    return rng.integers(0, CLASSES, size, np.uint8), probabilities


def dice_of(truth: np.ndarray, found: np.ndarray) -> float:
    return 2 * (truth & found).sum() / (truth.sum() + found.sum())


BATCHES = [batch(0, 2, 9, 7), batch(1, 1, 9, 7)]
TRUTH = np.concatenate([masks for masks, _ in BATCHES])
FOUND = np.concatenate([probabilities.argmax(axis=-1) for _, probabilities in BATCHES])


@pytest.mark.parametrize("background", [False, True])
def test_dice_of_all_batches_since_the_last_reset(background):
    metric = metrics.Dice(CLASSES, background)
    first = 0 if background else 1
    expected = np.mean([dice_of(one == TRUTH, one == FOUND) for one in range(first, CLASSES)])
    for _ in range(2):
        for masks, probabilities in BATCHES:
            metric.update_state(masks, probabilities)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-12)
        metric.reset_state()
    assert float(metric.result()) == 0


def test_foreground_dice():
    metric = metrics.ForegroundDice()
    for masks, probabilities in BATCHES:
        metric.update_state(masks[..., None], probabilities)
    assert float(metric.result()) == pytest.approx(dice_of(TRUTH > 0, FOUND > 0), abs=1e-12)


def test_a_tissue_that_is_nowhere_does_not_count():
    metric = metrics.Dice(CLASSES)
    masks = np.array([[[0, 1, 1]]])
    metric.update_state(masks, np.eye(CLASSES, dtype=np.float32)[[[[0, 1, 0]]]])
    assert float(metric.result()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("make", [lambda: metrics.Dice(CLASSES), metrics.ForegroundDice])
def test_weights_are_how_often_a_voxel_counts(make):
    masks, probabilities = BATCHES[0]
    weighted, repeated, voxels = make(), make(), make()
    weighted.update_state(masks, probabilities, sample_weight=np.array([2, 0]))
    voxels.update_state(masks, probabilities, sample_weight=np.array([2, 0])[:, None, None] * np.ones(masks.shape))
    for _ in range(2):
        repeated.update_state(masks[:1], probabilities[:1], sample_weight=None)
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), abs=1e-12)
    assert float(voxels.result()) == pytest.approx(float(repeated.result()), abs=1e-12)


def test_patches_and_graphs_count_too():
    masks, probabilities = batch(2, 1, 4, 5, 6)
    metric = metrics.Dice(CLASSES)
    tf.function(metric.update_state)(tf.constant(masks), tf.constant(probabilities))
    found = probabilities.argmax(axis=-1)
    expected = np.mean([dice_of(one == masks, one == found) for one in range(1, CLASSES)])
    assert float(metric.result()) == pytest.approx(expected, abs=1e-12)


def test_counts_in_float64_stay_exact():
    """One voxel beside 2 ** 25, which float32 would lose."""
    metric = metrics.ForegroundDice()
    metric._both.assign([2.0**25])
    metric._sizes.assign([2.0**25])
    metric.update_state(np.array([[[1]]]), np.array([[[[1.0, 0.0]]]], np.float32))
    assert float(metric._sizes.numpy()[0]) == 2**25 + 1


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        metrics.Dice(1)
    with pytest.raises(ValueError, match="dice counts 3 classes; y_pred has 4"):
        metrics.Dice(3).update_state(*BATCHES[0])
    with pytest.raises(ValueError, match="has no axis of classes"):
        metrics.Dice(CLASSES).update_state(np.eye(CLASSES)[BATCHES[0][0]], BATCHES[0][1])


def test_fit_tells_them_and_a_compiled_model_is_read_again(tmp_path):
    images, masks = bright_slices()
    model = scorer()
    miou = keras.metrics.MeanIoU(3, sparse_y_true=True, sparse_y_pred=False)
    model.compile(
        "adam", loss=losses.SoftDice(), metrics=[metrics.Dice(3), metrics.ForegroundDice(), miou]
    )  # fmt: skip
    told = model.fit(images, masks, batch_size=2, epochs=2, validation_data=(images, masks), verbose=0).history
    found = model.predict(images, verbose=0).argmax(axis=-1)
    expected = np.mean([dice_of(one == masks, one == found) for one in (1, 2) if (one == masks).any()])
    assert told["val_dice"][-1] == pytest.approx(expected, abs=1e-6)
    assert told["val_foreground_dice"][-1] == pytest.approx(dice_of(masks > 0, found > 0), abs=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    scores, same = (one.evaluate(images, masks, verbose=0, return_dict=True) for one in (model, again))
    assert same == pytest.approx(scores, abs=1e-6)
    assert {"loss", "dice", "foreground_dice"} <= set(same)


def test_settings_go_through_serialisation():
    metric = metrics.Dice(5, True, name="all", dtype="float32")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert again.variables[0].shape == (5,)


def test_scores_of_knees_are_those_of_all_their_slices():
    masks, probabilities = BATCHES[0]
    loss = losses.SoftDice(background=False)
    scores = KneeScores(2, CLASSES, loss)
    sums = losses.overlap_sums(masks, probabilities)
    scores.update_state(tf.constant([1, -1]), tf.constant(masks), tf.constant(probabilities), sums)
    told, found = scores.result(), probabilities.argmax(axis=-1)
    expected = np.mean([dice_of(one == masks[0], one == found[0]) for one in range(1, CLASSES)])
    assert float(told["dice"]) == pytest.approx(expected, abs=1e-6)
    assert float(told["foreground_dice"]) == pytest.approx(dice_of(masks[0] > 0, found[0] > 0), abs=1e-6)
    assert float(told["knee_loss"]) == pytest.approx(float(loss(masks[:1], probabilities[:1])) / 2, abs=1e-6)
