"""Training ends in a SavedModel that others load, and a card that says where it comes from."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from made_up_models import made_up_card
from tensorboard.backend.event_processing import event_accumulator as events
from tiny_network import TINY

from knee3d import api
from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.dataset.split import Folds
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.inference.prediction import predict_volume, stack_neighbours
from knee3d.models import backend, saved_model
from knee3d.models import model_card as cards
from knee3d.models.model_folder import list_networks, trained_networks
from knee3d.networks import encoder
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix, dice
from knee3d.postprocess.decision import decide_labels
from knee3d.report.confusion_figure import confusion_figure
from knee3d.training import build_network, config, train_view
from knee3d.training import training_folder as runs

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
# A Python that has TensorFlow and nothing of knee3d; CI makes one, elsewhere the tests' own serves, isolated.
ELSEWHERE = os.environ.get("KNEE3D_TF_ONLY_PYTHON", sys.executable)
SMALL = {"network": TINY, "encoder_weights": "none", "augment": "none"}
CONFIG = config.TrainConfig().with_options(**SMALL, epochs=3, batch_size=4, learning_rate=1e-2)
PLANE = Plane.SAGITTAL

PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
with np.load(sys.argv[2]) as slices:
    np.savez(sys.argv[3], **{name: model.serve(tf.constant(slices[name])).numpy() for name in slices})
alien = {"knee3d", "segmentation_models"} & set(sys.modules)
assert not alien, alien
"""


@pytest.fixture(scope="module")
def models(balls, made_once) -> Path:
    def draw(scores: OverlapScores, path: Path) -> None:
        confusion_figure({"validation": scores}, path)

    return made_once(
        "models",
        lambda out: train_view.train_view(balls, PLANE, out, CONFIG, options=config.RunOptions(draw_confusion=draw)),
    )


@pytest.mark.slow
def test_it_learns_and_predicts_unseen_knees(balls, models):
    case = balls.of_split(Split.TEST)[0]
    predictor = backend.load_model(models, PLANE)
    probabilities = predict_volume(balls.image(case), PLANE, predictor)
    np.testing.assert_allclose(probabilities.array.sum(axis=-1), 1, atol=1e-5)
    matrix = confusion_matrix(balls.mask(case).array, decide_labels(probabilities).array, 2)
    assert dice(matrix)[1] > 0.5


