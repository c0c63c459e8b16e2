"""Records and arguments that were damaged on purpose: each ends in one clear refusal, and nothing is taken silently."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_models import made_up_card, make_models

import knee3d
from knee3d.dataset.case_collection import CASES_FILE
from knee3d.geometry.volume import Volume
from knee3d.inference.trained_models import load_models
from knee3d.labels.label_scheme import SCHEMES
from knee3d.models.fusion_file import FusionRecord
from knee3d.models.known_patients import InheritedPatients
from knee3d.models.model_card import CARD, NamesBySplit
from knee3d.models.model_folder import trained_views
from knee3d.phantom.cohort import CohortConfig
from knee3d.records import Record, parse_json
from knee3d.training.config import TrainConfig

LABELS = Volume(np.pad(np.ones((4, 4, 4), np.uint8), 4), np.diag([0.5, 0.5, 0.5, 1]))
SPACING = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version": 1, "version": 2}', "'version' is there twice"),
        ('{"version": 1, "x": NaN}', "NaN is no number"),
        ('{"version": 1, "x": 1e999}', "too large"),
        ('{"version": 1, "x": -Infinity}', "-Infinity is no number"),
    ],
)
def test_json_that_is_not_defined_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@pytest.mark.parametrize("wrong", ["", "0" * 15, "0" * 17, "A" * 16, "z" * 16, "0" * 16 + "\n"])
def test_damaged_hashes_of_patients_are_refused(wrong):
    with pytest.raises(ValueError, match="damaged"):
        InheritedPatients("key", (wrong,), ())
    with pytest.raises(ValueError, match="damaged"):
        InheritedPatients("", (), ())


@pytest.mark.parametrize(
    "changes",
    [
        {"volumes_mm3": {"cartilage": [-1, 5]}}, {"volumes_mm3": {"cartilage": [9, 5]}}, {"border_mm2": {"x": -1}},
        {"inter_view_dice": -5}, {"predictive_entropy": 2},
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_is_refused(changes):
    reference = {"volumes_mm3": {}, "border_mm2": {}, "inter_view_dice": None, "predictive_entropy": None} | changes
    fusion = {
        "version": 1, "weights": {"axial": 1.0}, "rule": "linear", "thresholds": None, "objective": "foreground",
        "dice": {}, "intervals": {}, "fitted_on": {"split": "val", "cases": []}, "reference": reference, "networks": {},
    }  # fmt: skip
    with pytest.raises(ValueError, match="reference: "):
        FusionRecord.from_json(json.dumps(fusion))


@pytest.mark.slow
def test_the_card_of_another_training_and_a_lost_card_are_refused(tmp_path):
    models = make_models(tmp_path / "models", SPACING)
    path = models / "axial" / CARD
    card = made_up_card("axial", SPACING, "cartilage")
    replace(card, patients=NamesBySplit(("P1",), ())).write(path)
    with pytest.raises(ValueError, match="of different trainings"):
        load_models(models, fused=False)
    path.unlink()
    with pytest.raises(ValueError, match=r"holds a network without its card\.json"):
        trained_views(models)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 1.5), ("xla", "no"), ("loss_background", "no"), ("batch_size", True), ("learning_rate", "fast"),
     ("limit_slices", 2.5), ("init", 5), ("seed", None)],
)  # fmt: skip
def test_settings_of_another_type_are_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be of type"):
        TrainConfig().with_options(**{setting: value})


def test_whole_numbers_of_numpy_are_numbers():
    assert TrainConfig().with_options(epochs=np.int64(3), learning_rate=np.float32(0.5)).schedule.epochs == 3


def test_deeply_nested_settings_are_refused(tmp_path):
    (tmp_path / "train.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ValueError, match=r"train\.toml is not a file of training settings"):
        TrainConfig.from_toml(tmp_path / "train.toml")


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        (np.zeros((12, 12, 12)), "a last axis of 2 classes"),
        (np.zeros((12, 12, 12, 3)), "a last axis of 2 classes"),
        (np.full((12, 12, 12, 2), 7.0), "between 0 and 1"),
        (np.full((12, 12, 12, 2), np.nan), "between 0 and 1"),
        (np.zeros((5, 12, 12, 2)), "holds all tissue"),
    ],
)
def test_probabilities_that_are_none_are_refused(probabilities, words):
    with pytest.raises(ValueError, match=words):
        knee3d.measure(LABELS, scheme="cartilage", probabilities=Volume(probabilities, LABELS.affine))


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: knee3d.measure(LABELS.array, scheme="cartilage"),
        lambda folder: knee3d.measure(LABELS, scheme=None),
        lambda folder: knee3d.write(LABELS.array, folder / "knee.nii.gz"),
        lambda folder: knee3d.segment(["path"], folder),
        lambda folder: knee3d.segment([], folder, config=5),
        lambda folder: knee3d.prepare("knees.csv", folder, scheme=None),
        lambda folder: knee3d.prepare("knees.csv", folder, options=5),
    ],
)
def test_arguments_of_another_type_are_named(call, tmp_path):
    with pytest.raises(TypeError, match="must be of type"):
        call(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"letter": "../"}, {"letter": ""}, {"strength": float("nan")}, {"shape": (64, 64)}, {"strength": -1}]
)
def test_cohorts_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="not|needs"):
        CohortConfig(2, **wrong)


def test_a_scheme_whose_record_could_not_be_read_is_refused_before_any_work(tmp_path):
    own = replace(SCHEMES["cartilage"], name="My Scheme")
    with pytest.raises(ValueError, match="its name is"):
        knee3d.prepare(tmp_path / "knees.csv", tmp_path / "data", scheme=own)


@pytest.mark.slow
def test_datasets_that_were_changed_are_refused(balls, tmp_path):
    copy = tmp_path / "data"
    copy.mkdir()
    for place in balls.folder.iterdir():
        (copy / place.name).symlink_to(place) if place.is_dir() else (copy / place.name).write_bytes(place.read_bytes())
    data = knee3d.Dataset.load(copy)
    with pytest.raises(ValueError, match="training takes all knees"):
        knee3d.train(replace(data, cases=data.cases[:1]), tmp_path / "models")
    content = json.loads((copy / CASES_FILE).read_text())
    smallest = int(np.argmin(content["cases"][0]["shape"]))
    content["cases"][0]["shape"][smallest] -= 1
    (copy / CASES_FILE).write_text(json.dumps(content))
    damaged = knee3d.Dataset.load(copy)
    with pytest.raises(ValueError, match="are more than the"):
        damaged.image(damaged.cases[0])
    for changes in ({"affine": {}}, {"shape": [10**30] * 3}, {"source_axes": "RRR"}, {"name": "a\0b"}):
        content["cases"][0] |= changes
        (copy / CASES_FILE).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"cases\.json is not a readable case list"):
            knee3d.Dataset.load(copy)


def test_every_record_refuses_a_later_version_in_the_same_words(tmp_path):
    for kind in Record.__subclasses__():
        if Path(kind.__module__.replace(".", "/")).parts[0] == "knee3d":
            with pytest.raises(ValueError, match="upgrade knee3d"):
                kind.from_json('{"version": 99}')
