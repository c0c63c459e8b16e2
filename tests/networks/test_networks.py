"""Every network of the table takes any slice, is the one of its paper, and goes the same way as the others."""

import json
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import slim_networks
import tensorflow as tf
from made_up_models import made_up_card
from tiny_network import TINY

from knee3d import choices, losses
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import SOLID
from knee3d.inference.trained_models import load_models
from knee3d.models import onnx_export, saved_model
from knee3d.models.model_card import saved_model_description
from knee3d.networks import architecture, unet3d_body
from knee3d.networks import encoder as encoders
from knee3d.networks.segmentation_models_bodies import segmentation_models
from knee3d.training import build_network, config, train_view
from knee3d.training import training_folder as runs
from knee3d.training.trainer import Trainer

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
CLASSES = 4
# A layer, and how many pixels a step of it is: the deepest, and for some the finest that is brought back.
STRIDES = {
    "unet": {"center_block2_conv": 32},
    "fcn": {"fc7": 32, "score_pool4": 16, "score_pool3": 8},
    "deconvnet": {"fc7": 32},
    "deeplab": {"aspp_rate18": 16, "low_level": 4},
    "segnet": {"block5_pool": 32},
    "pspnet": {"aggregation": 8},
    "fpn": {"fpn_stage_p5_conv": 16, "segm_stage2b_conv": 2},
    "linknet": {"decoder_stage0a_conv": 32},
    "unet3d": {"down4_conv2": 8, "up1_conv2": 1},
}


@pytest.fixture(autouse=True)
def forgotten():
    """Some of these networks take a gigabyte, which other tests need."""
    yield
    keras.utils.clear_session(free_memory=True)


@pytest.fixture
def narrow(monkeypatch):
    slim_networks.narrow(monkeypatch.setattr)


@pytest.fixture
def slim(monkeypatch):
    slim_networks.slim(monkeypatch.setattr)


@pytest.fixture
def slim_library(monkeypatch):
    slim_networks.slim_library(monkeypatch.setattr)


NAMES = [name for name in architecture.NETWORKS if name != TINY]
FLAT = [name for name in NAMES if not architecture.NETWORKS[name].solid]


def view_of(name: str) -> str:
    return SOLID if architecture.NETWORKS[name].solid else Plane.SAGITTAL.value


def seen_by(name: str, *size: int) -> np.ndarray:
    """Two slices between their neighbours, or two patches."""
    return noise(2, *size, 24 if architecture.NETWORKS[name].solid else 3)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_commands_offer_what_there_is():
    assert tuple(NAMES) == choices.NETWORKS
    assert tuple(encoders.ENCODERS) == choices.ENCODERS
    assert {name: one.encoders for name, one in architecture.NETWORKS.items() if name in NAMES} == dict(
        choices.NETWORK_ENCODERS
    )


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_slices_of_any_size_come_back_by_the_strides_of_the_paper_and_from_the_same_encoder(narrow, name, tmp_path):
    """In one test: a network takes seconds to be built."""
    model = architecture.build_network(name, CLASSES)
    any_size_comes_back(model, name)
    strides_are_those_of_the_paper(model, name)
    if name in FLAT:
        begins_with_the_encoder_of_all(model, name, tmp_path / "vgg16.weights.h5")


def any_size_comes_back(model, name):
    """Of no multiple of the stride, of one, and of a pixel; patches are smaller than slices, as each is 24 deep."""
    sizes = ((17, 30), (32, 24), (1, 1)) if architecture.NETWORKS[name].solid else ((33, 70), (96, 96), (1, 1))
    for size in sizes:
        shown = seen_by(name, *size)
        probabilities = np.asarray(model(shown))
        assert probabilities.shape == (*shown.shape[: 4 if architecture.NETWORKS[name].solid else 3], CLASSES)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def strides_are_those_of_the_paper(model, name):
    (body,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    size = architecture.NETWORKS[name].stride * 4
    shape = (1, *[size] * (len(body.input_shape) - 2), body.input_shape[-1])
    outputs = [body.get_layer(layer).output for layer in STRIDES[name]]
    inside = [output[0] if isinstance(output, (tuple, list)) else output for output in outputs]
    seen = keras.Model(body.input, inside)(np.zeros(shape, np.float32))
    for (layer, stride), one in zip(STRIDES[name].items(), seen, strict=True):
        assert set(one.shape[1:-1]) == {size // stride}, layer


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("fcn", 21, "134"),  # Long et al. 2015, Table 1: FCN-VGG16
        ("deconvnet", 21, "252"),  # Noh et al. 2015, section 3.1
        ("segnet", 11, "29"),  # Badrinarayanan et al. 2017, Table 6: a model of 117 MB of float32
    ],
)
@pytest.mark.nightly
def test_as_many_parameters_as_the_papers_say(name, classes, millions):
    body = architecture.NETWORKS[name].body(classes, "vgg16")
    ours = [layer for layer in body.layers if name == "fcn" and isinstance(layer, keras.layers.BatchNormalization)]
    count = body.count_params() - sum(layer.count_params() for layer in ours)
    assert f"{count / 1e6:.0f}" == millions
    if name == "segnet":
        assert round(count * 4 / 1e6) in (117, 118)


