"""Losses against sums done by hand, eagerly, inside tf.data, and as anyone's Keras loss."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from knee3d import losses
from knee3d.losses import LOSSES

# Two slices of 1 x 2 pixels, two tissues.
TRUTH = np.array([[[1, 0]], [[1, 2]]], dtype=np.uint8)
PROBABILITIES = np.array([[[[0.2, 0.7, 0.1], [0.9, 0.1, 0.0]]], [[[0.5, 0.5, 0.0], [0.1, 0.3, 0.6]]]], dtype=np.float32)
# Background: overlap 0.9, truth 1, found 1.7. Tissue 1: 1.2, 2, 1.6. Tissue 2: 0.6, 1, 0.7.
HITS, TRUE, FOUND = np.array([0.9, 1.2, 0.6]), np.array([1.0, 2.0, 1.0]), np.array([1.7, 1.6, 0.7])
every_loss = pytest.mark.parametrize("name", LOSSES)


def by_hand(name: str, first: int, weights: tuple[float, float] = (0.3, 0.7)) -> float:
    hits, true, found = HITS[first:], TRUE[first:], FOUND[first:]
    dice = 1 - np.mean((2 * hits + 1) / (true + found + 1))
    index = (hits + 1) / (hits + weights[0] * (found - hits) + weights[1] * (true - hits) + 1)
    rarity = 1 / true**2
    return {
        "dice": dice,
        "dice-ce": dice - np.mean(np.log([0.7, 0.9, 0.5, 0.6])),
        "generalised-dice": 1 - (2 * np.sum(rarity * hits) + 1) / (np.sum(rarity * (true + found)) + 1),
        "tversky": 1 - index.mean(),
        "focal-tversky": np.mean((1 - index) ** 0.75),
    }[name]


@pytest.mark.parametrize("background", [False, True])
@every_loss
def test_by_hand_and_inside_tf_data(name, background):
    loss, expected = LOSSES[name](background=background), by_hand(name, 0 if background else 1)
    assert float(loss(TRUTH, PROBABILITIES)) == pytest.approx(expected, abs=1e-5)
    assert loss(TRUTH, PROBABILITIES).shape == ()
    mapped = tf.data.Dataset.from_tensors((TRUTH, PROBABILITIES)).map(loss)
    assert float(next(iter(mapped))) == pytest.approx(expected, abs=1e-5)


@every_loss
def test_background_counts_unless_it_is_left_out(name):
    assert float(LOSSES[name]()(TRUTH, PROBABILITIES)) == pytest.approx(by_hand(name, 0), abs=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint16"])
def test_masks_of_any_integer_with_a_last_axis_of_one_and_of_patches(dtype):
    loss, masks, expected = losses.SoftDice(), TRUTH.astype(dtype), by_hand("dice", 0)
    assert float(loss(masks, PROBABILITIES)) == pytest.approx(expected, abs=1e-6)
    assert float(loss(masks[..., None], PROBABILITIES)) == pytest.approx(expected, abs=1e-6)
    assert float(loss(masks[:, None], PROBABILITIES[:, None])) == pytest.approx(expected, abs=1e-6)
    assert float(loss.call(masks, PROBABILITIES)) == float(loss(masks, PROBABILITIES))


def test_what_is_no_mask_of_integers_is_refused():
    loss = losses.SoftDice()
    with pytest.raises(ValueError, match="y_true holds integer classes and has no axis of classes"):
        loss(np.eye(3)[TRUTH], PROBABILITIES)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        loss(TRUTH, PROBABILITIES, sample_weight=np.ones(2))
    with pytest.raises(ValueError, match="weights must be at least 0, got -1"):
        losses.Tversky(false_positives=-1)
    with pytest.raises(ValueError, match="gamma must be above 0, got 0"):
        losses.FocalTversky(gamma=0)


def test_weights_of_tversky_and_its_exponent():
    loss = losses.Tversky(false_positives=0.5, false_negatives=0.2)
    assert float(loss(TRUTH, PROBABILITIES)) == pytest.approx(by_hand("tversky", 0, (0.5, 0.2)), abs=1e-6)
    focal = losses.FocalTversky(gamma=1.0)
    assert float(focal(TRUTH, PROBABILITIES)) == pytest.approx(by_hand("tversky", 0), abs=1e-6)


def test_float16_probabilities_are_summed_in_float32():
    """More voxels than float16 can count."""
    masks, found = np.ones((1, 300, 300), np.uint8), np.full((1, 300, 300, 2), 0.5, np.float16)
    assert losses.SoftDice(background=False)(masks, found).numpy() == pytest.approx(1 / 3, abs=1e-4)


@every_loss
def test_perfect_is_zero_and_empty_costs_nothing(name):
    loss = LOSSES[name](background=False)
    perfect = np.eye(3, dtype=np.float32)[TRUTH]
    assert float(loss(TRUTH, perfect)) == pytest.approx(0, abs=1e-4)
    nothing = np.zeros_like(TRUTH)
    background = np.eye(3, dtype=np.float32)[nothing]
    assert float(loss(nothing, background)) == pytest.approx(0, abs=1e-4)
    assert float(loss(nothing, perfect)) > 0.2


@every_loss
def test_slopes_are_finite_where_a_class_is_absent_or_perfect(name):
    loss = LOSSES[name](background=False)
    for truth in (TRUTH, np.zeros_like(TRUTH)):
        for certain in (np.eye(3, dtype=np.float32)[TRUTH], PROBABILITIES):
            found = tf.constant(certain)
            with tf.GradientTape() as tape:
                tape.watch(found)
                value = loss(truth, found)
            assert np.isfinite(tape.gradient(value, found)).all()


@every_loss
def test_the_loss_is_that_of_the_whole_batch_not_the_mean_of_slices(name, monkeypatch):
    """Two devices with a slice each, adding their sums up, get what one gets from both."""
    loss = LOSSES[name](background=False)
    whole = float(loss(TRUTH, PROBABILITIES))
    alone = [float(loss(TRUTH[i : i + 1], PROBABILITIES[i : i + 1])) for i in range(2)]
    other = tf.reduce_sum(losses.overlap_sums(TRUTH[1:], PROBABILITIES[1:], loss.cross_entropy), axis=0)
    monkeypatch.setattr(losses, "sum_over_replicas", lambda sums: sums + other)
    shared = float(loss(TRUTH[:1], PROBABILITIES[:1]))
    assert shared == pytest.approx(whole, abs=1e-6)
    assert shared != pytest.approx(np.mean(alone), abs=1e-4)


@every_loss
def test_sums_of_slices_add_up_to_the_loss_of_a_knee(name):
    """Leading axes count knees; each knee's loss is that of all its slices in one batch."""
    loss = LOSSES[name](background=False)
    each = losses.overlap_sums(TRUTH, PROBABILITIES, cross_entropy=True)
    assert each.shape == (2, 4, 3)
    knees = tf.stack([tf.reduce_sum(each, axis=0), each[0], each[1]])
    expected = [loss(TRUTH, PROBABILITIES), *(loss(TRUTH[i : i + 1], PROBABILITIES[i : i + 1]) for i in range(2))]
    np.testing.assert_allclose(loss.of_sums(knees), expected, rtol=1e-5)


