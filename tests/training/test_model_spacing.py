"""The voxels of a model: chosen for training, kept by the card, and used when segmenting."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_network import TINY

from knee3d.cli import main
from knee3d.dataset.case_collection import Split
from knee3d.geometry.plane import Plane
from knee3d.inference.resampled_view import ResampledView
from knee3d.inference.trained_models import load_models
from knee3d.models.model_card import load_card
from knee3d.models.model_folder import network_fingerprint
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.training import fit
from knee3d.training.config import RunOptions, SamplingConfig, TrainConfig
from knee3d.training.model_spacing import model_spacings
from knee3d.training.pretrained import find_pretrained
from knee3d.training.slice_stack import PlaneStack, ResampledStack
from knee3d.training.train_view import _planned, _warn_of_other_voxels, train_view
from knee3d.training.view_setup import make_view_setup

ONE = np.array([[0.36, 0.36, 0.7], [0.37, 0.36, 0.7]])
MIXED = np.array([[0.36, 0.36, 0.7], [0.31, 0.31, 1.5], [0.55, 0.55, 3.0]])


@pytest.mark.parametrize(
    ("choice", "spacings", "expected"),
    [
        (None, ONE, None),
        ("native", MIXED, None),
        (None, MIXED, (0.36, 0.36, 1.5)),
        ("auto", ONE, (0.365, 0.36, 0.7)),
        ("0.6", ONE, (0.6, 0.6, 0.6)),
        ("0.55,1.4", ONE, (0.55, 1.4, 0.55)),
        ("0.5,0.4,1.2", ONE, (0.5, 0.4, 1.2)),
    ],
)
def test_the_voxels_of_a_coronal_network(choice, spacings, expected):
    found = model_spacings(choice, [Plane.CORONAL], spacings)
    assert found == ({} if expected is None else {"coronal": expected})


def test_each_plane_has_a_grid_of_its_own():
    found = model_spacings("0.55,1.4", list(Plane), ONE)
    assert {name: size.index(1.4) for name, size in found.items()} == {plane.value: plane.axis for plane in Plane}
    assert model_spacings("0.8", (), ONE) == {"volume": (0.8, 0.8, 0.8)}
    with pytest.raises(ValueError, match="no slices"):
        model_spacings("0.55,1.4", (), ONE)


@pytest.mark.parametrize("wrong", ["", "wide", "0", "-1", "0.5,", "1,2,3,4", "nan", "11", "0.01"])
def test_what_is_no_size_is_refused(wrong):
    with pytest.raises(ValueError, match="--spacing is auto, native, or one to three sizes"):
        SamplingConfig(spacing=wrong)


def test_voxels_much_finer_than_the_scans_are_refused():
    assert model_spacings("0.15,0.7", [Plane.SAGITTAL], ONE) == {"sagittal": (0.15, 0.15, 0.7)}
    with pytest.raises(ValueError, match="a knee has 736 times as many voxels as its scan"):
        model_spacings("0.05", [Plane.SAGITTAL], ONE)


def test_native_voxels_of_several_sizes_are_warned_of(caplog):
    assert model_spacings("native", [Plane.AXIAL], MIXED) == {}
    assert "--spacing native does not resample them" in caplog.text
    caplog.clear()
    assert model_spacings("native", [Plane.AXIAL], ONE) == {}
    assert not caplog.text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0.5, "0.5"),
        ((0.55, 1.4), "0.55,1.4"),
        ((2.5, 4), "2.5,4"),
        (" 2.5, 4.0", "2.5,4"),
        (np.array([0.5, 0.5, 1.0]), "0.5,0.5,1"),
        ("auto", "auto"),
        (None, None),
    ],
)
def test_numbers_become_text_and_come_back_from_toml(given, kept, tmp_path):
    config = TrainConfig().with_options(spacing=given)
    assert config.sampling.spacing == kept
    (tmp_path / "train.toml").write_text(config.to_toml())
    assert TrainConfig.from_toml(tmp_path / "train.toml") == config


def test_stacks_of_other_voxels_are_resampled_and_others_are_read_as_they_are(balls):
    cases = balls.of_split(Split.TRAIN)
    own = tuple(cases[0].spacing_mm.tolist())
    native = make_view_setup("sagittal", TrainConfig(), cases)
    same = make_view_setup("sagittal", TrainConfig().with_options(spacing=own), cases)
    assert native.model_spacing_mm == {}
    assert all(isinstance(stack, PlaneStack) for one in (native, same) for stack in one.stacks(balls, cases))
    coarse = make_view_setup("sagittal", TrainConfig().with_options(spacing=(0.8, 1.4)), cases)
    for stack in coarse.stacks(balls, cases):
        assert isinstance(stack, ResampledStack)
        image, mask = stack.load()
        assert image.shape == mask.shape == stack.shape
        assert stack.voxel_mm == pytest.approx((1.4, 0.8, 0.8))
        assert set(np.unique(mask)) == {0, 1}
    assert len({stack.key for one in (native, coarse) for stack in one.stacks(balls, cases)}) == 2 * len(cases)


@pytest.mark.slow
def test_a_model_of_other_voxels_is_trained_and_segments_on_the_scanners_grid(balls, tmp_path):
    options = {"network": TINY, "encoder_weights": "none", "augment": "none", "epochs": 6, "learning_rate": 0.02}
    train_view(balls, "sagittal", tmp_path / "coarse", TrainConfig().with_options(**options, spacing=(0.7, 1.0)))
    card = load_card(tmp_path / "coarse", "sagittal")
    assert card.resampled_to == (0.7, 0.7, 1.0)
    about = json.loads((tmp_path / "coarse" / "sagittal" / "saved_model" / "assets.extra" / "knee3d.json").read_text())
    assert about["model_spacing_mm"] == [0.7, 0.7, 1.0]
    trained = load_models(tmp_path / "coarse", fused=False)
    (view,) = trained.ensemble.views.values()
    assert isinstance(view, ResampledView)
    case = balls.cases[-1]
    image = balls.image(case)
    found = trained.ensemble.predict(image, "looking")
    assert found.labels.same_grid(image)
    before = network_fingerprint(tmp_path / "coarse", "sagittal")
    path = tmp_path / "coarse" / "sagittal" / "card.json"
    path.write_text(path.read_text().replace("0.7", "0.8"))
    assert network_fingerprint(tmp_path / "coarse", "sagittal") != before
    with pytest.raises(ValueError, match="voxels of the network"):
        train_view(balls, "sagittal", tmp_path / "coarse", TrainConfig().with_options(**options, spacing=(0.7, 1.0)))


def test_networks_of_all_folds_get_the_same_voxels(balls):
    """Those of training and validation knees together decide: networks that are averaged must see alike."""
    voxels = dict(zip(("fine", "finer", "coarse"), ((0.5, 0.4, 0.7), (0.5, 0.4, 0.6), (1.0, 0.8, 1.4)), strict=True))
    cases = [
        replace(case, name=name, affine=case.affine @ np.diag([*(np.array(size) / case.spacing_mm), 1]))
        for case, (name, size) in zip(balls.cases, voxels.items(), strict=False)
    ]
    found = []
    for number in range(3):
        splits = [Split.VAL if place == number else Split.TRAIN for place in range(3)]
        fold = replace(balls, cases=tuple(replace(one, split=of) for one, of in zip(cases, splits, strict=True)))
        found.append(_planned(fold, "sagittal", TrainConfig().with_options(network=TINY), RunOptions())[0])
    assert [one.model_spacing_mm for one in found] == [{"sagittal": (0.5, 0.4, 0.7)}] * 3
    assert all((one.spacing_mm == found[0].spacing_mm).all() for one in found)


def test_other_voxels_than_those_of_the_first_network_are_warned_of(balls, tmp_path, caplog):
    settings = {"network": TINY, "epochs": 1, "augment": "none", "encoder_weights": "none"}
    train_view(balls, Plane.SAGITTAL, tmp_path / "first", TrainConfig().with_options(spacing=(0.7, 1.0), **settings))
    for spacing, words in (
        (None, "shows it the voxels of the scans"),
        ((0.8, 1.0), "shows it voxels of 0.8 x 0.8 x 1"),
    ):
        caplog.clear()
        config = TrainConfig().with_options(init=str(tmp_path / "first"), spacing=spacing, **settings)
        pretrained = find_pretrained(tmp_path / "first", "sagittal")
        _warn_of_other_voxels("sagittal", new_card(balls, config), pretrained)
        assert f"has learned from voxels of 0.7 x 0.7 x 1 mm, and this training {words}" in caplog.text
    caplog.clear()
    _warn_of_other_voxels("sagittal", pretrained.card, pretrained)
    assert not caplog.text


def new_card(dataset, config):
    return _planned(dataset, "sagittal", replace(config, network=replace(config.network, init=None)), RunOptions())[1]


def test_a_tissue_that_no_validation_mask_shows_is_warned_of(caplog):
    matrix = np.array([[90, 0, 3], [0, 0, 0], [2, 0, 5]])
    knees = SimpleNamespace(of_each=lambda names: [OverlapScores(matrix, names)])
    task = SimpleNamespace(name="axial", scheme=SimpleNamespace(names=("femoral cartilage", "patellar cartilage")))
    fit._warn_of_missed(task, SimpleNamespace(knees=knees))
    assert "axial: no validation mask shows femoral cartilage" in caplog.text
    assert "patellar" not in caplog.text


def test_the_command_refuses_what_python_refuses(balls, tmp_path):
    said = CliRunner().invoke(main, ["train", str(balls.folder), "--models", str(tmp_path), "--spacing", "wide"])
    assert said.exit_code == 1
    assert "--spacing is auto, native, or one to three sizes" in said.output
