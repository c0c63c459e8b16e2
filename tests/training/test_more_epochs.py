"""What begins where another training ended: with its weights, or with more epochs; and one network for all planes."""

import json
import logging
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from made_up_models import made_up_card
from tiny_network import TINY

from knee3d import api
from knee3d.dataset.case_collection import Case, CaseCollection, Split
from knee3d.geometry.plane import Plane
from knee3d.inference.trained_models import load_models
from knee3d.labels.label_scheme import SCHEMES
from knee3d.models import model_card, saved_model
from knee3d.models.model_folder import trained_views
from knee3d.training import config, pretrained, shared_network, train_view, view_setup
from knee3d.training import training_folder as runs
from knee3d.training.build_network import network_with_first_weights

pytestmark = pytest.mark.slow
PLANE = Plane.SAGITTAL
SMALL = {
    "network": TINY, "encoder_weights": "none", "augment": "none", "limit_slices": 4, "batch_size": 4,
    "learning_rate": 1e-2,
}  # fmt: skip
RESUME = config.RunOptions(resume=True)


def settings(**others) -> config.TrainConfig:
    return config.TrainConfig().with_options(**{**SMALL, **others})


SHARED = settings(epochs=1, limit_slices=12)


def weights_of(folder) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


def dealt(dataset: CaseCollection, patients: str, splits: list[Split]) -> CaseCollection:
    """The same knees, as if of other patients, in other splits."""
    cases = [
        Case(**{**vars(case), "patient": f"{patients}{number}", "split": split})
        for number, (case, split) in enumerate(zip(dataset.cases, splits, strict=True))
    ]
    return CaseCollection(dataset.folder, dataset.scheme, tuple(cases))


@pytest.fixture(scope="module")
def two_epochs(balls, made_once):
    return made_once("two_epochs", lambda out: train_view.train_view(balls, PLANE, out, settings(epochs=2)))


@pytest.fixture(scope="module")
def shared(balls, made_once):
    """One network for all planes."""
    licensed = config.RunOptions(licence="CC-BY-4.0")
    return made_once("shared", lambda out: train_view.train_view(balls, "shared", out, SHARED, licensed))


def copied(models, out):
    shutil.copytree(models, out)
    return out


