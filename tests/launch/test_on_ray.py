"""Work on a Ray cluster of two machines (made here, each its own raylet) with a common disk, one of which is lost."""

import json
import os
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from knee3d import workflow
from knee3d.anatomy.plane import Plane
from knee3d.launch import Job, LaunchError
from knee3d.launch.on_ray import WEIGHTS, _machines, _share, run_on_ray
from knee3d.learn import config

SMALL = {"network": "pspnet"}
pytest.importorskip("ray", reason="Ray is an optional package")


def work(kind: str, marker: Path) -> None:
    """Some work ends its worker, or fails."""
    was_here = marker.exists()
    marker.touch()
    if kind == "poison" or (kind == "unlucky" and not was_here):
        os.kill(os.getpid(), 9)
    if kind == "bad":
        raise ValueError("cannot be done")
    if kind == "slow":
        time.sleep(2)
    marker.write_text(os.environ.get(WEIGHTS, ""))


def jobs_of(folder: Path, *kinds: str) -> list[Job]:
    names = [f"{number} {kind}" for number, kind in enumerate(kinds)]
    return [Job(name, folder / name, partial(work, kind, folder / name))
            for name, kind in zip(names, kinds, strict=True)]  # fmt: skip


@pytest.mark.slow
def test_lost_workers_are_replaced_and_failures_named_and_a_lost_machine_is_done_without(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv(WEIGHTS, str(tmp_path / "encoder.h5"))
    jobs = jobs_of(tmp_path, *["fine"] * 3, "unlucky", "poison", "bad", *["fine"] * 2)
    with pytest.raises(LaunchError) as failed:
        run_on_ray(jobs, cluster.address, retries=1)
    assert "4 poison: " in str(failed.value)
    assert "5 bad: cannot be done" in str(failed.value)
    assert str(failed.value).count("; ") == 1
    for job in jobs:
        if job.name not in ("4 poison", "5 bad"):
            assert job.folder.read_text() == str(tmp_path / "encoder.h5")
    slow = jobs_of(tmp_path / "x", *["slow"] * 4)
    (tmp_path / "x").mkdir()
    lost = threading.Timer(3, lambda: cluster.remove_node(cluster.workers.pop(), allow_graceful=False))
    lost.start()
    run_on_ray(slow, cluster.address, retries=1)
    lost.join()
    assert all(job.folder.read_text() for job in slow)
    cluster.workers.append(cluster.add_node(num_cpus=1))


def test_no_cluster_is_a_clear_error(tmp_path):
    with pytest.raises(LaunchError, match="nowhere"):
        run_on_ray(jobs_of(tmp_path, "fine"), "nowhere", retries=0)


@pytest.mark.parametrize(
    ("machines", "count", "cpus", "gpus"),
    [
        ([{"CPU": 8}, {"CPU": 8}], 3, 8, 0),
        ([{"CPU": 8, "GPU": 4}], 3, 2, 1),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4}], 2, 8, 4),
        ([{"CPU": 4}, {"CPU": 8, "GPU": 1}], 3, 8, 1),  # where there are GPUs, machines without are left alone
        ([{"CPU": 1}], 9, 1, 0),
    ],
)
def test_each_machine_has_a_job_or_more_where_it_has_gpus(machines, count, cpus, gpus):
    nodes = [{"Alive": True, "Resources": has} for has in machines]
    nodes += [{"Alive": False, "Resources": {"CPU": 64}}, {"Alive": True, "Resources": {"memory": 1}}]
    assert _share(_machines(nodes), count) == {"num_cpus": cpus, "num_gpus": gpus}
    with pytest.raises(LaunchError, match="no machine"):
        _share(_machines([]), count)


@pytest.mark.slow
def test_planes_train_at_the_same_time_on_a_cluster(balls, cluster, tmp_path):
    settings = config.TrainConfig(**SMALL, encoder_weights="none", epochs=1, batch_size=4, limit_slices=4)
    planes, launcher = [Plane.SAGITTAL, Plane.AXIAL], workflow.Launcher("ray", cluster.address)
    folders = workflow.train(balls.folder, planes, tmp_path, settings, launcher)
    assert folders == [tmp_path / plane.value for plane in planes]
    cards = [json.loads((folder / "card.json").read_text()) for folder in folders]
    assert all(card["scores"]["best_epoch"] == 1 for card in cards)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(plane.value for plane in planes)
    missing = replace(settings, encoder_weights=str(tmp_path / "missing.h5"))
    with pytest.raises(LaunchError, match=rf"{Plane.CORONAL.value}: on .*missing\.h5"):
        workflow.train(balls.folder, [Plane.CORONAL], tmp_path, missing, launcher)
