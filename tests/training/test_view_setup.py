"""Oblique slices and patches: what networks learn from is what they are asked about."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from knee3d.cli import main
from knee3d.dataset.case_collection import Split
from knee3d.geometry.directions import radial_rotations, sphere_rotations
from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import LINEAR, NEAREST, oblique_grid, resample
from knee3d.inference.oblique_view import ObliqueView
from knee3d.inference.patch_view import PatchView
from knee3d.inference.trained_models import load_models
from knee3d.models.fusion_file import fusion_files, fusion_path
from knee3d.models.model_folder import trained_networks
from knee3d.networks import architecture, unet3d_body
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice
from knee3d.training import config, input_pipeline, sample_index, sampler, slice_stack, view_setup

UNET3D = config.TrainConfig().with_options(network="unet3d")


def test_oblique_slices_are_those_that_the_view_cuts(balls):
    case, turn = balls.cases[0], sphere_rotations(6)[1]
    stack = slice_stack.ObliqueStack(balls, case, turn, 0.5)
    image, mask = stack.load()
    assert image.shape == mask.shape == stack.shape
    grid = oblique_grid(balls.image(case), turn, 0.5)
    grey = resample(balls.image(case), grid, LINEAR).array
    np.testing.assert_array_equal(np.moveaxis(image, 0, 2), np.rint(grey).astype(np.uint8))
    np.testing.assert_array_equal(np.moveaxis(mask, 0, 2), resample(balls.mask(case), grid, NEAREST).array)
    seen = []

    class Watcher:
        classes, context = 2, 0

        def __call__(self, slices):
            seen.append(slices[..., 0])
            return np.stack([np.ones(slices.shape[:3]), np.zeros(slices.shape[:3])], axis=-1).astype(np.float32)

    for _ in ObliqueView(turn, 0.5, Watcher()).parts(balls.image(case)):
        pass
    shown = {tuple(one.ravel()) for batch in seen for one in batch if one.shape == image.shape[1:]}
    assert shown
    assert shown <= {tuple(one.ravel()) for one in image}


@pytest.mark.parametrize("cache", [None, "memory", "files"])
def test_oblique_slices_stream(balls, tmp_path, cache):
    cases = balls.of_split(Split.TRAIN)
    view = view_setup.make_view_setup("oblique", config.TrainConfig().with_options(directions=2, context=0), cases)
    assert view.spacing_mm.tolist() == [0.4] * 3
    listed = sample_index.index_samples(view.stacks(balls, cases), view.sampler)
    assert len({stack.key for stack in listed.stacks}) == len(listed.stacks) == 4
    read = sample_index.volume_reader(listed.stacks, str(tmp_path) if cache == "files" else cache)
    batches = input_pipeline.validation_batches(listed, view.sampler, 1, read)
    found = [np.concatenate([image[..., 0], mask]) for image, mask, _ in batches.as_numpy_iterator()]
    expected = [pair for stack in listed.stacks for pair in np.moveaxis(stack.load(), 0, 1)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_directions_and_spacing_are_those_of_the_settings(balls):
    settings = config.TrainConfig().with_options(spacing=0.7, spread="radial", directions=3)
    view = view_setup.make_view_setup("oblique", settings, balls.of_split(Split.TRAIN))
    np.testing.assert_array_equal(view.rotations, radial_rotations(3))
    assert view.spacing_mm.tolist() == [0.7] * 3


@pytest.mark.parametrize(
    ("name", "network", "said"),
    [
        ("oblique-2", "unet", "there is no view 'oblique-2'"),
        ("front", "unet", "there is no view 'front'"),
        ("volume", "unet", "--network unet takes any view but volume, not --plane volume"),
        (Plane.AXIAL.value, "unet3d", f"--network unet3d takes volume, not --plane {Plane.AXIAL.value}"),
    ],
)
def test_what_no_network_sees_is_refused(balls, name, network, said):
    with pytest.raises(ValueError, match=said):
        view_setup.make_view_setup(
            name, config.TrainConfig().with_options(network=network), balls.of_split(Split.TRAIN)
        )


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("volume", {"network": "unet3d", "patch": (8, 8, 7)}, "a patch has 8 voxels or more each way"),
        ("oblique", {"spacing": 1e-7}, "0.05 to 10.0 mm"),
        ("oblique", {"spacing": 1e9}, "0.05 to 10.0 mm"),
    ],
)
def test_what_is_too_small_or_too_large_to_be_meant_is_refused(balls, name, settings, said):
    with pytest.raises(ValueError, match=said):
        view_setup.make_view_setup(name, config.TrainConfig().with_options(**settings), balls.of_split(Split.TRAIN))


def test_patches_too_small_for_half_precision_are_refused(balls):
    small = config.TrainConfig().with_options(network="unet3d", patch=(16, 16, 16), precision="mixed_bfloat16")
    with pytest.raises(ValueError, match="too small for mixed_bfloat16.*--precision float32"):
        view_setup.make_view_setup("volume", small, balls.of_split(Split.TRAIN))


def test_a_patch_is_no_larger_than_knees_need(balls):
    view = view_setup.make_view_setup("volume", UNET3D, balls.of_split(Split.TRAIN))
    assert view.sampler.patch == (24, 24, 16)
    given = config.TrainConfig().with_options(network="unet3d", patch=(8, 8, 8))
    assert view_setup.make_view_setup("volume", given, balls.of_split(Split.TRAIN)).sampler.patch == (8, 8, 8)


@pytest.mark.parametrize("shape", [(9, 6, 7), (3, 3, 12)])
def test_tiles_show_every_voxel_and_nothing_beyond_unless_the_knee_is_smaller(shape):
    patches, count = sampler.PatchSampler((4, 3, 5)), math.prod(shape)
    numbers = tf.reshape(tf.range(1, count + 1), shape)
    shown = [
        patches.cut(numbers, numbers, tf.constant(place, tf.int32))[0].numpy() for place in patches.positions(shape)
    ]
    assert {one.shape for one in shown} == {(4, 3, 5)}
    assert set(np.concatenate([one[one > 0] for one in shown]).tolist()) == set(range(1, count + 1))
    assert all(one.all() for one in shown) == (shape[0] >= 4)


def test_patches_of_training_lie_within_and_a_share_around_tissue():
    patches, shape = sampler.PatchSampler((4, 3, 5)), (30, 25, 40)
    mask = np.zeros(shape, np.uint8)
    mask[20:22, 10:12, 30:33] = 1
    mask = tf.constant(mask)
    places = tf.range(3000)
    for share, least, most in ((None, 0.3, 0.4), (0.8, 0.75, 0.9)):
        visits = patches.samples(places, mask, share, tf.constant([1, 2])).numpy()
        assert len(visits) == 3000
        begins = np.array(np.unravel_index(visits, shape))
        assert (begins >= 0).all()
        assert (begins.max(axis=1) == np.array(shape) - (4, 3, 5)).all()
        with_tissue = np.mean([patches.cut(mask, mask, place)[1].numpy().any() for place in visits[:500]])
        assert least < with_tissue < most
    again = patches.samples(places, mask, None, tf.constant([1, 2])).numpy()
    assert (again != visits).any()
    np.testing.assert_array_equal(again, patches.samples(places, mask, None, tf.constant([1, 2])))


def test_patches_without_tissue_are_anywhere():
    patches, empty = sampler.PatchSampler((4, 3, 5)), tf.zeros((6, 6, 6), tf.uint8)
    visits = patches.samples(tf.range(50), empty, 0.9, tf.constant([1, 2])).numpy()
    assert len(np.unique(visits)) > 5
    small = tf.zeros((2, 2, 2), tf.uint8)
    assert patches.samples(tf.range(5), small, None, tf.constant([1, 2])).numpy().tolist() == [0] * 5
    assert patches.cut(small, small, tf.constant(0))[0].shape == (4, 3, 5)


def tiny(classes, encoder):
    """A network that knows a ball by its brightness after a few steps."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Conv2D(classes, 1)(keras.layers.BatchNormalization()(image)))


