"""Model cards and fusion weights come back from their files, which are as their schemas say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from made_up_models import made_up_card

from knee3d.dataset.case_collection import Case, Split
from knee3d.dataset.intensity import IntensityWindow
from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.labels.scheme_files import scheme_from_json
from knee3d.models.fusion_file import FusionRecord, load_fusion, save_fusion
from knee3d.models.known_patients import hash_patients
from knee3d.models.model_card import (
    CARD,
    ModelCard,
    NamesBySplit,
    PretrainedRecord,
    load_card,
    saved_model_description,
)
from knee3d.postprocess.fusion_fit import Fusion
from knee3d.postprocess.quality import QualityReference

OWN = scheme_from_json({"name": "own", "tissues": [{"name": "femoral cartilage"}, {"name": "effusion"}]})
PLAIN = made_up_card("sagittal", (0.36, 0.36, 0.7), "compartments")
FULL = replace(
    made_up_card("oblique", (0.5, 0.5, 0.5), "cartilage"),
    scheme=OWN,
    class_names=("background", *OWN.names),
    patients=NamesBySplit(("P1", "P2"), ("P3",)),
    rotations=(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),),
    licence="CC0",
    population="OAI, Kellgren-Lawrence 0 to 3",
    pretrained=PretrainedRecord("sagittal", ("background", "bone"), "0123"),
    inherited=(hash_patients("0123", ["Q1"], ["Q2"]),),
)


@pytest.mark.parametrize("card", [PLAIN, FULL, replace(PLAIN, result=None)], ids=["plain", "full", "not finished"])
def test_a_card_comes_back_and_is_as_its_schema_says(card, tmp_path):
    card.write(tmp_path / card.plane / CARD)
    assert load_card(tmp_path, card.plane) == card
    schema = Draft202012Validator(ModelCard.json_schema())
    schema.validate(json.loads(card.to_json()))
    assert not schema.is_valid(json.loads(card.to_json()) | {"spacing_mm": [1, 1]})


def test_patients_of_networks_before_count_as_known():
    train, val = (FULL.known_patients(split) for split in (Split.TRAIN, Split.VAL))
    assert [name in train for name in ("P1", "Q1", "P3", "Q2")] == [True, True, False, False]
    assert [name in val for name in ("P1", "Q1", "P3", "Q2")] == [False, False, True, True]
    assert saved_model_description(FULL).trained_on.patients.train == 3


def test_what_is_not_known_yet_says_so():
    with pytest.raises(ValueError, match="has not ended"):
        _ = replace(PLAIN, result=None).training_result
    assert saved_model_description(replace(PLAIN, result=None)).scores == {}


def test_slices_of_planes_have_axes_and_others_have_none():
    assert saved_model_description(PLAIN).slice_axes is not None
    assert saved_model_description(FULL).slice_axes is None


def case(name: str) -> Case:
    window = IntensityWindow(0, 1)
    return Case(name, name, "", Side.RIGHT, Split.VAL, (1, 1, 1), np.eye(4), "IPL", window, True, "")


@pytest.mark.parametrize("weights", [{"axial": 0.25, "coronal": 0.75}, {"axial": [0.5, 0.25], "coronal": [0.5, 0.75]}])
def test_fusion_weights_come_back(weights, tmp_path):
    fusion = Fusion(weights, "linear", (0.5,), "foreground", 0.9, {"axial": 0.8, "coronal": np.nan}, 0.85, {})
    reference = QualityReference({"femoral cartilage": (1.0, 2.0)}, {"femoral cartilage": 3.0}, np.nan, 0.5)
    path = tmp_path / "fusion.json"
    save_fusion(fusion, [case("a"), case("b")], reference, {"axial": "0", "coronal": "1"}, path)
    Draft202012Validator(FusionRecord.json_schema()).validate(json.loads(path.read_text()))
    found = load_fusion(path)
    assert {view: np.array(weight).tolist() for view, weight in found.weights.items()} == weights
    assert (found.rule, found.thresholds, found.objective) == ("linear", (0.5,), "foreground")
    assert (found.fitted_on.split, found.fitted_on.cases) == ("val", ("a", "b"))
    assert found.quality_reference.volumes_mm3 == reference.volumes_mm3
    assert np.isnan(found.quality_reference.inter_view_dice)
    assert np.isnan(found.dice["coronal"])
    path.write_text(path.read_text().replace('"rule"', '"ruler"'))
    with pytest.raises(ValueError, match=r"fusion\.json is not a readable weight file \(rule: field required\)"):
        load_fusion(path)


@pytest.mark.parametrize("plane", list(Plane))
def test_the_description_says_where_slices_lie(plane):
    axes = saved_model_description(made_up_card(plane.value, (1, 1, 1), "cartilage")).slice_axes
    assert sorted((axes.slices, axes.height, axes.width)) == ["inferior", "left", "posterior"]