@pytest.mark.slow
def test_the_card_and_the_logs_tell_the_story(balls, models):
    card = cards.load_card(models, PLANE)
    assert card.class_names == ("background", "cartilage")
    assert card.plane == PLANE.value
    assert card.cases == cards.NamesBySplit(("ball0", "ball1"), ("ball2",))
    assert card.patients.train == ("P0", "P1")
    assert card.spacing_mm == (0.5, 0.4, 0.7)
    assert 0 <= card.training_result.saved_model_differs_by < saved_model.PARITY
    inside = json.loads((models / PLANE.value / "saved_model" / saved_model.ASSET).read_text())
    said = {"class_names": list(card.class_names), "plane": PLANE.value, "scheme": "cartilage"}
    assert inside.items() >= said.items()
    assert not {"cases", "patients"} & set(inside)
    rows = (models / PLANE.value / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + CONFIG.schedule.epochs
    column = rows[0].split(",").index("val_dice")
    best = max(float(row.split(",")[column]) for row in rows[1:])
    assert card.training_result.scores["val_dice"] == pytest.approx(best)


@pytest.mark.slow
def test_the_cards_of_a_folder_make_a_page(models):
    card = cards.load_card(models, PLANE)
    page = api.write_model_card_page(models).read_text()
    assert (
        f"| {PLANE.value} | {card.training_result.best_epoch} of 3 | {card.training_result.scores['val_dice']:.4f}"
        in page
    )
    assert f"]({PLANE.value}/curves.png)" in page
    assert "| 2, 2, 26 | 1, 1, 12 |" in page
    assert "P0" not in page
    assert "ball0" not in page
    assert (models / PLANE.value / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (models / PLANE.value).iterdir()} < runs.FILES  # it may be replaced


def test_no_page_without_planes(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trained plane"):
        api.write_model_card_page(tmp_path)


@pytest.mark.slow
def test_tensorboard_has_every_page(models):
    found = events.EventAccumulator(str(models / PLANE.value / "logs"), {"tensors": 0})
    found.Reload()
    tags = set(found.Tags()["tensors"])
    assert {"loss", "dice", "val_loss", "val_dice", "learning_rate", "slices_per_s", "waited", "confusion"} <= tags
    assert {"validation Dice/cartilage", "validation IoU/cartilage", "pairs as trained on, truth to the right"} <= tags
    assert {"validation: image, truth, prediction/0", "worst cases of validation/0"} <= tags
    assert len(found.Tensors("val_dice")) == CONFIG.schedule.epochs
    assert found.Graph().node
    assert found.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


@pytest.mark.slow
def test_the_best_epoch_is_what_was_exported(balls, models):
    case = balls.of_split(Split.VAL)[0]
    labels = decide_labels(predict_volume(balls.image(case), PLANE, backend.load_model(models, PLANE)))
    measured = dice(confusion_matrix(balls.mask(case).array, labels.array, 2))[1]
    assert measured == pytest.approx(cards.load_card(models, PLANE).training_result.scores["val_dice"], abs=1e-3)


@pytest.mark.slow
def test_a_finished_plane_is_left_alone_and_another_one_protected(balls, models):
    model = models / PLANE.value / "saved_model" / "saved_model.pb"
    before = model.stat().st_mtime_ns
    train_view.train_view(balls, PLANE, models, CONFIG)
    assert model.stat().st_mtime_ns == before
    other = config.TrainConfig().with_options(**SMALL, epochs=1)
    with pytest.raises(ValueError, match="other settings.*--overwrite"):
        train_view.train_view(balls, PLANE, models, other)
    assert model.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_saved_model_runs_where_only_tensorflow_is(balls, models, tmp_path):
    """Slices of two sizes, in a process that cannot see knee3d, equal to the predictor."""
    predictor = backend.load_model(models, PLANE)
    slices = {
        case.name: stack_neighbours(to_slices(balls.image(case), PLANE), range(4), predictor.context)
        for case in balls.of_split(Split.TRAIN)
    }
    assert len({stack.shape for stack in slices.values()}) == 2
    np.savez(tmp_path / "slices.npz", **slices)
    command = [ELSEWHERE, "-I", "-c", PROGRAM, str(models / PLANE.value / "saved_model"), "slices.npz", "out.npz"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with np.load(tmp_path / "out.npz") as found:
        for name, stack in slices.items():
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], predictor(stack), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(
            {"context": 0, "precision": "mixed_bfloat16", "loss": "tversky", "cache": "memory"},
            marks=pytest.mark.nightly,
        ),
        {"context": 2, "precision": "mixed_float16", "schedule": "cosine", "warmup_epochs": 1},
        pytest.param(
            {"context": 1, "xla": True, "loss": "generalised-dice", "freeze_encoder_epochs": 1},
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["bfloat16", "float16", "xla"],
)
def test_other_contexts_and_other_arithmetic_learn_too(balls, tmp_path, choice):
    going = config.RunOptions(cache=choice.pop("cache", None))
    settings = config.TrainConfig().with_options(
        **SMALL, epochs=3, batch_size=4, learning_rate=1e-2, limit_slices=16, **choice
    )
    train_view.train_view(balls, PLANE, tmp_path, settings, going)
    losses = np.genfromtxt(tmp_path / PLANE.value / "metrics.csv", delimiter=",", names=True)["loss"]
    assert losses[-1] < 0.8 * losses[0]
    predictor = backend.load_model(tmp_path, PLANE)
    assert predictor.context == choice["context"]
    assert predictor(np.zeros((1, 40, 33, 2 * choice["context"] + 1), np.uint8)).shape == (1, 40, 33, 2)
    kept = keras.models.load_model(tmp_path / PLANE.value / "model.keras")
    assert {layer.compute_dtype for layer in kept._flatten_layers()} <= {"float32", "uint8"}


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="no ImageNet weights under ../shared")
def test_imagenet_weights_come_from_a_file(monkeypatch):
    monkeypatch.setenv(encoder.VARIABLE, str(WEIGHTS))
    model = build_network.network_with_first_weights(2, config.TrainConfig(), encoder.find_encoder_weights("imagenet"))
    kernels = {weight.path.split("/")[-2]: weight for weight in model.weights if weight.path.endswith("kernel")}
    import h5py

    with h5py.File(WEIGHTS) as file:
        stored = file["block5_conv3/block5_conv3_W_1:0"][:]
    np.testing.assert_array_equal(kernels["block5_conv3"], stored)


def test_weights_that_are_not_there_say_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.delenv(encoder.VARIABLE, raising=False)
    assert encoder.find_encoder_weights("none") is None
    with pytest.raises(encoder.EncoderWeightsError, match=r"nowhere\.h5 do not exist"):
        encoder.find_encoder_weights(str(tmp_path / "nowhere.h5"))

    def offline(**options: object) -> None:
        raise Exception("URL fetch failure")

    monkeypatch.setattr(encoder.keras.applications, "VGG16", offline)
    with pytest.raises(encoder.EncoderWeightsError, match="--encoder-weights FILE"):
        encoder.find_encoder_weights("imagenet")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", pytest.param("mask", marks=pytest.mark.nightly)])
def test_a_slice_that_cannot_be_read_is_named_and_costs_no_model(balls, models, tmp_path, kind):
    broken = CaseCollection(tmp_path / "broken", balls.scheme, balls.cases)
    shutil.copytree(balls.folder, broken.folder)
    lost = broken.slice_paths(broken.cases[0], PLANE, kind)[3]
    if kind == "image":
        lost.unlink()
    else:
        lost.write_text("no picture")
    shutil.copytree(models, tmp_path / "models")
    with pytest.raises((ValueError, FileNotFoundError), match=str(lost)):
        train_view.train_view(broken, PLANE, tmp_path / "models", CONFIG, config.RunOptions(overwrite=True))
    assert cards.load_card(tmp_path / "models", PLANE).plane == PLANE.value


@pytest.mark.slow
def test_a_file_that_is_no_weights_is_refused(tmp_path):
    file = tmp_path / "weights.h5"
    file.write_bytes(b"not hdf5")
    with pytest.raises(ValueError, match=r"weights\.h5"):
        build_network.network_with_first_weights(2, config.TrainConfig(), str(file))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"context": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"clip_norm": 0.0},
        {"stop_patience": 0},
        {"plateau_factor": 1.0},
        {"foreground_fraction": 1.5},
        {"warmup_epochs": -1},
        {"network": "resnet"},
        {"schedule": "x"},
        {"loss": "mse"},
        {"augment": "flip"},
        {"precision": "float64"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="above 0|0 or more|between 0 and 1|unknown"):
        config.TrainConfig().with_options(**wrong)


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="train this plane first"):
        backend.load_model(tmp_path, PLANE)
    (tmp_path / PLANE.value).mkdir()
    card = tmp_path / PLANE.value / "card.json"
    card.write_text("{")
    with pytest.raises(ValueError, match=r"card\.json is not a readable"):
        cards.load_card(tmp_path, PLANE)
    made_up_card(PLANE.value, (1, 1, 1), "cartilage").write(card)
    with pytest.raises(ValueError, match="not a readable SavedModel"):
        backend.load_model(tmp_path, PLANE)
    program = tmp_path / PLANE.value / "saved_model" / "saved_model.pb"
    program.parent.mkdir()
    program.write_bytes(b"")  # to TensorFlow a program without any graph
    with pytest.raises(ValueError, match="not a readable SavedModel"):
        backend.load_model(tmp_path, PLANE)


