"""The name "starter" stands for the networks that come with knee3d, unpacked once into the user's cache."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_models import write_network

import knee3d
from knee3d.models import starter
from knee3d.models.model_card import load_card
from knee3d.models.packed_models import pack_models
from knee3d.models.packed_record import PACKED
from knee3d.models.starter import cache_folder, is_starter, models_folder, packed_starter
from knee3d.training.pretrained import find_pretrained

SPACING = (0.36, 0.36, 0.7)
OWN = {plane: (0.55, 0.55, 1.4) for plane in ("axial", "coronal", "sagittal")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Networks of a thousand weights, packed."""
    import keras

    slices = keras.Input((None, None, 3), dtype="uint8")
    found = keras.layers.Conv2D(8, 3, padding="same")(keras.layers.Rescaling(1 / 255)(slices))
    model = keras.Model(slices, keras.layers.Conv2D(2, 1, activation="softmax")(found))
    models = tmp_path_factory.mktemp("models")
    for plane in OWN:
        write_network(model, models / plane, SPACING, "cartilage", model_spacing_mm=OWN)
        model.save(models / plane / "model.keras")
        if plane != "axial":
            shutil.copy(models / "axial" / "model.keras", models / plane)
    out = tmp_path_factory.mktemp("packed") / "starter"
    pack_models(models, out)
    return out


@pytest.fixture
def with_starter(packed, tmp_path, monkeypatch) -> Path:
    """An installation that has these networks, and an empty cache."""
    monkeypatch.setattr(starter, "packed_starter", lambda: packed)
    monkeypatch.setenv("KNEE3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return packed


def test_other_names_are_paths():
    assert models_folder("models") == Path("models")
    assert models_folder(Path("a/starter")) == Path("a/starter")


@pytest.mark.slow
def test_the_networks_are_unpacked_once_and_used_like_any_others(with_starter, tmp_path):
    folder = models_folder("starter")
    assert is_starter(folder)
    assert folder.parent == tmp_path / "cache"
    written = (folder / "axial" / "model.keras").stat().st_mtime_ns
    model = knee3d.KneeModel.load("starter")
    assert model.folder == folder
    assert model.view_names == ("axial", "coronal", "sagittal")
    assert (folder / "axial" / "model.keras").stat().st_mtime_ns == written
    assert find_pretrained("starter", "axial").folder == folder / "axial"
    with pytest.raises(ValueError, match="the same for everybody; to fit others, copy"):
        model.fit_fusion(tmp_path)


@pytest.mark.slow
def test_one_network_for_all_planes_is_found_in_the_folder_of_a_plane(with_starter, tmp_path):
    models = shutil.copytree(models_folder("starter"), tmp_path / "models")
    with pytest.raises(FileNotFoundError, match="holds no shared network"):
        find_pretrained(models, "shared")
    for plane in OWN:
        replace(load_card(models, plane), one_network_for_all_planes=True).write(models / plane / "card.json")
    assert find_pretrained(models, "shared").folder == models / "axial"


def test_a_folder_of_this_name_is_refused_as_it_could_be_meant(with_starter, tmp_path):
    (tmp_path / "starter").mkdir()
    with pytest.raises(ValueError, match="is here, too; name that by its whole path"):
        models_folder("starter")
    assert models_folder(tmp_path / "starter") == tmp_path / "starter"


def test_a_damaged_record_is_said_and_leaves_no_folder(with_starter, tmp_path, monkeypatch):
    damaged = shutil.copytree(with_starter, tmp_path / "damaged")
    (damaged / PACKED).write_text("{")
    monkeypatch.setattr(starter, "packed_starter", lambda: damaged)
    with pytest.raises(ValueError, match="packed.json is damaged .*; install knee3d again"):
        models_folder("starter")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(with_starter, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KNEE3D_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set KNEE3D_CACHE to another folder"):
        models_folder("starter")


def test_the_cache_is_the_users_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("KNEE3D_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "knee3d"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "knee3d"


def test_an_installation_without_the_networks_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(knee3d, "__file__", str(tmp_path / "site" / "knee3d" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="has no starter networks; name a folder of networks"):
        packed_starter()
