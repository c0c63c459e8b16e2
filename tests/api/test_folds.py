"""The networks of a cross-validation look at a knee together; fusion is fitted by those that have not seen a knee."""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_models import change_card, make_models

from knee3d import api
from knee3d.cli import main
from knee3d.dataset.case_collection import Split
from knee3d.geometry.plane import Plane
from knee3d.inference.trained_models import load_models, models_fingerprint
from knee3d.models.backend import load_model
from knee3d.models.known_patients import hash_patients
from knee3d.models.model_folder import network_fingerprint, network_folders, trained_views

TWO = (Plane.AXIAL, Plane.SAGITTAL)
DEALT = {1: {"train": ["P0", "P2"], "val": ["P1"]}, 2: {"train": ["P1"], "val": ["P0", "P2"]}}
"""Patients of each fold; P3 is tested."""


def tell_patients(folder: Path, patients: dict[str, list[str]], **more: object) -> None:
    for card in folder.glob("*/card.json"):
        change_card(card, patients=patients, **more)


@pytest.fixture(scope="module")
def cross(balls, made_once):
    """Two folds whose networks know another brightness."""

    def make(out: Path) -> None:
        for number, patients in DEALT.items():
            home = out / f"fold-{number}-of-2"
            make_models(home, tuple(balls.cases[0].spacing_mm), TWO, brightness=90.0 + 30 * number)
            tell_patients(home, patients)

    return made_once("cross", make)


@pytest.fixture
def folds(cross, tmp_path):
    shutil.copytree(cross, tmp_path / "cross")
    return tmp_path / "cross"


def test_their_probabilities_are_averaged(balls, folds):
    homes = network_folders(folds)
    assert [home.name for home in homes] == ["fold-1-of-2", "fold-2-of-2"]
    assert trained_views(folds) == [plane.value for plane in TWO]
    trained = load_models(folds, fused=False)
    assert [trained.patients[split].names for split in (Split.TRAIN, Split.VAL)] == [{"P0", "P1", "P2"}] * 2
    slices = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), np.uint8)
    for plane in TWO:
        alone = [load_model(home, plane)(slices) for home in homes]
        assert np.abs(alone[0] - alone[1]).max() > 0.1
        together = trained.planes[plane.value].predictor(slices)
        np.testing.assert_allclose(together, (alone[0] + alone[1]) / 2, atol=1e-6)


def test_each_knee_is_fitted_on_by_the_fold_that_has_not_seen_it(balls, folds, monkeypatch):
    looked = []
    opinion = type(load_models(folds, fused=False).ensemble).predict

    def watched(self, image, title, **options):
        looked.append((title, self))
        return opinion(self, image, title, **options)

    monkeypatch.setattr("knee3d.inference.ensemble.Ensemble.predict", watched)
    fusion = api.KneeModel(folds).fit_fusion(balls.folder)
    slices = np.full((1, 20, 24, 3), 135, np.uint8)  # between the two brightnesses
    for title, ensemble in looked:
        patient = next(case.patient for case in balls.cases if title.endswith(case.name))
        unseen = next(number for number, patients in DEALT.items() if patient in patients["val"])
        expected = load_model(folds / f"fold-{unseen}-of-2", TWO[0])(slices)
        np.testing.assert_array_equal(ensemble.views[TWO[0].value].predictor(slices), expected)
    assert len(looked) == 3
    written = json.loads((folds / "fusion.json").read_text())
    assert written["fitted_on"] == {"split": "train and val", "cases": ["ball1", "ball0", "ball2"]}
    assert written["networks"] == {plane.value: network_fingerprint(folds, plane.value) for plane in TWO}
    assert dict(load_models(folds).ensemble.weights) == dict(fusion.weights)


def test_segment_and_evaluate_take_the_folder(balls, folds, tmp_path):
    api.KneeModel(folds).fit_fusion(balls.folder)
    before = models_fingerprint(folds)
    command = [
        "evaluate",
        str(balls.folder),
        "--models",
        str(folds),
        "--out",
        str(tmp_path / "scores"),
        "--no-pictures",
    ]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 0, told.output
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert set(scores["weights"]) == {plane.value for plane in TWO}
    # A validation knee was trained on by the other fold.
    told = CliRunner().invoke(main, [*command, "--split", "val"])
    assert told.exit_code == 1
    assert "in the train split when the models, or those" in told.output
    # Another network in one fold is another ensemble.
    shutil.rmtree(folds / "fold-2-of-2" / TWO[0].value)
    make_models(folds / "fold-2-of-2", tuple(balls.cases[0].spacing_mm), TWO[:1], brightness=200.0)
    assert models_fingerprint(folds) != before


def test_folds_that_are_not_all_there_are_said(balls, folds, caplog):
    shutil.rmtree(folds / "fold-1-of-2" / TWO[1].value)
    with caplog.at_level(logging.WARNING):
        load_models(folds, fused=False)
    assert f"{TWO[1].value} is not trained in folds 1 of 2; the others are averaged" in caplog.text
    with pytest.raises(ValueError, match="sagittal is not trained in folds 1 of 2 of .*; train them first"):
        api.KneeModel(folds).fit_fusion(balls.folder)


def test_folds_that_do_not_go_together_are_refused(balls, folds):
    make_models(folds / "fold-1-of-3", tuple(balls.cases[0].spacing_mm), TWO[:1])
    with pytest.raises(ValueError, match="cross-validations of 2 and of 3 folds"):
        load_models(folds)
    shutil.rmtree(folds / "fold-1-of-3")
    card = folds / "fold-2-of-2" / TWO[0].value / "card.json"
    said = json.loads(card.read_text())
    card.write_text(json.dumps(said | {"settings": said["settings"] | {"context": 2}}))
    with pytest.raises(ValueError, match="differ in context and cannot be averaged"):
        load_models(folds)


def test_a_network_of_the_folder_itself_counts_before_folds(balls, folds):
    make_models(folds, tuple(balls.cases[0].spacing_mm), TWO[:1])
    assert network_folders(folds) == (folds,)
    assert trained_views(folds) == [TWO[0].value]


def test_what_needs_one_network_names_the_folds(folds, tmp_path):
    for command in (["card", str(folds)], ["export", str(folds), "--out", str(tmp_path / "out")]):
        told = CliRunner().invoke(main, command)
        assert told.exit_code == 1
        assert "holds the folds of a cross-validation; name one of them:" in told.output


def test_patients_of_a_network_before_the_folds_are_not_taken_for_theirs(balls, folds):
    """Each fold began with a network that was validated on P0, whom fold 1 was trained on."""
    for number, patients in DEALT.items():
        inherited = [asdict(hash_patients("the key", [], ["P0"]))]
        tell_patients(folds / f"fold-{number}-of-2", patients, inherited=inherited)
    api.KneeModel(folds).fit_fusion(balls.folder)
    assert json.loads((folds / "fusion.json").read_text())["fitted_on"]["cases"] == ["ball1", "ball0", "ball2"]


def test_knees_that_no_fold_was_validated_on_cannot_be_fitted_on(balls, folds):
    for home in network_folders(folds):
        tell_patients(home, {"train": ["Q0"], "val": ["Q1"]})
    with pytest.raises(ValueError, match="no knee that was given of .* is a validation knee of"):
        api.KneeModel(folds).fit_fusion(balls.folder)
