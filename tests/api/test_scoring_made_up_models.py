"""Fusing and scoring with networks that were made in a second: what is said of what does not fit."""

import json
import shutil

import pytest
from made_up_models import change_card, make_models

from knee3d import api
from knee3d.dataset.case_collection import Split
from knee3d.geometry.plane import Plane
from knee3d.inference.trained_models import load_models
from knee3d.models.fusion_file import fusion_path

PLAIN = {"surfaces": False, "pictures": False}


@pytest.fixture(scope="module")
def made(balls, made_once):
    spacing = balls.cases[0].spacing_mm.tolist()
    return made_once("scoring", lambda out: make_models(out, tuple(spacing), brightness=120))


@pytest.fixture
def models(made, tmp_path):
    """A test's own copy."""
    return shutil.copytree(made, tmp_path / "models")


@pytest.fixture(scope="module")
def fitted(balls, made, made_once):
    def fit(out):
        shutil.copytree(made, out, dirs_exist_ok=True)
        api.KneeModel(out).fit_fusion(balls.folder)

    return made_once("scoring-fitted", fit)


def test_voxels_of_another_size_are_warned_of_and_written_down(balls, models, tmp_path, caplog):
    for card in models.glob("*/card.json"):
        twice = (2 * balls.cases[0].spacing_mm).tolist()
        change_card(card, spacing_mm=twice)
    found = api.KneeModel(models).evaluate(api.Dataset.load(balls.folder).test, tmp_path / "out", **PLAIN)
    (case,) = balls.of_split(Split.TEST)
    assert "anatomy of another size" in found.other_voxels[case.name]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["other_voxels"] == found.other_voxels
    assert f"{case.name}: voxels of" in caplog.text
    caplog.clear()
    api.KneeModel(models).fit_fusion(balls.folder)
    assert f"{balls.of_split(Split.VAL)[0].name}: voxels of" in caplog.text


def test_pictures_are_drawn_unless_not_wanted(balls, models, tmp_path, monkeypatch):
    monkeypatch.setattr("knee3d.report.overview_figure.overview_figure", lambda *args: args[3].write_bytes(b""))
    (tmp_path / "drawn" / "overview").mkdir(parents=True)
    assert (
        api.KneeModel(models).evaluate(api.Dataset.load(balls.folder).test, tmp_path / "plain", **PLAIN).other_voxels
        == {}
    )
    assert not (tmp_path / "plain" / "overview").exists()
    api.KneeModel(models).evaluate(api.Dataset.load(balls.folder).test, tmp_path / "drawn", surfaces=False)
    assert len(list((tmp_path / "drawn" / "overview").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "foo"}, "fusion.json does not fit the networks: .*foo"),
        ({"weights": dict.fromkeys(map(str, Plane), [1 / 3] * 4)}, "weights for .4. classes, the networks 2"),
        ({"weights": {"oblique-1": 0.5, **dict.fromkeys(map(str, Plane), 0.5 / 3)}}, "but the networks are for"),
    ],
)
def test_weights_that_do_not_fit_name_their_file(fitted, tmp_path, change, words):
    models = shutil.copytree(fitted, tmp_path / "models")
    path = fusion_path(models, 0)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        load_models(models)


def test_evidence_that_is_none_is_one_clear_line(balls, models):
    (models / "fusion.evidence").write_text("")
    with pytest.raises(ValueError, match="is a file, where fuse keeps a folder"):
        api.KneeModel(models).fit_fusion(balls.folder)
    (models / "fusion.evidence").unlink()
    api.KneeModel(models).fit_fusion(balls.folder)
    (models / "fusion.evidence" / "masks.json").write_text("[]")
    with pytest.raises(ValueError, match=r"masks\.json is damaged"):
        api.KneeModel(models).fit_fusion(balls.folder)


def test_weights_cut_off_are_one_clear_line(models):
    data = next((models / Plane.AXIAL.value / "saved_model" / "variables").glob("variables.data*"))
    data.write_bytes(data.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is not a readable SavedModel"):
        load_models(models)
