"""The voxels of a model: chosen for training, kept by the card, and used when segmenting."""

import json

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
from knee3d.training.config import SamplingConfig, TrainConfig
from knee3d.training.model_spacing import check_model_spacings, model_spacings
from knee3d.training.slice_stack import PlaneStack, ResampledStack
from knee3d.training.train_view import train_view
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


@pytest.mark.parametrize("size", [(0.55, 0.55, 1.4), (0.36, 0.36, 0.7), (0.15, 0.15, 0.7), (3.0, 3.0, 3.0)])
def test_voxels_that_training_can_use_are_taken(size):
    check_model_spacings({"axial": size}, ONE[0])


def test_voxels_much_finer_than_the_scans_are_refused():
    with pytest.raises(ValueError, match="a knee has 726 times as many voxels as its scan"):
        check_model_spacings({"axial": (0.05, 0.05, 0.05)}, ONE[0])


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


def test_the_command_refuses_what_python_refuses(balls, tmp_path):
    said = CliRunner().invoke(main, ["train", str(balls.folder), "--models", str(tmp_path), "--spacing", "wide"])
    assert said.exit_code == 1
    assert "--spacing is auto, native, or one to three sizes" in said.output