def test_the_loss_of_knees_does_not_reward_a_missing_tissue():
    """In 9 of 10 slices there is no tissue and none is found; the mean over slices is then nearly perfect."""
    truth = np.zeros((10, 8, 8), np.uint8)
    truth[0, :4] = 1
    found = np.eye(2, dtype=np.float32)[np.zeros_like(truth)]
    loss = losses.SoftDice(background=False)
    assert np.mean([float(loss(truth[i : i + 1], found[i : i + 1])) for i in range(10)]) < 0.1
    assert float(loss.of_sums(tf.reduce_sum(losses.overlap_sums(truth, found), axis=0))) > 0.95


def scorer(classes: int = 3) -> keras.Model:
    """A convolution of one pixel."""
    scores = keras.layers.Conv2D(classes, 1, activation="softmax", kernel_initializer="zeros")
    return keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(1 / 255), scores])


def bright_slices() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    return images, (images[..., 0] > 128).astype(np.uint8) + (images[..., 1] > 200)


@every_loss
def test_fit_learns_by_it_and_a_compiled_model_is_read_again(name, tmp_path):
    images, masks = bright_slices()
    model = scorer()
    model.compile(keras.optimizers.Adam(0.1), loss=LOSSES[name](background=False))
    first = float(model.loss(masks, model(images)))
    told = model.fit(images, masks, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert told[0] == pytest.approx(first, abs=1e-5)
    assert told[-1] < told[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is LOSSES[name]
    assert again.loss.get_config() == model.loss.get_config()
    expected = model.evaluate(images, masks, batch_size=4, verbose=0)
    assert again.evaluate(images, masks, batch_size=4, verbose=0) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(float(model.loss(masks, model(images))), abs=1e-5)


@every_loss
def test_mixed_precision_computes_the_loss_in_float32(name):
    images, masks = bright_slices()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = scorer()
        model.compile("adam", loss=LOSSES[name]())
        told = model.fit(images, masks, verbose=0).history["loss"][0]
    finally:
        keras.config.set_dtype_policy(before)
    assert model.loss(masks, model(images)).dtype == tf.float32
    flat = np.full((*masks.shape, 3), 1 / 3, np.float32)  # what the first step saw
    assert told == pytest.approx(float(model.loss(masks, flat)), rel=2e-3)


def test_settings_go_through_serialisation():
    loss = losses.FocalTversky(False, 0.4, 0.6, gamma=2.0, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(TRUTH, PROBABILITIES)) == float(loss(TRUTH, PROBABILITIES))


def test_mirrored_strategy_on_one_device_learns_the_same():
    images, masks = bright_slices()
    weights = []
    for devices in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        with devices.scope():
            model = scorer()
            model.compile(keras.optimizers.SGD(0.5), loss=losses.SoftDice())
        model.fit(images, masks, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert np.abs(weights[0]).max() > 0.01


TWO = """
import json
import knee3d.training
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from knee3d.losses import SoftDice
from knee3d.metrics import Dice
from test_losses import bright_slices, scorer

images, masks = bright_slices()
found = []
for names in (["CPU:0"], ["CPU:0", "CPU:1"]):
    with tf.distribute.MirroredStrategy(names).scope():
        model = scorer()
        model.compile(keras.optimizers.SGD(0.5), loss=SoftDice(), metrics=[Dice(3)])
    told = model.fit(images, masks, batch_size=4, epochs=3, shuffle=False, verbose=0).history
    found.append([told["loss"], told["dice"], model.get_weights()[0].ravel().tolist()])
print(json.dumps(found))
"""


@pytest.mark.nightly  # training/test_interrupted_training.py trains on two devices in the stage before
def test_two_devices_learn_what_one_would(request):
    """By Keras' own fit; each device has half of a batch, and the loss is that of the whole."""
    done = subprocess.run([sys.executable, "-c", TWO], capture_output=True, text=True, cwd=request.path.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = json.loads(done.stdout.splitlines()[-1])
    for part, other in zip(one, two, strict=True):
        np.testing.assert_allclose(other, part, atol=1e-5)
