"""A training that is killed goes on as if it had not been; devices share it without changing it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from faults import contents
from made_up_models import make_models
from tiny_network import TINY

from knee3d.geometry.plane import Plane
from knee3d.lease import LeaseLostError, leased
from knee3d.training import config, train_view
from knee3d.training import training_folder as runs

PLANE = Plane.SAGITTAL
SMALL = {"network": TINY, "encoder_weights": "none", "augment": "none"}
PROGRAM = """
import json, sys
from pathlib import Path
import knee3d.training
import tensorflow as tf
dataset, models, settings, devices = sys.argv[1:]
if int(devices) > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
from knee3d.geometry.plane import Plane
from knee3d.dataset.case_collection import load_cases
from knee3d.training.config import RunOptions, TrainConfig
from knee3d.training.trainer import distribution_strategy
from knee3d.training.train_view import train_view
import tiny_network
settings = TrainConfig().with_options(**json.loads(settings))
train_view(load_cases(Path(dataset)), Plane.SAGITTAL, Path(models), settings, RunOptions(resume=True))
print(distribution_strategy(settings.sampling.batch_size).num_replicas_in_sync)
"""


def settings_of(**others):
    return config.TrainConfig().with_options(**SMALL, **others)


def start(balls, models, settings, devices=1):
    command = [sys.executable, "-c", PROGRAM, str(balls.folder), str(models), json.dumps(settings), str(devices)]
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    return int(out.split()[-1])


def metrics(models):
    return (models / PLANE.value / "metrics.csv").read_text()


@pytest.mark.slow
def test_an_interruption_and_a_kill_change_nothing(balls, tmp_path, monkeypatch):
    """Same epochs, same learning rates, same weights; with every setting that has a memory."""
    settings = {
        **SMALL, "epochs": 3, "batch_size": 4, "learning_rate": 2e-3, "limit_slices": 8,
        "plateau_patience": 1, "augment": "medium", "foreground_fraction": 0.6, "freeze_encoder_epochs": 1,
        "clip_norm": 1.0, "stop_patience": 3, "ema": 0.9,
    }  # fmt: skip
    save = runs.TrainingFolder.save

    def save_and_copy(run, model, history):
        """What an interruption would leave after the first epoch."""
        save(run, model, history)
        if len(history) == 1:
            shutil.copytree(run.folder, tmp_path / "killed" / run.folder.name)

    with monkeypatch.context() as patch:
        patch.setattr(runs.TrainingFolder, "save", save_and_copy)
        train_view.train_view(balls, PLANE, tmp_path / "whole", config.TrainConfig().with_options(**settings))
    checkpoints = tmp_path / "killed" / f"{PLANE.value}.training" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["epoch-0001.keras"]
    process = start(balls, tmp_path / "killed", settings)
    while process.poll() is None and not (checkpoints / "epoch-0002.keras").exists():
        time.sleep(0.01)
    time.sleep(np.random.default_rng(0).uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train_view.train_view(
        balls,
        PLANE,
        tmp_path / "killed",
        config.TrainConfig().with_options(**settings),
        config.RunOptions(resume=True),
    )
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole").splitlines()) == 4
    networks = [keras.models.load_model(tmp_path / name / PLANE.value / "model.keras") for name in ("whole", "killed")]
    for one, other in zip(*(network.weights for network in networks), strict=True):
        np.testing.assert_array_equal(one, other)


STEPS = """
import hashlib
import numpy as np
import knee3d.training
import keras, tensorflow as tf
from knee3d.training.build_network import network_with_first_weights
from knee3d.training.config import TrainConfig
from knee3d.losses import SoftDice
from knee3d.training.trainer import Trainer
keras.utils.set_random_seed(0)
model = network_with_first_weights(4, TrainConfig().with_options(batch_size=8, learning_rate=1e-3), None)
rng = np.random.default_rng(0)
images, masks = rng.integers(0, 256, (8, 64, 64, 3), np.uint8), rng.integers(0, 4, (8, 64, 64), np.uint8)
batches = tf.data.Dataset.from_tensors(((images, masks, np.zeros(8, np.int32), np.zeros((8, 1))), 0.0)).repeat(4)
Trainer(model, SoftDice(), 1).fit(batches, shuffle=False, verbose=0)
print(hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest())
"""


@pytest.mark.nightly
@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="GPUs add up in any order")
def test_one_seed_gives_the_same_weights_on_a_busy_machine(tmp_path):
    """At a size where operations are shared among threads, in two processes that slow each other."""
    command = [sys.executable, "-c", STEPS]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] != ""


@pytest.mark.parametrize(
    ("network", "rate", "epochs"), [(TINY, 1e-3, 2), pytest.param("unet", 1e-4, 1, marks=pytest.mark.nightly)]
)
def test_two_devices_train_what_one_does(balls, tmp_path, network, rate, epochs):
    settings = {
        **SMALL, "network": network, "epochs": epochs, "batch_size": 3, "limit_slices": 8,
        "learning_rate": rate, "clip_norm": 1.0, "loss": "dice-ce",
    }  # fmt: skip
    train_view.train_view(balls, PLANE, tmp_path / "one", config.TrainConfig().with_options(**settings))
    assert finish(start(balls, tmp_path / "two", settings, devices=2)) == 2
    one, two = (
        np.genfromtxt(tmp_path / name / PLANE.value / "metrics.csv", delimiter=",", names=True)
        for name in ("one", "two")
    )
    for column in ("loss", "val_loss", "val_knee_loss", "learning_rate"):
        np.testing.assert_allclose(two[column], one[column], rtol=5e-3)
    for column in ("dice", "val_dice", "val_foreground_dice"):  # labels flip where two classes are as probable
        np.testing.assert_allclose(two[column], one[column], atol=0.02)


def finished(models):
    """Hash of every file of the finished model."""
    return {name: digest for name, digest in contents(models).items() if name.startswith(f"{PLANE.value}/")}


@pytest.fixture(scope="module")
def interrupted(balls, tmp_path_factory):
    """Another model, and the training of three epochs that shall replace it, interrupted in its third.

    With its settings, and what the other model is.
    """
    settings = settings_of(epochs=3, batch_size=4, limit_slices=8)
    models, save = tmp_path_factory.mktemp("interrupted"), runs.TrainingFolder.save
    make_models(models, (1, 1, 1), (PLANE,))
    other = finished(models)

    def save_two(run, model, history):
        if len(history) == 3:
            raise KeyboardInterrupt
        save(run, model, history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.TrainingFolder, "save", save_two)
        with pytest.raises(KeyboardInterrupt):
            train_view.train_view(balls, PLANE, models, settings, config.RunOptions(overwrite=True))
    return models, settings, other


@pytest.fixture
def half_done(interrupted, tmp_path):
    """The settings of an interrupted training, of which the test's folder has a copy, without the other model."""
    models, settings, _ = interrupted
    name = f"{PLANE.value}.training"
    shutil.copytree(models / name, tmp_path / name)
    return settings