@pytest.mark.slow
def test_folds_are_trained_one_by_one_and_summed_up(balls, tmp_path):
    settings = config.TrainConfig().with_options(**SMALL, epochs=1, limit_slices=2)
    first = api.cross_validate(balls.folder, [PLANE], tmp_path, settings, Folds(2, only=1), config.RunOptions())
    assert np.isnan(first.views[PLANE.value].sd)
    both = api.cross_validate(balls.folder, [PLANE], tmp_path, settings, Folds(2), config.RunOptions())
    scores = [cards.load_card(tmp_path / f"fold-{fold}-of-2", PLANE) for fold in (1, 2)]
    dice = [card.training_result.scores["val_dice"] for card in scores]
    assert dict(both.views[PLANE.value].val_dice) == {"1": dice[0], "2": dice[1]}
    assert both.views[PLANE.value].mean == pytest.approx(np.mean(dice))
    assert both.views[PLANE.value].sd == pytest.approx(np.std(dice, ddof=1))
    assert api.CrossValidationResult.from_json((tmp_path / "folds.json").read_bytes()) == both
    validated = [patient for card in scores for patient in card.patients.val]
    assert sorted(validated) == ["P0", "P1", "P2"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"settings": None}, "settings"), ({"settings": {}}, "context"), ({"settings": {"context": -1}}, "context"),
        ({"settings": {"context": 1, "spread": 3}}, "spread"), ({"class_names": 5}, "class_names"),
        ({"patients": {}}, "patients.train"), ({"patients": []}, "patients"),
        ({"patients": {"train": [{}], "val": []}}, "patients.train.0"),
        ({"scheme": ["cartilage"]}, "scheme"), ({"scheme": "none"}, "scheme"), ({"spacing_mm": "abc"}, "spacing_mm"),
        ({"spacing_mm": [0, 0, 0]}, "spacing_mm"), ({"spacing_mm": [None] * 3}, "spacing_mm"),
        ({"spacing_mm": [1]}, "spacing_mm"), ({"patch": "ab"}, "patch"), ({"patch": [0, 1, 2]}, "patch"),
        ({"rotations": "abc"}, "rotations"), ({"rotations": [[1, 2]]}, "rotations"),
        ({"rotations": [np.diag([1, 1, -1]).tolist()]}, "rotations"), ({"result": {"scores": {}}}, "result"),
        ({"version": None}, "no version"),
    ],
)  # fmt: skip
def test_a_card_that_makes_no_sense_is_one_clear_line(tmp_path, wrong, field):
    card, path = made_up_card(PLANE.value, (1, 1, 1), "cartilage"), tmp_path / PLANE.value / "card.json"
    card.write(path)
    assert cards.load_card(tmp_path, PLANE) == card
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(ValueError, match=rf"card\.json is not a readable model card \(.*{field}") as caught:
        cards.load_card(tmp_path, PLANE)
    assert "\n" not in str(caught.value)


