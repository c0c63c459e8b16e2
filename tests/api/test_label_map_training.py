"""Knees to learn from are made from label maps alone: of six protocols, with the splits that training needs."""

import numpy as np
import pytest

from knee3d.api import label_map_training
from knee3d.api.label_map_training import PROTOCOLS, SETTINGS, make_training_knees
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import read_manifest
from knee3d.io.image_source import read_image
from knee3d.io.volume_file import write_volume
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.training.config import TrainConfig


def test_protocols_share_all_knees_and_have_names_of_their_own():
    assert sum(one.share for one in PROTOCOLS) == pytest.approx(1)
    assert len({one.letter for one in PROTOCOLS}) == len({one.name for one in PROTOCOLS}) == len(PROTOCOLS)
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


def test_too_few_knees_and_no_label_map_are_refused(tmp_path):
    with pytest.raises(ValueError, match="take at least 12 knees"):
        make_training_knees([tmp_path / "a.nrrd"], tmp_path / "out", knees=3)
    with pytest.raises(ValueError, match="there is no label map"):
        make_training_knees([], tmp_path / "out", knees=12)
