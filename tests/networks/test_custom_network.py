"""Networks of users: by function, by name, by file; and what they are told where something is wrong with theirs."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from knee3d.models import saved_model
from knee3d.models.model_card import load_card
from knee3d.networks import architecture, custom_network
from knee3d.networks.encoder import NO_ENCODER
from knee3d.training import train_view
from knee3d.training.config import RunOptions, TrainConfig

pytestmark = pytest.mark.slow
README = Path(__file__).parents[2] / "README.md"
SMALL = {"encoder_weights": "none", "augment": "none", "epochs": 1, "limit_slices": 4}
FILE = """
import keras


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, values):
        return 2 * values


def small(classes):
    pixels = keras.Input((None, None, 3))
    fine = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, Doubled()(keras.layers.Conv2D(classes, 1)(fine)))
"""


def small(classes):
    """What a user writes."""
    pixels = keras.Input((None, None, 3))
    fine = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Conv2D(classes, 1)(fine))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of a user's in the working folder."""
    (tmp_path / "my_networks.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    custom_network.import_network_function.cache_clear()
    return tmp_path / "my_networks.py"


@pytest.mark.parametrize(
    "choice", ["my_networks:small", pytest.param("my_networks.py:small", marks=pytest.mark.nightly)]
)
def test_a_network_by_name_is_trained_and_its_savedmodel_needs_no_file(file, balls, tmp_path, choice):
    folder = train_view.train_view(
        balls, "axial", tmp_path / "models", TrainConfig().with_options(network=choice, **SMALL)
    )
    card = load_card(tmp_path / "models", "axial")
    assert card.settings["network"] == choice
    assert card.settings["encoder"] == NO_ENCODER
    assert card.whole_slices_only  # nobody knows what it looks at
    file.unlink()
    del sys.modules["my_networks"]
    loaded = saved_model.load_saved_model(folder / "saved_model")
    answer = loaded.serve(np.zeros((1, 33, 40, 3), np.uint8)).numpy()
    assert answer.shape == (1, 33, 40, 2)
    np.testing.assert_allclose(answer.sum(axis=-1), 1, atol=1e-6)


def test_a_function_and_an_architecture_are_taken_too():
    config = TrainConfig().with_options(network=small)
    assert config.settings["network"] == f"{__name__}:small"
    model = architecture.build_network(config.network.network, 3, context=2)
    assert model(np.zeros((2, 20, 50, 5), np.uint8)).shape == (2, 20, 50, 3)
    part = architecture.Architecture(lambda classes, encoder: small(classes), 4, (NO_ENCODER,))
    assert not architecture.find_architecture(
        TrainConfig().with_options(network=part).network.network
    ).whole_slices_only
    assert TrainConfig().with_options(network=architecture.NETWORKS["fcn"]).settings["network"] == "fcn"


def of(*layers):
    """A function that builds a chain of layers, whatever the number of classes."""
    return lambda classes: keras.Sequential([keras.Input((None, None, 3)), *layers])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda classes: "no", "is a str; it must be a keras.Model"),
        (of(keras.layers.Conv2D(3, 1, strides=2)), r"answers \(1, 32, 64, 3\) with \(1, 16, 32, 3\)"),
        (of(keras.layers.Conv2D(2, 1)), r"with \(1, 32, 64, 2\)"),
        (of(keras.layers.Conv2D(3, 1), keras.layers.Softmax()), "ends in a softmax"),
        (of(keras.layers.Conv2D(3, 1, activation="softmax")), "ends in a softmax"),
        (of(keras.Sequential([keras.layers.Conv2D(3, 1, activation="softmax")])), "ends in a softmax"),
        (of(keras.layers.Conv2D(3, 1), keras.layers.Lambda(lambda x: x)), "has a Lambda layer"),
        (of(keras.layers.ReLU()), "has nothing to learn"),
        (lambda: None, "cannot be built: TypeError"),
        (lambda classes: 1 / 0, "cannot be built: ZeroDivisionError"),
        (
            lambda classes: keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 1)]),
            r"takes \(None, 32, 32, 3\)",
        ),
        (
            lambda classes: keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1)]),
            r"takes \(None, None, None, 1\)",
        ),
    ],
)
def test_what_is_no_network_of_slices_is_refused_before_training(body, reason):
    with pytest.raises(ValueError, match=reason):
        architecture.build_network(body, 3)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("unnet", "unknown network 'unnet'; there are: unet, .*; your own is module:function"),
        ("no_such_module:small", "no_such_module, for the network .* cannot be imported"),
        ("no_such_file.py:small", "no_such_file.py, for the network .* cannot be imported"),
        ("my_networks:", "names no function"),
        (":small", "names no function"),
        ("my_networks:large", "my_networks has no large"),
        ("my_networks:keras", "is no function that builds a network"),
    ],
)
def test_names_that_lead_nowhere_are_refused(file, choice, reason):
    with pytest.raises(ValueError, match=reason):
        TrainConfig().with_options(network=choice)