def test_unet3d_has_every_parameter_of_the_paper():
    """Çiçek et al. 2016, section 2.1: 19069955, of three channels and three classes, without normalisation."""
    body = unet3d_body.build_body(3, channels=3)
    inside = [layer for layer in body.layers if not isinstance(layer, keras.layers.GroupNormalization)]
    assert sum(layer.count_params() for layer in inside) == 19_069_955


def test_unet3d_says_the_same_in_training_and_after_it_whatever_else_is_in_the_batch():
    """Running statistics of few patches were so wrong after short trainings that nothing was found."""
    model = architecture.build_network("unet3d", CLASSES)
    patches = np.random.default_rng(0).integers(0, 256, (2, 32, 24, 16), dtype=np.uint8)
    both = np.asarray(model(patches, training=True))
    np.testing.assert_allclose(np.asarray(model(patches[:1], training=False)), both[:1], atol=1e-6)


def test_pspnet_is_the_librarys():
    theirs = segmentation_models.PSPNet(
        "vgg16", input_shape=(96, 96, 3), classes=CLASSES, activation="linear", encoder_weights=None
    )
    ours = architecture.NETWORKS["pspnet"].body(CLASSES, "vgg16")
    assert [weight.shape for weight in ours.weights] == [weight.shape for weight in theirs.weights]
    rng = np.random.default_rng(0)
    theirs.set_weights([rng.normal(0.1, 0.05, weight.shape) ** 2 for weight in theirs.weights])
    ours.set_weights(theirs.get_weights())
    pixels = rng.normal(0, 1, (2, 96, 96, 3)).astype(np.float32)
    expected = np.asarray(theirs(pixels))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(ours(pixels), expected, rtol=1e-3)


def begins_with_the_encoder_of_all(model, name, path):
    source = encoders.encoder_model("vgg16")
    source.save_weights(path)
    encoders.load_encoder(model, "vgg16", str(path))
    mine = {layer.name: layer for layer in model._flatten_layers()}
    shared = [layer for layer in source.layers if layer.weights and layer.name in mine]
    assert len(shared) == (10 if name == "pspnet" else 13)
    for layer in shared:
        for one, other in zip(mine[layer.name].get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    everything = {id(variable) for variable in model.trainable_variables}
    inside = {id(variable) for layer in shared for variable in mine[layer.name].trainable_variables}
    assert encoders.set_encoder_trainable(model, "vgg16", False)
    rest = {id(variable) for variable in model.trainable_variables}
    assert rest.isdisjoint(inside)
    assert rest | inside == everything


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no ImageNet weights under ../shared")
@pytest.mark.parametrize("name", ["segnet", "deeplab"])
def test_imagenet_weights_come_from_keras_file(name):
    model = build_network.network_with_first_weights(2, config.TrainConfig().with_options(network=name), str(WEIGHTS))
    expected = keras.applications.VGG16(include_top=False, weights=str(WEIGHTS)).get_layer("block3_conv2").get_weights()
    found = next(layer for layer in model._flatten_layers() if layer.name == "block3_conv2").get_weights()
    np.testing.assert_array_equal(found[0], expected[0])


def test_weights_of_another_encoder_are_refused(tmp_path):
    path = tmp_path / "resnet18.weights.h5"
    encoders.encoder_model("resnet18").save_weights(path)
    with pytest.raises(ValueError, match="do not fit vgg16"):
        build_network.network_with_first_weights(2, config.TrainConfig(), str(path))
    with pytest.raises(ValueError, match="segnet takes no encoder 'resnet18', only: vgg16, vgg19"):
        config.TrainConfig().with_options(network="segnet", encoder="resnet18")


@pytest.mark.parametrize("encoder", encoders.ENCODERS)
def test_each_encoder_sees_the_pixels_it_knows(encoder):
    grey = noise(2, 3, 4, 1).repeat(3, axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.array(segmentation_models.get_preprocessing(encoder)(grey.astype(np.float32)))
    found = encoders.scale_for_encoder(encoders.ENCODERS[encoder])(grey)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "encoder"),
    [("pspnet", "resnet18"), *(("unet", one) for one in ("vgg19", "resnet18", "mobilenetv2", "efficientnetb0"))],
)
def test_other_encoders_are_saved_and_exported(name, encoder, tmp_path):
    model = architecture.build_network(name, CLASSES, encoder=encoder)
    model.save(tmp_path / "model.keras")
    slices = noise(1, 40, 50, 3)
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(slices), model(slices), atol=1e-5)
    description = saved_model_description(made_up_card("axial", (0.5, 0.5, 0.5), "compartments"))
    assert saved_model.export_saved_model(model, tmp_path / "saved_model", description) < saved_model.PARITY


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "segnet" else pytest.mark.nightly)
                                  for name in NAMES])  # fmt: skip
