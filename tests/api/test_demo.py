"""The demo, smaller than life: every stage, its outputs, and the second run that has nothing left to do."""

import re

import pytest

from knee3d import demo
from knee3d.geometry.plane import Plane
from knee3d.labels.label_scheme import FEMORAL
from knee3d.morphometry.change import MeasurementChange, SmallestDetectableChange
from knee3d.morphometry.measurement import WHOLE
from knee3d.report.change import change_rows


@pytest.mark.nightly
def test_the_demo_ends_with_scores_and_pictures(tiny, tmp_path, monkeypatch, caplog):
    """With a small network: tests of networks train the demo's own, and export it."""
    monkeypatch.setenv("KNEE3D_ENCODER_WEIGHTS", str(tmp_path / "nowhere.h5"))
    monkeypatch.setattr(demo, "KNEES", 5)
    monkeypatch.setattr(demo, "FOLLOWED", 1)
    monkeypatch.setattr(demo, "SHAPE", (32, 32, 32))
    monkeypatch.setattr(demo, "TRAINING", demo.TRAINING | {"epochs": 1, "limit_slices": 16, "network": tiny})
    found, loss = demo.demo(tmp_path / "demo", "imagenet", seed=0, jobs=2)
    assert "training starts from random weights" in caplog.text
    assert re.match(r"[\d,]+ mm3 of femoral cartilage were taken away, [\d,]+ mm3 (less|more) are found", loss)
    assert "error of measurement is not known" in loss  # of one pair
    scores = (tmp_path / "demo" / "evaluation" / "scores.json").read_text()
    assert scores == found.to_json() + "\n"
    for view in (*(plane.value for plane in Plane), "fused"):
        assert set(found.pooled[view].dice) >= {"femoral cartilage", "foreground"}
    for name in ("evaluation/confusion.png", "evaluation/scores.csv"):
        assert (tmp_path / "demo" / name).is_file()
    knees = [path.parent for path in (tmp_path / "demo" / "segmentation").glob("*/segmentation.json")]
    assert {knee.name for knee in knees} == {"N001-baseline", "N001-follow-up", "N001-retest"}
    for knee in knees:
        assert (knee / "labels.nii.gz").is_file()
        assert (knee / "overview.png").is_file()
        assert (knee / "report" / "report.html").is_file()
    for name in ("segmentation/index.html", "repeatability/bland-altman.pdf", "change/compare.csv"):
        assert (tmp_path / "demo" / name).is_file()
    caplog.clear()
    with caplog.at_level("INFO", "knee3d"):
        again, same_loss = demo.demo(tmp_path / "demo", "imagenet", seed=0, jobs=2)
        assert (again.to_json(), same_loss) == (found.to_json(), loss)
    assert caplog.text.count("already trained with these settings") == len(Plane)


@pytest.mark.parametrize(
    ("change", "smallest", "words"),
    [
        (-831, 2712, "831 mm3 less are found; the smallest detectable change is 2,712 mm3 (95 %: 1,356 to 5,424): the "
                     "change cannot be told from error (within error)"),
        (-3000, 2712, "the change is told from error (beyond error, narrowly)"),
        (50, 2712, "50 mm3 more are found"),
        (-831, None, "and the error of measurement is not known"),
    ],
)  # fmt: skip
def test_the_loss_is_told_in_words(change, smallest, words):
    known = smallest is not None
    error = SmallestDetectableChange(smallest, smallest / 2, smallest * 2, 3) if known else None
    femoral = FEMORAL, WHOLE, "volume"
    rows = change_rows([MeasurementChange(femoral, 9000, 9000 + change)], {femoral: error} if known else None)
    told = demo._loss(1757.4, rows)
    assert told.startswith("1,757 mm3 of femoral cartilage were taken away, ")
    assert words in told
