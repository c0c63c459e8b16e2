"""The demo, smaller than life: every stage, its outputs, and the second run that has nothing left to do."""

import json

import pytest

from knee3d import demo
from knee3d.anatomy.plane import Plane


@pytest.mark.slow
def test_the_demo_ends_with_scores_and_pictures(tmp_path, monkeypatch, caplog):
    pytest.importorskip("knee3d.learn")
    monkeypatch.setenv("KNEE3D_ENCODER_WEIGHTS", str(tmp_path / "nowhere.h5"))
    monkeypatch.setattr(demo, "KNEES", 5)
    monkeypatch.setattr(demo, "FOLLOWED", 1)
    monkeypatch.setattr(demo, "SHAPE", (32, 32, 32))
    monkeypatch.setattr(demo, "TRAINING", demo.TRAINING | {"epochs": 1, "limit_slices": 16})
    summary = demo.demo(tmp_path / "demo", "imagenet", seed=0, jobs=2)
    assert "the demo goes on from random weights" in caplog.text
    scores = json.loads((tmp_path / "demo" / "evaluation" / "scores.json").read_text())
    assert scores == summary
    for view in [*[scores["planes"][plane.value] for plane in Plane], scores["fused"]]:
        assert set(view["dice"]) >= {"femoral cartilage", "foreground"}
    for name in ("evaluation/confusion.png", "evaluation/scores.csv"):
        assert (tmp_path / "demo" / name).is_file()
    knees = [path.parent for path in (tmp_path / "demo" / "segmentation").glob("*/segmentation.json")]
    assert len(knees) == 2 * 1 + 1
    for knee in knees:
        assert (knee / "labels.nii.gz").is_file()
        assert (knee / "overview.png").is_file()
        assert (knee / "report" / "report.html").is_file()
    for name in ("segmentation/index.html", "reproducibility/bland-altman.pdf", "change/compare.csv"):
        assert (tmp_path / "demo" / name).is_file()
    caplog.clear()
    with caplog.at_level("INFO", "knee3d"):
        assert demo.demo(tmp_path / "demo", "imagenet", seed=0, jobs=2) == summary
    assert caplog.text.count("already trained with these settings") == len(Plane)