class Stops(keras.callbacks.Callback):
    """Interrupts the fourth epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


def test_more_epochs_are_as_if_all_had_been_asked_for_at_once(balls, two_epochs, tmp_path):
    """Also when they are interrupted."""
    train_view.train_view(balls, PLANE, tmp_path / "whole", settings(epochs=4))
    longer = copied(two_epochs, tmp_path / "longer")
    before = (longer / PLANE.value / "card.json").read_text()
    with pytest.raises(ValueError, match=r"was trained for 2 epochs; to add the others say --resume, .*resume=True"):
        train_view.train_view(balls, PLANE, longer, settings(epochs=4))
    assert (longer / PLANE.value / "card.json").read_text() == before
    with pytest.raises(KeyboardInterrupt):
        train_view.train_view(balls, PLANE, longer, settings(epochs=4), replace(RESUME, callbacks=(Stops(),)))
    assert model_card.load_card(longer, PLANE).epochs == 2  # the finished one stays in use
    folder = train_view.train_view(balls, PLANE, longer, settings(epochs=4), RESUME)
    whole = tmp_path / "whole" / PLANE.value
    assert (folder / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for one, other in zip(weights_of(folder), weights_of(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model_card.load_card(longer, PLANE).epochs == 4
    assert (folder / runs.LAST).is_file()  # for more
    with pytest.raises(ValueError, match=r"other settings \(epochs\)"):
        train_view.train_view(balls, PLANE, longer, settings(epochs=3), RESUME)


def test_more_epochs_keep_a_best_epoch_that_was_before(balls, two_epochs, tmp_path):
    """Its scores are made up, so that no later epoch can be better."""
    models = copied(two_epochs, tmp_path / "models")
    one = runs.TrainingFolder(models / PLANE.value)
    network = network_with_first_weights(2, settings(), None)
    history = runs.load_checkpoint(network, one.last)
    history[0]["val_dice"], history[1]["val_dice"] = 2.0, 0.0  # the first was the best, by far
    runs._save_checkpoint(network, history, one.last)
    expected = weights_of(one.folder)
    folder = train_view.train_view(balls, PLANE, models, settings(epochs=3), RESUME)
    assert model_card.load_card(models, PLANE).training_result.best_epoch == 1
    for weights, kept in zip(weights_of(folder), expected, strict=True):
        np.testing.assert_array_equal(weights, kept)


def test_without_the_last_epoch_it_is_said_how_to_go_on(balls, two_epochs, tmp_path):
    models = copied(two_epochs, tmp_path / "models")
    (models / PLANE.value / runs.LAST).unlink()
    train_view.train_view(balls, PLANE, models, settings(epochs=2))  # nothing else needs it
    with pytest.raises(ValueError, match=r"has no last_epoch.keras any more.*--overwrite, or give it as --init"):
        train_view.train_view(balls, PLANE, models, settings(epochs=4), RESUME)
    assert model_card.load_card(models, PLANE).epochs == 2


def test_a_network_begins_with_another_ones_weights_and_patients(balls, two_epochs, tmp_path):
    new = dealt(balls, "N", [Split.TRAIN, Split.VAL, Split.TEST, Split.TEST])
    model = network_with_first_weights(2, settings(), None)
    first = pretrained.find_pretrained(two_epochs, PLANE.value)
    pretrained.load_matching_layers(model, first, first.card.class_names)
    for one, other in zip(model.get_weights(), weights_of(two_epochs / PLANE.value), strict=True):
        np.testing.assert_array_equal(one, other)
    train_view.train_view(new, PLANE, tmp_path / "new", settings(epochs=1, init=str(two_epochs)))
    told = model_card.load_card(tmp_path / "new", PLANE)
    assert told.patients == model_card.NamesBySplit(("N0",), ("N1",))
    assert told.cases.train == ("ball0",)
    assert told.pretrained.plane == PLANE.value
    assert not [name for name in ("P0", "P1", "P2") if f'"{name}"' in told.to_json()]  # names stay where they were
    seen = load_models(tmp_path / "new").patients
    names = ("N0", "P0", "P1", "N1", "P2")
    assert [name in seen[Split.TRAIN] for name in names] == [True, True, True, False, False]
    assert [name in seen[Split.VAL] for name in names] == [False, False, False, True, True]
    assert [len(seen[Split.TRAIN]), len(seen[Split.VAL])] == [3, 2]
    train_view.train_view(
        new, PLANE, tmp_path / "new", settings(epochs=1, init=str(two_epochs / PLANE.value))
    )  # the same
    with pytest.raises(ValueError, match=r"other weights to begin with \(--init\)"):
        train_view.train_view(new, PLANE, tmp_path / "new", settings(epochs=1))
    # And one that begins with that one knows all of them.
    third = dealt(balls, "T", [Split.TRAIN, Split.VAL, Split.TEST, Split.TEST])
    card = replace(
        made_up_card(PLANE.value, (1, 1, 1), "cartilage"), patients=model_card.NamesBySplit(("T0",), ("T1",))
    )
    inherited = pretrained.inherit_patients(card, pretrained.find_pretrained(tmp_path / "new", PLANE.value), third)
    assert len(inherited.inherited) == 2
    assert all(name in inherited.known_patients(Split.TRAIN) for name in ("N0", "P0", "P1", "T0"))
    assert all(name in inherited.known_patients(Split.VAL) for name in ("N1", "P2", "T1"))


def test_other_classes_get_a_new_head(two_epochs, caplog):
    model = network_with_first_weights(SCHEMES["compartments"].classes, settings(), None)
    head = [one.copy() for one in model.get_weights()[-2:]]
    with caplog.at_level(logging.INFO):
        pretrained.load_matching_layers(
            model, pretrained.find_pretrained(two_epochs, PLANE.value), ["background", "a", "b", "c"]
        )
    for one, other in zip(model.get_weights()[:-2], weights_of(two_epochs / PLANE.value)[:-2], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(model.get_weights()[-2:], head, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "3 of 4 layers begin as those of" in caplog.text
    same_number = network_with_first_weights(2, settings(), None)
    head = [one.copy() for one in same_number.get_weights()[-2:]]
    first = pretrained.find_pretrained(two_epochs, PLANE.value)
    pretrained.load_matching_layers(same_number, first, ["background", "bone"])
    for one, other in zip(same_number.get_weights()[-2:], head, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "anew: score" in caplog.text


def test_a_dataset_without_test_patients_begins_with_another_network_too(balls, two_epochs, tmp_path):
    splits = dealt(balls, "P", [Split.TRAIN, Split.TRAIN, Split.VAL, Split.NONE])
    first = pretrained.find_pretrained(two_epochs, PLANE.value)
    card = pretrained.inherit_patients(made_up_card(PLANE.value, (1, 1, 1), "cartilage"), first, splits)
    assert card.pretrained == first.record


@pytest.mark.parametrize(("ema", "warned"), [(0.999, True), (0.1, False), (None, False)])
def test_a_running_average_that_holds_much_of_the_first_weights_is_warned_of(balls, tmp_path, caplog, ema, warned):
    train_view.train_view(balls, PLANE, tmp_path / "models", settings(epochs=3, ema=ema))
    assert ("still holds" in caplog.text) == warned


def test_a_beginning_that_flatters_or_is_none_is_refused(balls, two_epochs, tmp_path, caplog):
    swapped = dealt(balls, "P", [Split.VAL, Split.TRAIN, Split.TRAIN, Split.TEST])
    with pytest.raises(ValueError, match="patients P0 of the val split were trained on by the network in"):
        train_view.train_view(swapped, PLANE, tmp_path / "new", settings(epochs=1, init=str(two_epochs)))
    tested = dealt(balls, "P", [Split.TEST, Split.TRAIN, Split.VAL, Split.TEST])
    first = pretrained.find_pretrained(two_epochs, PLANE.value)
    pretrained.inherit_patients(made_up_card(PLANE.value, (1, 1, 1), "cartilage"), first, tested)
    assert "patients P0 of the test split were trained on" in caplog.text
    with pytest.raises(FileNotFoundError, match="holds no coronal network to begin with"):
        train_view.train_view(balls, Plane.CORONAL, tmp_path / "new", settings(epochs=1, init=str(two_epochs)))
    other = network_with_first_weights(
        2, config.TrainConfig().with_options(network="linknet", encoder="mobilenetv2"), None
    )
    with pytest.raises(ValueError, match="no layer of the network in .* fits this one"):
        pretrained.load_matching_layers(other, first, first.card.class_names)
    assert not (tmp_path / "new").exists()


def test_one_network_for_all_planes_fills_three_folders(balls, shared, tmp_path, caplog):
    models, wanted = copied(shared, tmp_path / "models"), SHARED
    assert trained_views(models) == [plane.value for plane in Plane]
    assert not (models / "shared" / "saved_model").exists()
    shown = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), np.uint8)
    answers = []
    for plane in Plane:
        told = model_card.load_card(models, plane)
        assert told.plane == plane.value
        assert told.one_network_for_all_planes
        loaded = saved_model.load_saved_model(models / plane.value / "saved_model")
        about = json.loads(loaded.about().numpy())
        assert about["plane"] == plane.value
        assert about["licence"] == "CC-BY-4.0"
        assert about["slice_axes"]["slices"] == {0: "inferior", 1: "posterior", 2: "left"}[plane.axis]
        answers.append(loaded.serve(shown).numpy())
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
    assert set(load_models(models).ensemble.views) == {plane.value for plane in Plane}
    # What an interruption has left out is made again, and nothing else.
    (models / Plane.AXIAL.value / "card.json").unlink()
    kept = (models / Plane.CORONAL.value / "card.json").stat().st_mtime_ns
    train_view.train_view(balls, "shared", models, wanted, options=config.RunOptions(licence="CC-BY-4.0"))
    assert (models / Plane.AXIAL.value / "card.json").is_file()
    assert (models / Plane.CORONAL.value / "card.json").stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="other planes that share a network"):
        train_view.train_view(balls, Plane.AXIAL, models, wanted)
    with caplog.at_level(logging.WARNING):
        train_view.train_view(balls, "shared", models, wanted, options=config.RunOptions(licence="MIT"))
    assert "the licence stays 'CC-BY-4.0'" in caplog.text
    page = api.write_model_card_page(models).read_text()
    assert "Licence: CC-BY-4.0" in page
    assert "One network for all planes" in page


def test_planes_with_networks_of_their_own_are_not_replaced_unasked(balls, two_epochs, tmp_path):
    models = copied(two_epochs, tmp_path / "models")
    with pytest.raises(ValueError, match="sagittal holds a model with other planes that share a network"):
        train_view.train_view(balls, "shared", models, settings(epochs=1, limit_slices=12))
    assert model_card.load_card(models, PLANE).epochs == 2


def test_shared_slices_are_those_of_all_planes(balls):
    view = view_setup.make_view_setup("shared", settings(), balls.of_split(Split.TRAIN))
    stacks = view.stacks(balls, balls.of_split(Split.TRAIN))
    assert len(stacks) == 3 * len(balls.of_split(Split.TRAIN))
    assert {stack.key.split("-")[1] for stack in stacks} == {plane.value for plane in Plane}
    assert shared_network.card_of_plane(made_up_card("shared", (1, 1, 1), "cartilage"), PLANE).plane == PLANE.value


def chain(classes: int, *more: keras.layers.Layer) -> keras.Model:
    """Some layers with names, some that Keras numbers; all kernels of one shape."""
    pixels = keras.Input((None, None, 3))
    told = keras.layers.Conv2D(3, 1, name="first")(pixels)
    for layer in more:
        told = layer(told)
    return keras.Model(pixels, keras.layers.Conv2D(classes, 1)(keras.layers.Conv2D(3, 1)(told)))


def test_layers_of_networks_that_are_built_otherwise_go_by_name_and_never_by_number(tmp_path, caplog):
    first = chain(3)
    place = tmp_path / "sagittal"
    place.mkdir()
    first.save(place / "model.keras")
    origin = pretrained.PretrainedNetwork(
        place, made_up_card("sagittal", (1, 1, 1), "cartilage", class_names=("background",))
    )
    keras.backend.clear_session()  # so that numbers begin anew, and another layer has that of the first network's
    other = chain(3, keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization())
    numbered = [layer.get_weights()[0] for layer in other.layers if layer.name.startswith("conv2d")]
    with caplog.at_level(logging.INFO):
        pretrained.load_matching_layers(other, origin, ["background"])
    assert "1 of 5 layers begin as those of" in caplog.text
    np.testing.assert_array_equal(other.get_layer("first").get_weights()[0], first.get_layer("first").get_weights()[0])
    for before, layer in zip(numbered, [one for one in other.layers if one.name.startswith("conv2d")], strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], before)


@pytest.mark.nightly
def test_more_epochs_after_early_stopping_lose_nothing(balls, tmp_path):
    """A rate so low that nothing gets better: the training ends early again, at once."""
    stopping = {"learning_rate": 1e-12, "stop_patience": 1}
    first = train_view.train_view(balls, PLANE, tmp_path / "models", settings(epochs=4, **stopping))
    metrics = (first / "metrics.csv").read_text()
    assert len(metrics.splitlines()) < 5
    again = train_view.train_view(balls, PLANE, tmp_path / "models", settings(epochs=8, **stopping), RESUME)
    assert (again / "metrics.csv").read_text() == metrics
    assert model_card.load_card(tmp_path / "models", PLANE).epochs == 8


@pytest.mark.nightly
def test_more_epochs_where_a_kill_has_left_the_last_checkpoint_untidied(balls, two_epochs, tmp_path):
    models = copied(two_epochs, tmp_path / "models")
    place = models / PLANE.value
    (place / "checkpoints").mkdir()
    (place / runs.LAST).rename(place / "checkpoints" / "epoch-0002.keras")
    told = json.loads((place / "card.json").read_text()) | {"licence": "CC0"}
    (place / "card.json").write_text(json.dumps(told))
    train_view.train_view(balls, PLANE, models, settings(epochs=3), RESUME)
    assert len((place / "metrics.csv").read_text().splitlines()) == 4
    assert model_card.load_card(models, PLANE).licence == "CC0"  # as it was said before


def test_planes_of_two_trainings_of_one_network_are_refused(balls, shared, tmp_path):
    models, wanted = copied(shared, tmp_path / "models"), SHARED
    path = models / Plane.AXIAL.value / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shared_network": "another"}))
    with pytest.raises(ValueError, match="of two trainings of one network for all planes.*--plane shared again"):
        load_models(models, fused=False)
    shutil.rmtree(models / Plane.CORONAL.value / "saved_model")
    train_view.train_view(balls, "shared", models, wanted)  # mends both
    load_models(models, fused=False)
    under_way = models / f"{PLANE.value}.training" / "checkpoints"
    under_way.mkdir(parents=True)
    (under_way / "epoch-0001.keras").write_bytes(b"")
    with pytest.raises(ValueError, match="sagittal.training holds an interrupted training of a network of its own"):
        train_view.train_view(balls, "shared", models, settings(epochs=2, limit_slices=12), RESUME)
