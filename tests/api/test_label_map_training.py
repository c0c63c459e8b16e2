"""Knees to learn from are made from label maps alone: of six protocols, with the splits that training needs."""

import numpy as np
import pytest
from tiny_network import TINY

from knee3d.api import label_map_training
from knee3d.api.data import make_phantom
from knee3d.api.label_map_training import (
    PROTOCOLS,
    SETTINGS,
    label_map_settings,
    make_training_knees,
    train_from_labels,
)
from knee3d.cli import main
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import mirror_left_right
from knee3d.io.image_source import read_image
from knee3d.io.volume_file import write_volume
from knee3d.models.model_card import load_card
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.training.config import TrainConfig


def test_protocols_share_all_knees_and_have_names_of_their_own():
    assert sum(one.share for one in PROTOCOLS) == pytest.approx(1)
    assert len({one.letter for one in PROTOCOLS}) == len({one.name for one in PROTOCOLS}) == len(PROTOCOLS)
    shown = {one.name: one.help for one in main.commands["train-from-labels"].params if one.name in SETTINGS}
    assert len(shown) == 4
    assert all(words.endswith(f"[{SETTINGS[name]}].") for name, words in shown.items())
    assert TrainConfig().with_options(**SETTINGS).sampling.spacing == SETTINGS["spacing"]


@pytest.mark.slow
def test_knees_of_all_protocols_are_in_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(label_map_training, "FIELD_OF_VIEW_MM", (120.0, 120.0, 120.0))
    write_volume(parametric_knee((120, 112, 100), 9), tmp_path / "expert.nrrd")
    protocols = [
        label_map_training.Protocol(one.letter, tuple(3 * mm for mm in one.voxel_mm), 0.3) for one in PROTOCOLS[:2]
    ]
    monkeypatch.setattr(label_map_training, "PROTOCOLS", tuple(protocols))
    monkeypatch.setattr(label_map_training, "VALIDATION", label_map_training.Protocol("V", (2.0, 2.0, 2.0), 1.0))
    monkeypatch.setattr(label_map_training, "VALIDATION_KNEES", 1)
    table = make_training_knees([tmp_path / "expert.nrrd"], tmp_path / "out", knees=4, jobs=2)
    knees = read_manifest(table)
    assert [knee.split for knee in knees] == [Split.TRAIN] * 4 + [Split.VAL] * 2
    assert len({knee.patient for knee in knees}) == 3
    first = read_image(knees[0].image)
    np.testing.assert_allclose(sorted(first.spacing_mm), sorted(protocols[0].voxel_mm), rtol=1e-3)
    assert make_training_knees([tmp_path / "expert.nrrd"], tmp_path / "out", knees=4, jobs=2) == table


@pytest.mark.slow
def test_a_label_map_of_a_left_knee_is_refused_with_its_name(tmp_path):
    write_volume(mirror_left_right(parametric_knee((40, 36, 32), 9)), tmp_path / "left.nrrd")
    with pytest.raises(ValueError, match="left.nrrd is a left knee: its medial and lateral labels lie so"):
        make_phantom(tmp_path / "cohort", knees=2, from_labels=[tmp_path / "left.nrrd"])
    assert not (tmp_path / "cohort").exists()


@pytest.mark.slow
def test_a_model_comes_from_label_maps_alone_and_a_second_call_does_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr(label_map_training, "FIELD_OF_VIEW_MM", (70.0, 80.0, 70.0))
    monkeypatch.setattr(label_map_training, "PROTOCOLS", (label_map_training.Protocol("A", (3.0, 3.0, 4.0), 1.0),))
    monkeypatch.setattr(label_map_training, "VALIDATION", label_map_training.Protocol("V", (3.0, 3.0, 3.0), 1.0))
    monkeypatch.setattr(label_map_training, "VALIDATION_KNEES", 1)
    write_volume(parametric_knee((60, 60, 48), 9), tmp_path / "expert.nrrd")
    config = label_map_settings(
        network=TINY, epochs=1, limit_slices=24, encoder_weights="none", spacing="3,4", precision="float32", ema=0.5
    )
    words = {"knees": 2, "config": config, "jobs": 2, "licence": "MIT"}
    model = train_from_labels([tmp_path / "expert.nrrd"], tmp_path / "out", **words)
    assert model.folder == tmp_path / "out" / "models"
    assert model.scheme.name == "knee"
    card = load_card(model.folder, "axial")
    assert card.licence == "MIT"
    assert "no real image" in card.population
    assert (model.folder / "fusion.json").is_file()
    written = {path: path.stat().st_mtime_ns for path in (model.folder / "axial").rglob("*") if path.is_file()}
    again = train_from_labels([tmp_path / "expert.nrrd"], tmp_path / "out", **words)
    assert {path: path.stat().st_mtime_ns for path in (again.folder / "axial").rglob("*") if path.is_file()} == written


def test_too_few_knees_and_no_label_map_are_refused(tmp_path):
    with pytest.raises(ValueError, match="take at least 12 knees"):
        make_training_knees([tmp_path / "a.nrrd"], tmp_path / "out", knees=3)
    with pytest.raises(ValueError, match="there is no label map"):
        make_training_knees([], tmp_path / "out", knees=12)