@pytest.mark.nightly
def test_volume_and_oblique_networks_train_fuse_and_segment_as_planes_do(balls, tmp_path, monkeypatch):
    """From the command line: a network of patches, and one of two directions."""
    monkeypatch.setitem(architecture.NETWORKS, "unet", architecture.Architecture(tiny, 1))
    monkeypatch.setattr(unet3d_body, "FILTERS", (4, 4))
    models = tmp_path / "models"
    common = ["train", str(balls.folder), "--models", str(models), "--encoder-weights", "none", "--epochs", "8",
              "--batch-size", "4", "--learning-rate", "3e-2", "--augment", "none"]  # fmt: skip

    def run(*words):
        done = CliRunner().invoke(main, [*common, *words])
        assert done.exit_code == 0, done.output
        return done.output

    run("--network", "unet3d", "--patch", "16,16,16")
    run("--plane", "oblique", "--directions", "2", "--cache", str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 6
    assert sorted(path.name for path in models.iterdir()) == ["oblique", "volume"]
    assert trained_networks(models, (), 2) == trained_networks(models, (), 5) == ("volume", "oblique")
    trained = load_models(models, fused=False, oblique=2)
    kinds = {name: type(view) for name, view in trained.ensemble.views.items()}
    assert kinds == {"volume": PatchView, "oblique-1": ObliqueView, "oblique-2": ObliqueView}
    known = json.loads((models / "oblique" / "card.json").read_text())["rotations"]
    for number, turn in enumerate(sphere_rotations(2), start=1):
        np.testing.assert_array_equal(trained.ensemble.views[f"oblique-{number}"].turn, turn)
        np.testing.assert_array_equal(known[number - 1], turn)
    case = balls.cases[-1]
    opinion = trained.ensemble.predict(balls.image(case), "looking")
    assert dice(confusion_matrix(balls.mask(case).array, opinion.labels.array, 2))[1] > 0.5
    more = ["--models", str(models), "--views", "oblique:2"]
    fused = CliRunner().invoke(main, ["fuse", str(balls.folder), *more])
    assert fused.exit_code == 0, fused.output
    weights = load_models(models, oblique=2).ensemble.weights
    assert set(weights) == {"volume", "oblique-1", "oblique-2"}
    assert weights == json.loads(fusion_path(models, 2).read_text())["weights"]
    scored = CliRunner().invoke(main, ["evaluate", str(balls.folder), *more, "--out", str(tmp_path / "scores")])
    assert scored.exit_code == 0, scored.output
    assert all(name in scored.output for name in ("volume", "oblique-1", "oblique-2", "fused"))
    for count in (3, 4):  # behind both is the same network, and yet they are other views
        more[-1] = f"oblique:{count}"
        again = CliRunner().invoke(main, ["fuse", str(balls.folder), *more])
        assert again.exit_code == 0, again.output
        assert len(json.loads(fusion_path(models, count).read_text())["weights"]) == 1 + count
    assert fusion_files(models) == [fusion_path(models, count) for count in (2, 3, 4)]  # none replaced another
    page = CliRunner().invoke(main, ["card", str(models)])
    assert page.exit_code == 0, page.output
    written = (models / "CARD.md").read_text()
    assert "unet3d" in written
    assert written.count("oblique-2 0.") == 3


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--patch", "32,32,32"], "--patch"),
        (["--directions", "3"], "--directions"),
        (["--network", "unet3d", "--context", "2"], "--context"),
        (["--network", "unet3d", "--freeze-encoder-epochs", "2"], "--freeze-encoder-epochs"),
        (["--network", "unet3d", "--encoder-weights", "vgg.h5"], "--encoder-weights"),
    ],
)
def test_options_that_would_do_nothing_are_refused(balls, tmp_path, words, option):
    said = CliRunner().invoke(main, ["train", str(balls.folder), "--models", str(tmp_path / "models"), *words])
    assert said.exit_code == 1
    assert f"{option} is of" in said.output
    assert not (tmp_path / "models").exists()