@pytest.mark.slow
def test_an_interrupted_training_is_not_lost_by_accident(balls, tmp_path, half_done):
    with pytest.raises(ValueError, match="interrupted training; go on with --resume"):
        train_view.train_view(balls, PLANE, tmp_path, half_done)
    other = settings_of(epochs=5)
    with pytest.raises(ValueError, match=r"other settings \(.*epochs.*.*go on with those"):
        train_view.train_view(balls, PLANE, tmp_path, other, config.RunOptions(resume=True))


@pytest.mark.slow
def test_a_broken_checkpoint_gives_way_to_the_one_before_and_a_lost_best_epoch_to_the_newest(
    balls, tmp_path, half_done, caplog
):
    folder, save = tmp_path / f"{PLANE.value}.training", runs.TrainingFolder.save
    newest = runs.TrainingFolder(folder).checkpoints[0]
    assert newest.name == "epoch-0002.keras"
    newest.write_bytes(newest.read_bytes()[:-1000])
    (newest.parent / ".partial-1-epoch-0003.keras").write_bytes(b"half")
    (folder / "best.keras").write_bytes(b"half")
    epochs = []

    def save_without_best(run, model, history):
        save(run, model, history)
        epochs.append(len(history))
        run.best.write_bytes(b"half")

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING"):
        patch.setattr(runs.TrainingFolder, "save", save_without_best)
        train_view.train_view(balls, PLANE, tmp_path, half_done, config.RunOptions(resume=True))
    assert "epoch-0002.keras cannot be read" in caplog.text
    assert epochs == [2, 3]
    assert f"{folder}: taking epoch 3 instead" in caplog.text
    assert json.loads((tmp_path / PLANE.value / "card.json").read_text())["result"]["best_epoch"] == 3
    assert len(metrics(tmp_path).splitlines()) == 4
    assert not (tmp_path / PLANE.value / "checkpoints").exists()
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.slow
def test_killed_while_it_replaces_a_model_or_finishes_it_goes_on(balls, tmp_path, interrupted, monkeypatch):
    """Overwriting and resuming keeps what has these settings, and replaces what has others."""
    both = config.RunOptions(resume=True, overwrite=True)
    models, settings, other = interrupted
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    save, epochs = runs.TrainingFolder.save, []

    def save_and_count(run, model, history):
        save(run, model, history)
        epochs.append(len(history))

    def stop(new, path):
        raise KeyboardInterrupt

    assert f"{PLANE.value}/card.json" in other
    assert finished(tmp_path) == other
    monkeypatch.setattr(runs.TrainingFolder, "save", save_and_count)
    with monkeypatch.context() as patch:
        patch.setattr(train_view, "replace_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            train_view.train_view(balls, PLANE, tmp_path, settings, config.RunOptions(resume=True))
    assert finished(tmp_path) == other
    train_view.train_view(balls, PLANE, tmp_path, settings, both)
    assert epochs == [3]  # the last of all; none was done twice
    assert finished(tmp_path) != other
    assert len(metrics(tmp_path).splitlines()) == 4
    assert not (tmp_path / PLANE.value / "checkpoints").exists()
    assert [path.name for path in tmp_path.iterdir()] == [PLANE.value]
    done = (tmp_path / PLANE.value / "card.json").stat().st_mtime_ns
    train_view.train_view(balls, PLANE, tmp_path, settings, both)
    assert (tmp_path / PLANE.value / "card.json").stat().st_mtime_ns == done
    train_view.train_view(balls, PLANE, tmp_path, settings_of(epochs=1, limit_slices=2), both)
    assert len(metrics(tmp_path).splitlines()) == 2


@pytest.mark.slow
def test_two_trainings_do_not_share_a_folder(balls, tmp_path):
    settings = settings_of(epochs=1, limit_slices=2)
    folder = tmp_path / f"{PLANE.value}.training"
    with leased(folder), pytest.raises(ValueError, match=f"{folder}.* choose another folder"):
        train_view.train_view(balls, PLANE, tmp_path, settings)


@pytest.mark.slow
def test_a_training_writes_nothing_in_a_folder_that_another_process_took(balls, tmp_path, monkeypatch):
    folder, save = tmp_path / f"{PLANE.value}.training", runs.TrainingFolder.save

    def save_and_sleep_long(run, model, history):
        save(run, model, history)
        shutil.rmtree(tmp_path / f".lease-{folder.name}")

    monkeypatch.setattr(runs.TrainingFolder, "save", save_and_sleep_long)
    with pytest.raises(LeaseLostError, match=str(folder)):
        train_view.train_view(balls, PLANE, tmp_path, settings_of(epochs=2, limit_slices=2))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["epoch-0001.keras"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", [PLANE.value, f"{PLANE.value}.training"])
def test_files_of_others_are_not_removed(balls, tmp_path, name):
    settings = settings_of(epochs=1, limit_slices=2)
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which no training has put there"):
        train_view.train_view(balls, PLANE, tmp_path, settings, config.RunOptions(overwrite=True))
    (tmp_path / name).rename(tmp_path / "elsewhere")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a link or a file"):
        train_view.train_view(balls, PLANE, tmp_path, settings, config.RunOptions(overwrite=True))
    assert (tmp_path / "elsewhere" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [None, "{", "[]", "[" * 100_000], ids=["none", "cut", "a list", "too deep"])
def test_a_training_whose_card_is_lost_is_not_said_to_be_another(balls, tmp_path, content):
    checkpoints = tmp_path / f"{PLANE.value}.training" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (tmp_path / PLANE.value).mkdir()
    (tmp_path / PLANE.value / "card.json").write_text("[]")
    if content is not None:
        (checkpoints.parent / "card.json").write_text(content)
    (checkpoints / "epoch-0001.keras").write_bytes(b"")
    settings = settings_of(epochs=1, limit_slices=2)
    with pytest.raises(ValueError, match=r"card\.json is not a readable model card .* with --overwrite"):
        train_view.train_view(balls, PLANE, tmp_path, settings, config.RunOptions(resume=True))
    (tmp_path / PLANE.value / "card.json").unlink()
    with pytest.raises(ValueError, match=r"its card\.json cannot be read"):
        train_view.train_view(balls, PLANE, tmp_path, settings, config.RunOptions(resume=True))
    assert (checkpoints / "epoch-0001.keras").exists()


HALF = """
import json
import knee3d.training
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from knee3d.losses import SoftDice
from knee3d.training.input_pipeline import split_training_batches, with_waiting_time
from knee3d.training.trainer import Trainer, distribution_strategy

@tf.custom_gradient
def spoilt(found):
    second = tf.distribute.get_replica_context().replica_id_in_sync_group == 1
    return tf.identity(found), lambda slope: slope * tf.cast(tf.where(second, float("inf"), 1.0), slope.dtype)

class Broken(SoftDice):
    def call(self, y_true, y_pred):
        return super().call(y_true, spoilt(y_pred))

devices = distribution_strategy()
found = []
for loss in (SoftDice(), Broken()):
    with devices.scope():
        scores = keras.layers.Conv2D(2, 1, activation="softmax")
        model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(1 / 255), scores])
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3)))
        model.optimizer.build(model.trainable_variables)
        trainer = Trainer(model, loss, 1)
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (2, 16, 16, 3), np.uint8), rng.integers(0, 2, (2, 16, 16), np.uint8), np.zeros(2, "i4")
    batch = (*batch, np.zeros((2, 1)))
    stream = split_training_batches(with_waiting_time(tf.data.Dataset.from_tensors(batch)), 2)
    before, scale = [w.numpy() for w in model.trainable_weights], float(model.optimizer.dynamic_scale.numpy())
    dealt = devices.distribute_datasets_from_function(lambda _: stream)
    trainer.fit(dealt, steps_per_epoch=1, shuffle=False, verbose=0)
    after = [w.numpy() for w in model.trainable_weights]
    found.append({
        "finite": all(bool(np.isfinite(w).all()) for w in after),
        "same": all(np.array_equal(a, b) for a, b in zip(before, after)),
        "scale": float(model.optimizer.dynamic_scale.numpy()) / scale,
    })
print(json.dumps(found))
"""


@pytest.mark.nightly
def test_a_step_that_overflows_on_the_second_device_is_left_out_on_all():
    """Keras' optimizer for float16 looks at the first device alone, and a weight would become NaN. No layer here shares
    anything among devices, as batch normalisation does."""
    done = subprocess.run([sys.executable, "-c", HALF], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    well, overflow = json.loads(done.stdout.splitlines()[-1])
    assert well == {"finite": True, "same": False, "scale": 1}
    assert overflow == {"finite": True, "same": True, "scale": 0.5}
