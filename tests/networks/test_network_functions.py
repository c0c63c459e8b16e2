"""Networks as functions: what a Keras user gets from `knee3d.networks`."""

import inspect
import pkgutil

import keras
import numpy as np
import pytest
import slim_networks
import tensorflow as tf
from tiny_network import TINY

from knee3d import losses, metrics, networks
from knee3d.networks import architecture
from knee3d.networks.encoder import EncoderWeightsError, encoder_model

NAMES = [name for name in architecture.NETWORKS if name != TINY]
FLAT = [name for name in NAMES if name != "unet3d"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    slim_networks.slim(monkeypatch.setattr)
    slim_networks.slim_library(monkeypatch.setattr)
    yield
    keras.utils.clear_session(free_memory=True)


def test_every_architecture_has_a_function_and_no_module_its_name():
    assert set(NAMES) | {"Architecture", "Augmentation", "AugmentationStrength"} == set(networks.__all__)
    assert all(inspect.isfunction(getattr(networks, name)) for name in NAMES)
    assert not {module.name for module in pkgutil.iter_modules(networks.__path__)} & set(networks.__all__)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ("unet", "segnet") else pytest.mark.nightly)
                                  for name in FLAT])  # fmt: skip
def test_raw_slices_of_any_size_in_and_probabilities_out(name):
    model = getattr(networks, name)(3, context=2, weights=None)
    assert model.input_shape == (None, None, None, 5)
    slices = np.random.default_rng(0).integers(0, 256, (1, 33, 50, 5), np.uint8)
    probabilities = np.asarray(model(slices))
    assert probabilities.shape == (1, 33, 50, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_patches_of_a_volume():
    model = networks.unet3d(3)
    probabilities = np.asarray(model(np.zeros((1, 10, 12, 9), np.uint8)))
    assert probabilities.shape == (1, 10, 12, 9, 3)
    assert probabilities.dtype == np.float32


def test_the_encoder_begins_with_weights_of_a_file(tmp_path):
    source = encoder_model("vgg16")
    source.save_weights(tmp_path / "vgg16.weights.h5")
    model = networks.unet(3, weights=tmp_path / "vgg16.weights.h5")
    first = next(layer for layer in model._flatten_layers() if layer.name == "block3_conv2")
    np.testing.assert_array_equal(first.get_weights()[0], source.get_layer("block3_conv2").get_weights()[0])


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(ValueError, match="segnet takes no encoder 'resnet34', only: vgg16, vgg19"):
        networks.segnet(3, encoder="resnet34")
    with pytest.raises(ValueError, match="classes must be at least 2"):
        networks.unet(1, weights=None)
    with pytest.raises(EncoderWeightsError, match=r"no\.h5 do not exist"):
        networks.unet(3, weights=tmp_path / "no.h5")
    encoder_model("resnet18").save_weights(tmp_path / "resnet18.weights.h5")
    with pytest.raises(ValueError, match="do not fit vgg16"):
        networks.unet(3, weights=str(tmp_path / "resnet18.weights.h5"))


@pytest.mark.parametrize("name", ["fcn", pytest.param("segnet", marks=pytest.mark.nightly)])
def test_the_parts_work_together_in_keras_fit(name, tmp_path):
    """As the design's example has them."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    masks = (images[..., 1] > 128).astype(np.uint8)
    slices = tf.data.Dataset.from_tensor_slices((images, masks)).batch(2)
    model = getattr(networks, name)(2, weights=None)
    model.compile("adam", loss=losses.SoftDice(), metrics=[metrics.Dice(2)])
    told = model.fit(
        slices.map(networks.Augmentation("light", seed=0)),
        validation_data=slices,
        epochs=2,
        shuffle=False,  # a dataset has its order already
        callbacks=[keras.callbacks.ReduceLROnPlateau()],
        verbose=0,
    ).history
    assert {"loss", "dice", "val_loss", "val_dice", "learning_rate"} <= set(told)
    assert np.isfinite(told["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)
    assert again.evaluate(slices, verbose=0) == pytest.approx(model.evaluate(slices, verbose=0), abs=1e-6)
