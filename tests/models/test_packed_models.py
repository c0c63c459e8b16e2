"""A models folder packed into small files and unpacked again says nearly the same, and is checked file by file."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from made_up_models import write_network

from knee3d.labels.label_scheme import SCHEMES
from knee3d.models import packed_models
from knee3d.models.keras_file import load_keras_file
from knee3d.models.model_card import load_card
from knee3d.models.packed_models import pack_models, round_weights, unpack_models
from knee3d.models.packed_record import PACKED
from knee3d.models.saved_model import check_model_folder, load_saved_model

SPACING = (0.36, 0.36, 0.7)
OWN = {plane: (0.55, 0.55, 1.4) for plane in ("axial", "coronal", "sagittal")}


def network(seed: int) -> keras.Model:
    """Layers of the kinds that networks here have, with weights that nobody trained."""
    keras.utils.set_random_seed(seed)
    slices = keras.Input((None, None, 3), dtype="uint8")
    found = keras.layers.Rescaling(1 / 255)(slices)
    found = keras.layers.Conv2D(32, 3, padding="same")(found)
    found = keras.layers.BatchNormalization()(found)
    found = keras.layers.Conv2DTranspose(16, 3, padding="same", activation="relu")(found)
    return keras.Model(slices, keras.layers.Conv2D(SCHEMES["cartilage"].classes, 1, activation="softmax")(found))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Axial and coronal have one network, sagittal another."""
    folder = tmp_path_factory.mktemp("models")
    for plane, seed in (("axial", 1), ("coronal", 1), ("sagittal", 2)):
        model = network(seed)
        write_network(model, folder / plane, SPACING, "cartilage", model_spacing_mm=OWN)
        model.save(folder / plane / "model.keras")
    shutil.copy(folder / "axial" / "model.keras", folder / "coronal")
    return folder


@pytest.fixture(scope="module")
def packed(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "models"
    pack_models(models, out)
    return out


@pytest.mark.slow
def test_networks_say_nearly_the_same_and_cards_the_same(models, packed, tmp_path):
    unpack_models(packed, tmp_path / "models")
    slices = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    for plane in ("axial", "coronal", "sagittal"):
        there, again = load_card(models, plane), load_card(tmp_path / "models", plane)
        assert again.model_spacing_mm == there.model_spacing_mm
        assert again.result.saved_model_differs_by < 1e-5
        check_model_folder(tmp_path / "models", plane, again)
        one, other = (load_saved_model(home / plane / "saved_model") for home in (models, tmp_path / "models"))
        expected, found = (np.asarray(loaded.serve(slices)) for loaded in (one, other))
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert not np.array_equal(found, expected)


@pytest.mark.slow
def test_the_same_network_is_packed_once(packed):
    assert json.loads((packed / PACKED).read_text())["networks"] == {
        "axial": "axial", "coronal": "axial", "sagittal": "sagittal",
    }  # fmt: skip
    assert not list((packed / "coronal").glob("weights-*"))


@pytest.mark.slow
def test_files_of_weights_have_a_largest_size(models, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_models, "FILE_BYTES", 2000)
    pack_models(models, tmp_path / "packed")
    assert len(list((tmp_path / "packed" / "axial").glob("weights-*.npz"))) > 2
    unpack_models(tmp_path / "packed", tmp_path / "models")
    there, again = (load_keras_file(home / "axial" / "model.keras") for home in (models, tmp_path / "models"))
    for one, other in zip(there.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=np.abs(one).max() / 253)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["axial/weights-1.npz", "axial/network.json", "sagittal/card.json"])
def test_a_file_that_is_damaged_or_missing_is_named(packed, tmp_path, name):
    for number, damage in enumerate((lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), Path.unlink)):
        home = tmp_path / str(number)
        shutil.copytree(packed, home)
        damage(home / name)
        with pytest.raises(ValueError, match=f"{name} is missing, or is not the file that was packed"):
            unpack_models(home, tmp_path / "models")
        assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_a_record_that_leads_elsewhere_is_refused(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "packed")
    content = json.loads((packed / PACKED).read_text())
    content["networks"] = {"../axial": "axial"}
    (tmp_path / "packed" / PACKED).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names a view '../axial' that is not in the folder"):
        unpack_models(tmp_path / "packed", tmp_path / "models")
    with pytest.raises(FileNotFoundError):
        unpack_models(tmp_path, tmp_path / "models")


def test_weights_are_off_by_half_a_scale_at_most_and_the_largest_is_127():
    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 5)) * [1, 10, 0.1, 1e-6, 0]
    whole, scale = round_weights(weights)
    assert whole.dtype == np.int8
    assert np.abs(whole[..., :4]).max(axis=(0, 1, 2)).tolist() == [127] * 4
    assert not whole[..., 4].any()
    assert (np.abs(whole * scale - weights) <= scale / 2 * 1.001).all()