def test_names_that_are_no_views_are_passed_over(tmp_path):
    for name in ("oblique.training", "oblique-2", "obliquely", "oblique-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text("{}")
    assert list_networks(tmp_path, need=False) == []
    with pytest.raises(FileNotFoundError, match="--plane oblique"):
        trained_networks(tmp_path, (), 6)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["result", "data_fingerprint", "settings"])
def test_a_card_that_lacks_something_makes_no_page(models, tmp_path, lost):
    shutil.copytree(models / PLANE.value, tmp_path / PLANE.value)
    path = tmp_path / PLANE.value / "card.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != lost}))
    with pytest.raises(ValueError, match="not one that this version wrote|not a readable model card"):
        api.write_model_card_page(tmp_path)


@pytest.mark.slow
def test_the_network_is_kept_without_the_optimizer(models):
    """Adam's moments would be twice its size."""
    path = models / PLANE.value / "model.keras"
    network = keras.models.load_model(path)
    assert getattr(network, "optimizer", None) is None
    assert path.stat().st_size < 1.3 * sum(weight.numpy().nbytes for weight in network.weights) + 200_000


class Bumps(keras.callbacks.Callback):
    """A user's own, which hears of each epoch, and keeps what an interruption in the third would leave on the disk."""

    def __init__(self, folder: Path, interrupted: Path) -> None:
        super().__init__()
        self.heard: list[int] = []
        self.folder, self.interrupted = folder, interrupted

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append(epoch)
        if epoch == 2 and not self.interrupted.exists():
            shutil.copytree(self.folder, self.interrupted, ignore=shutil.ignore_patterns(".lease-*"))


@pytest.mark.slow
def test_a_users_callbacks_hear_and_decide_also_after_an_interruption(balls, tmp_path):
    """A plateau of the user's goes on where it was: the learning rates are those of a training in one go."""
    settings = config.TrainConfig().with_options(
        network=TINY,
        encoder_weights="none",
        augment="none",
        epochs=4,
        limit_slices=4,
        schedule="constant",
        learning_rate=1e-3,
    )

    def extras() -> tuple[Bumps, config.RunOptions]:
        watched = {"monitor": "val_knee_loss", "mode": "min"}
        plateau = keras.callbacks.ReduceLROnPlateau(**watched, patience=1, min_delta=2.0, factor=0.5)
        bumps = Bumps(tmp_path / "whole", tmp_path / "two")
        return bumps, config.RunOptions(callbacks=(plateau, bumps))

    whole, brought = extras()
    train_view.train_view(balls, PLANE, tmp_path / "whole", settings, brought)
    second, brought = extras()
    assert not (tmp_path / "two" / PLANE.value).exists()
    train_view.train_view(balls, PLANE, tmp_path / "two", settings, replace(brought, resume=True))
    assert (whole.heard, second.heard) == ([0, 1, 2, 3], [2, 3])
    told = [(tmp_path / name / PLANE.value / "metrics.csv").read_text() for name in ("whole", "two")]
    assert told[0] == told[1]
    rates = [float(line.split(",")[-1]) for line in told[0].splitlines()[1:]]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])
