"""Checkpoints: the last two, the best, and none that is half there."""

import errno
import json
import os
import re
import warnings
import zipfile

import keras
import numpy as np
import pytest

from knee3d.training import training_folder as runs


def network(value: float):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    for weight in model.weights:
        weight.assign(np.full(weight.shape, value))
    return model


def history(*dice: float) -> list[dict[str, float]]:
    return [{"loss": 1.0, "val_dice": value} for value in dice]


def test_the_last_two_and_the_best_are_kept(tmp_path):
    run = runs.TrainingFolder(tmp_path)
    for epoch, dice in enumerate((0.1, 0.9, 0.9, 0.3)):
        run.save(network(epoch), history(0.1, 0.9, 0.9, 0.3)[: epoch + 1])
        run.write_metrics(history(dice))
    assert [path.name for path in run.checkpoints] == ["epoch-0004.keras", "epoch-0003.keras"]
    model = network(-1)
    assert runs.load_checkpoint(model, run.best) == history(0.1, 0.9)  # the first of equals
    assert (model.weights[0].numpy() == 1).all()
    assert run.restore(model) == history(0.1, 0.9, 0.9, 0.3)
    assert (model.weights[0].numpy() == 3).all()
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_an_interruption_between_best_and_checkpoint_loses_neither(tmp_path, monkeypatch):
    """Whatever the moment, an epoch that counts as done has its best kept."""
    run = runs.TrainingFolder(tmp_path)
    run.save(network(0), history(0.1))

    def killed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs.shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            run.save(network(1), history(0.1, 0.9))
    model = network(-1)
    assert run.restore(model) == history(0.1)
    assert runs.load_checkpoint(model, run.best) == history(0.1)


@pytest.mark.parametrize(
    "damage", ["cut", "no history", "another history", "a flipped byte", "unknown compression", "no zip", "another"]
)
def test_a_damaged_checkpoint_gives_way(tmp_path, caplog, damage):
    run = runs.TrainingFolder(tmp_path)
    for epoch in range(2):
        run.save(network(epoch), history(0.1, 0.2)[: epoch + 1])
    newest = run.checkpoints[0]
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "no history":
        with zipfile.ZipFile(newest, "w") as archive:
            archive.writestr("config.json", json.dumps({}))
    elif damage == "another history":
        with warnings.catch_warnings(), zipfile.ZipFile(newest, "a") as archive:
            warnings.simplefilter("ignore")  # of a second member of the same name
            archive.writestr(runs.HISTORY, "null")
    elif damage == "another":
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(500)]).save(newest)
        with zipfile.ZipFile(newest, "a") as archive:
            archive.writestr(runs.HISTORY, json.dumps(history(0.1, 0.2)))
    elif damage == "unknown compression":
        for record in re.finditer(rb"PK\x01\x02", bytes(content)):
            content[record.start() + 10] = 99
        newest.write_bytes(content)
    elif damage == "a flipped byte":
        with zipfile.ZipFile(newest) as archive:
            inside = archive.getinfo("model.weights.h5")
        content[inside.header_offset + len(inside.filename) + 2000] ^= 0xFF
        newest.write_bytes(content)
    else:
        newest.write_bytes(b"")
    model = network(-1)
    with caplog.at_level("WARNING"):
        assert run.restore(model) == history(0.1)
    assert "epoch-0002.keras cannot be read" in caplog.text
    assert len(caplog.text.splitlines()) == 2
    assert (model.weights[0].numpy() == 0).all()
    assert newest.exists()
    run.save(network(5), history(0.1, 0.2))
    assert run.restore(model) == history(0.1, 0.2)


def test_where_no_checkpoint_is_whole_the_best_is_taken_and_without_it_nothing_is_lost(tmp_path, caplog):
    run = runs.TrainingFolder(tmp_path)
    for epoch, dice in enumerate((0.1, 0.9, 0.3, 0.2)):
        run.save(network(epoch), history(0.1, 0.9, 0.3, dice)[: epoch + 1])
    for path in run.checkpoints:
        path.write_bytes(b"half")
    model = network(-1)
    with caplog.at_level("WARNING"):
        assert run.restore(model) == history(0.1, 0.9)
    assert "taking epoch 2 instead" in caplog.text
    assert (model.weights[0].numpy() == 1).all()
    run.best.write_bytes(b"half")
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        run.restore(model)
    assert [path.name for path in run.checkpoints] == ["epoch-0004.keras", "epoch-0003.keras"]
    run.save(network(2), history(0.1, 0.9, 0.4))
    assert [path.name for path in run.checkpoints] == ["epoch-0003.keras"]  # what was after it was done again


@pytest.mark.parametrize("trouble", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_what_the_system_refuses_is_not_taken_for_damaged(tmp_path, monkeypatch, trouble):
    run = runs.TrainingFolder(tmp_path)
    run.save(network(0), history(0.1))

    def refuse(**wanted):
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(runs, "NamedTemporaryFile", refuse)
    with pytest.raises(OSError, match=re.escape(str(run.checkpoints[0]))):
        run.restore(network(-1))
    monkeypatch.undo()
    assert run.restore(network(-1)) == history(0.1)


def test_a_checkpoint_for_which_there_is_no_room_is_not_taken_for_damaged(tmp_path, monkeypatch):
    run = runs.TrainingFolder(tmp_path)
    run.save(network(0), history(0.1))

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs.shutil, "copyfileobj", full)
    for load in (run.restore, run.load_best):
        with pytest.raises(OSError, match=r"No space left on device; a checkpoint is copied .*\.keras'"):
            load(network(-1))
    monkeypatch.undo()
    assert run.restore(network(-1)) == history(0.1)
    assert not list(tmp_path.rglob(".partial-*"))


def test_no_checkpoint_is_no_history(tmp_path):
    assert runs.TrainingFolder(tmp_path).restore(network(0)) == []