def test_the_example_of_the_readme_runs(balls, tmp_path, monkeypatch):
    """On other knees."""
    text = README.read_text().partition("## Training\n")[2]
    example = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "oai").symlink_to(balls.folder)
    exec(compile(example, str(README), "exec"), {"__name__": "example"})
    told = load_card(tmp_path / "models", "sagittal")
    assert told.settings["network"] == "example:small"
    assert told.settings["optimizer"]["name"] == "Lion"
    assert told.licence == "CC-BY-4.0"
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_a_function_that_was_changed_is_noticed(file, balls, tmp_path):
    """Its name is the same, as in a notebook whose cell is run again."""
    models, wanted = tmp_path / "models", TrainConfig().with_options(network="my_networks.py:small", **SMALL)
    train_view.train_view(balls, "axial", models, wanted)
    train_view.train_view(balls, "axial", models, wanted)  # left alone
    elsewhere = tmp_path / "another folder"
    elsewhere.mkdir()
    (elsewhere / "my_networks.py").write_text(FILE)
    train_view.train_view(
        balls, "axial", models, TrainConfig().with_options(network=f"{elsewhere}/my_networks.py:small", **SMALL)
    )
    file.write_text(FILE.replace("relu", "tanh"))
    custom_network.import_network_function.cache_clear()
    for more in ({}, {"epochs": 2}):
        changed = TrainConfig().with_options(network="my_networks.py:small", **{**SMALL, **more})
        with pytest.raises(ValueError, match="layers of the network, whose function has changed"):
            train_view.train_view(balls, "axial", models, changed, RunOptions(resume=True))


def test_structures_differ_by_layers_and_connections_and_not_by_names():
    told = custom_network.structure_fingerprint(architecture.build_network(small, 3))
    assert (
        custom_network.structure_fingerprint(architecture.build_network(small, 3)) == told
    )  # Keras has given other numbers
    assert custom_network.structure_fingerprint(architecture.build_network(small, 4)) != told

    def skipping(classes):
        model = small(classes)
        return keras.Model(model.input, keras.layers.Conv2D(classes, 1)(model.layers[1].output))

    def other(classes):
        pixels = keras.Input((None, None, 3))
        fine = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(keras.layers.Rescaling(1 / 255)(pixels))
        return keras.Model(pixels, keras.layers.Conv2D(classes, 1)(fine))

    assert (
        len(
            {
                told,
                *(
                    custom_network.structure_fingerprint(architecture.build_network(one, 3))
                    for one in (skipping, other)
                ),
            }
        )
        == 3
    )


def test_a_network_or_a_callback_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="is no function that builds a network from the number of classes"):
        TrainConfig().with_options(network=small(3))
    with pytest.raises(ValueError, match=r"callbacks are of keras.callbacks.Callback, not 'x'"):
        RunOptions(callbacks=("x",))
    with pytest.raises(ValueError, match="--freeze-encoder-epochs is of .*small has none"):
        TrainConfig().with_options(network=small, freeze_encoder_epochs=1)
    assert TrainConfig().with_options(network=small).network.encoder_weights == "none"
