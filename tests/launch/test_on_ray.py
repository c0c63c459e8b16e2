"""Jobs on a Ray cluster of two machines (made here, each its own raylet), one of which is lost."""

import os
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from knee3d import workflow
from knee3d.anatomy.plane import Plane
from knee3d.launch.job import Job, LaunchError
from knee3d.launch.on_ray import WEIGHTS_VARIABLE, run_on_ray, shares
from knee3d.learn import config

ray = pytest.importorskip("ray")
STEPS = 4
PLANES = [Plane.SAGITTAL, Plane.AXIAL]


def work(name, dies_at, home, keep):
    """Write a file a step; the process dies after it has kept `dies_at` of them and half-written another."""
    folder = home / f"{name}.training"
    folder.mkdir(exist_ok=True)
    begun_with = len(list(folder.glob("step-*")))
    for step in range(begun_with, STEPS):
        (folder / f"step-{step}").write_text(f"{step}, begun with {begun_with}, {os.environ.get(WEIGHTS_VARIABLE)}")
        if step == dies_at and begun_with == 0:
            os.kill(os.getpid(), 9)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "newest").write_bytes(bytes([step]) * 1000)
        (folder / f"old-{step}").write_text("")
        (folder / f"old-{step - 1}").unlink(missing_ok=True)
        keep()
    if dies_at is None:
        raise ValueError("cannot be done")
    folder.rename(home / name)


def jobs_in(models, **dies_at):
    return [Job(n, models / f"{n}.training", models / n, partial(work, n, when)) for n, when in dies_at.items()]


def test_all_machines_share_the_work():
    machine = {"CPU": 16.0, "GPU": 4.0}
    assert shares([machine] * 3, 3) == {"num_cpus": 16, "num_gpus": 4}
    assert shares([machine], 3) == {"num_cpus": 5, "num_gpus": 1}
    assert shares([machine] * 2, 3) == {"num_cpus": 8, "num_gpus": 2}
    assert shares([machine, {"CPU": 8.0}, {}], 2) == {"num_cpus": 8, "num_gpus": 2}
    assert shares([{"CPU": 2.0}], 3) == {"num_cpus": 1, "num_gpus": 0}
    assert shares([{}], 1) == {"num_cpus": 1, "num_gpus": 0}


@pytest.mark.slow
def test_lost_workers_are_replaced_and_failures_named(cluster, tmp_path, monkeypatch):
    weights = tmp_path / "encoder.h5"
    weights.write_bytes(b"weights")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(weights))
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "old").write_text("replaced")
    with pytest.raises(LaunchError, match="fails: cannot be done$"):
        run_on_ray(jobs_in(tmp_path, dies=2, fine=99, fails=None), cluster.address, retries=1)
    names = {"checkpoints", "old-3", *(f"step-{step}" for step in range(STEPS))}
    for name, begun_with in (("dies", [0, 0, 2, 2]), ("fine", [0, 0, 0, 0])):
        assert {path.name for path in (tmp_path / name).iterdir()} == names
        assert not (tmp_path / f"{name}.training").exists()
        for step, begun in enumerate(begun_with):
            words = (tmp_path / name / f"step-{step}").read_text().split(", ")
            assert words[:2] == [str(step), f"begun with {begun}"]
            assert Path(words[2]).name == weights.name
            assert name == "dies" or not Path(words[2]).exists()  # with the worker's folder
        assert (tmp_path / name / "checkpoints" / "newest").read_bytes() == b"\x03" * 1000
    assert (tmp_path / "fails.training" / "step-3").exists()  # to be gone on with
    assert not (tmp_path / "fails").exists()


@pytest.mark.slow
def test_a_worker_lost_too_often_is_given_up(cluster, tmp_path):
    with pytest.raises(LaunchError, match="dies: lost 1 times"):
        run_on_ray(jobs_in(tmp_path, dies=2), cluster.address, retries=0)
    assert (tmp_path / "dies.training" / "step-1").exists()


def test_no_cluster_is_a_clear_error(tmp_path):
    with pytest.raises(LaunchError, match="host:port"):
        run_on_ray(jobs_in(tmp_path, fine=99), "ray://10.0.0.1:10001", retries=0)


@pytest.mark.slow
def test_planes_train_on_a_cluster_that_loses_a_machine(balls, cluster, tmp_path):
    """Two planes at the same time; the machine that trains the first is switched off after its first checkpoint."""
    settings = config.TrainConfig(encoder_weights="none", epochs=3, batch_size=4, limit_slices=8)
    run = tmp_path / "far" / f"{PLANES[0].value}.training"
    gone = threading.Thread(target=lose_machine, args=(cluster, run), daemon=True)
    gone.start()
    launcher = workflow.Launcher("ray", cluster.address)
    folders = workflow.train(balls.folder, PLANES, tmp_path / "far", settings, launcher)
    gone.join()
    assert len(cluster.workers) == 1
    assert folders == workflow.train(balls.folder, PLANES, tmp_path / "far", settings)  # done: nothing left to train
    here = workflow.train(balls.folder, PLANES[:1], tmp_path / "here", settings)
    far, near = (np.genfromtxt(f / "metrics.csv", delimiter=",", names=True) for f in (folders[0], here[0]))
    assert len(far) == 3
    np.testing.assert_allclose(far["loss"], near["loss"], rtol=0.005)  # one thread there, two here
    assert {path.name for path in folders[0].iterdir()} == {path.name for path in here[0].iterdir()}


def lose_machine(cluster, run):
    while not list(run.glob("checkpoints/epoch-*.keras")):
        time.sleep(0.1)
    processes = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    parents = {line.split()[0] for line in processes.splitlines() if f"ray::{PLANES[0].value}" in line}
    (lost,) = [node for node in cluster.workers if str(node.all_processes["raylet"][0].process.pid) in parents]
    cluster.remove_node(lost, allow_graceful=False)
    cluster.workers.remove(lost)