def test_onnx_takes_every_network(slim, slim_library, name, tmp_path):
    for package in onnx_export.PACKAGES:
        pytest.importorskip(package, reason=f"{package} is an extra and is not installed")
    model = architecture.build_network(name, CLASSES)
    slices = seen_by(name, 33, 70)
    expected = np.asarray(model(slices))
    file = tmp_path / onnx_export.MODEL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model.export(str(file), format="onnx", verbose=False)
    np.testing.assert_allclose(onnx_export.load_onnx(file)(slices), expected, atol=onnx_export.ONNX_PARITY)


def settings_of(name: str, **others) -> config.TrainConfig:
    common = {"encoder_weights": "none", "batch_size": 4, "limit_slices": 4}
    common |= {"patch": (24, 24, 24)} if name == "unet3d" else {}
    return config.TrainConfig().with_options(network=name, **(common | others))


@pytest.mark.nightly  # the stage before has a tiny one, in tests/training, and fcn in test_network_functions.py
@pytest.mark.parametrize("name", NAMES)
def test_every_network_trains_and_segments(slim, balls, name, tmp_path, request):
    """The default in full size."""
    if name != config.TrainConfig().network:
        request.getfixturevalue("slim_library")
    settings = settings_of(name, epochs=1, precision="mixed_bfloat16", augment="light")
    train_view.train_view(balls, view_of(name), tmp_path, settings)
    card = json.loads((tmp_path / view_of(name) / "card.json").read_text())
    assert card["whole_slices_only"] == (name in ("deeplab", "pspnet"))
    case = balls.cases[-1]
    opinion = load_models(tmp_path, fused=False).ensemble.predict(balls.image(case), "looking")
    assert opinion.labels.shape == case.shape
    np.testing.assert_allclose(opinion.fused.array.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no ImageNet weights under ../shared")
def test_fcn_finds_tissue_under_adam_and_soft_dice(narrow):
    """Its streams differ in size by thousands; whichever was largest once called everything background for good."""
    settings = config.TrainConfig().with_options(network="fcn", encoder_weights=str(WEIGHTS), learning_rate=1e-3)
    model = build_network.network_with_first_weights(2, settings, str(WEIGHTS))
    trainer = Trainer(model, losses.SoftDice(), 1)
    rng = np.random.default_rng(0)
    rows, columns = np.indices((64, 64))
    for _ in range(25):
        centres = rng.integers(16, 48, (8, 2, 1, 1))
        masks = (np.hypot(rows - centres[:, 0], columns - centres[:, 1]) < 8).astype(np.uint8)
        slices = np.clip(60 + 120 * masks + rng.normal(0, 10, masks.shape), 0, 255).astype(np.uint8)
        batch = (slices[..., None].repeat(3, axis=-1), masks, np.zeros(8, np.int32), np.zeros((8, 1)))
        trainer.fit(tf.data.Dataset.from_tensors((batch, 0.0)), shuffle=False, verbose=0)
    found = np.asarray(model(slices[..., None].repeat(3, axis=-1), training=True))[..., 1]
    assert found[masks == 1].mean() > 0.5 > found[masks == 0].mean()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["unet", "fcn", "unet3d"])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    slim, slim_library, balls, name, tmp_path, monkeypatch
):
    """The default, one with dropout, and one of patches; they go on from what a kill after the first epoch leaves."""
    settings, view = settings_of(name, epochs=2, limit_slices=8), view_of(name)
    save = runs.TrainingFolder.save

    def save_and_copy(run, model, history):
        save(run, model, history)
        if len(history) == 1:
            shutil.copytree(run.folder, tmp_path / "killed" / run.folder.name)

    with monkeypatch.context() as patch:
        patch.setattr(runs.TrainingFolder, "save", save_and_copy)
        train_view.train_view(balls, view, tmp_path / "whole", settings)
    (folder,) = (tmp_path / "killed").iterdir()
    assert [path.name for path in runs.TrainingFolder(folder).checkpoints] == ["epoch-0001.keras"]
    train_view.train_view(balls, view, tmp_path / "killed", settings, config.RunOptions(resume=True))
    histories = [(tmp_path / one / view / "metrics.csv").read_text() for one in ("whole", "killed")]
    assert histories[0] == histories[1]  # of the second epoch, too, whichever was the best
    whole, killed = (keras.models.load_model(tmp_path / one / view / "model.keras") for one in ("whole", "killed"))
    for one, other in zip(whole.weights, killed.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.nightly
def test_indices_of_pooling_train_under_xla(slim, balls, tmp_path):
    train_view.train_view(balls, view_of("segnet"), tmp_path, settings_of("segnet", epochs=1, xla=True))
