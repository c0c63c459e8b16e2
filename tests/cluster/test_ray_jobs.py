"""Work on a Ray cluster of two machines (made here, each its own raylet) with a common disk, one of which is lost."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from faults import contents
from made_up_models import make_models

from knee3d import api
from knee3d.cluster import ClusterError
from knee3d.cluster.ray_jobs import WEIGHTS, pool_on_ray
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.plane import Plane
from knee3d.io.image_source import read_image
from knee3d.lease import LeaseHeldError, share_work
from knee3d.phantom.cohort import CohortConfig
from knee3d.training import config

SMALL = {"network": "pspnet"}
pytest.importorskip("ray", reason="Ray is an optional package")


def make_work():
    """What a worker does: some items end it, or fail, or are another process's for a while."""
    loaded = os.getpid()

    def work(item, take_over):
        kind, marker = item
        was_here = marker.exists()
        marker.touch()
        if kind == "poison" or (kind == "unlucky" and not was_here):
            os.kill(loaded, 9)
        if kind == "bad":
            raise ValueError("cannot\nbe done")
        if kind == "held" and not was_here:
            raise LeaseHeldError(marker, "")
        time.sleep(0.05 if kind == "fine" else 0.5)
        return loaded, os.environ.get(WEIGHTS)

    return work


@pytest.mark.slow
def test_lost_workers_are_started_again_and_a_lost_machine_is_done_without(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS, str(tmp_path / "encoder.h5"))
    kinds = ["fine"] * 4 + ["held", "unlucky", "poison"] + ["fine"] * 3 + ["bad"] + ["fine"] * 5
    items = {f"{number} {kind}": (kind, tmp_path / f"marker-{number}") for number, kind in enumerate(kinds)}
    with pool_on_ray(make_work, len(items), cluster.address, retries=1) as run:
        found = dict(share_work(items, run))
        assert set(found) == set(items)
        failed = {name: error for name, error in found.items() if isinstance(error, Exception)}
        assert set(failed) == {"6 poison", "10 bad"}
        assert isinstance(failed["6 poison"], ClusterError)
        assert str(failed["10 bad"]) == "cannot\nbe done"
        done = [outcome for outcome in found.values() if not isinstance(outcome, Exception)]
        # Made once by each worker, not for each item: two to begin with, and one for each that was lost.
        assert 2 <= len({process for process, _ in done}) <= 2 + 3
        assert {weights for _, weights in done} == {str(tmp_path / "encoder.h5")}
        items = {str(number): ("slow", tmp_path / f"marker-{number}") for number in range(12)}
        lost = threading.Timer(1, lambda: cluster.remove_node(cluster.workers.pop(), allow_graceful=False))
        lost.start()
        found = dict(share_work(items, run))
        lost.join()
        assert set(found) == set(items)
        assert not [error for error in found.values() if isinstance(error, Exception)]
    cluster.workers.append(cluster.add_node(num_cpus=1))


@pytest.mark.parametrize("address", ["nowhere", "nowhere.invalid:6379", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_is_a_clear_error(address):
    with (
        pytest.raises(ClusterError, match=f"no Ray cluster answers at {address}"),
        pool_on_ray(make_work, 1, address, 0),
    ):
        pass


@pytest.mark.nightly
def test_knees_on_a_cluster_that_loses_a_worker_are_those_made_here(cluster, cohort_of, tmp_path):
    table = cohort_of(CohortConfig(3, (32, 30, 28), seed=1), tmp_path / "cohort")
    image = read_image(read_manifest(table)[0].image)
    models = make_models(tmp_path / "models", tuple(to_canonical(image).spacing_mm.tolist()))
    bad = table.parent / "P002-baseline" / "dicom"
    sorted(bad.iterdir())[3].unlink()
    entries = api.find_cases(table)
    config = api.SegmentConfig(precision="float32")
    here = api.segment(entries, models, tmp_path / "here", config=config)
    out = tmp_path / "there"
    where = api.ExecutionConfig("ray", cluster.address)
    killer = threading.Thread(target=kill_a_worker, args=(out,), daemon=True)
    killer.start()
    there = api.segment(entries, models, out, config=config, execution=where)
    killer.join()
    assert [one.status for one in there] == ["done", "failed", "done", "done"]
    assert [one.message for one in there] == [one.message for one in here]
    assert "mm apart" in there[1].message
    assert contents(out) == contents(tmp_path / "here")
    assert (out / "volumes.csv").read_bytes() == (tmp_path / "here" / "volumes.csv").read_bytes()
    assert not list(out.glob(".*"))
    again = api.segment(entries, models, out, config=config)  # wherever they were made
    assert [one.status for one in again] == ["kept", "failed", "kept", "kept"]


def kill_a_worker(out: Path) -> None:
    """While it is at a knee, which its lease says."""
    while True:
        for holder in out.glob(".lease-P*/*"):
            process = int(holder.name.split("+")[2])
            if process != os.getpid() and holder.exists():
                os.kill(process, 9)
                return
        time.sleep(0.01)


@pytest.mark.nightly
def test_planes_train_at_the_same_time_on_a_cluster(balls, cluster, tmp_path):
    settings = config.TrainConfig().with_options(
        **SMALL, encoder_weights="none", epochs=1, batch_size=4, limit_slices=4
    )
    planes, launcher = [Plane.SAGITTAL, Plane.AXIAL], api.TrainExecution("ray", cluster.address)
    folders = api.train_views(balls.folder, planes, tmp_path, settings, api.RunOptions(), launcher)
    assert folders == [tmp_path / plane.value for plane in planes]
    cards = [json.loads((folder / "card.json").read_text()) for folder in folders]
    assert all(card["result"]["best_epoch"] == 1 for card in cards)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(plane.value for plane in planes)
    missing = settings.with_options(encoder_weights=str(tmp_path / "missing.h5"))
    with pytest.raises(ClusterError, match=rf"{Plane.CORONAL.value}: on .*missing\.h5"):
        api.train_views(balls.folder, [Plane.CORONAL], tmp_path, missing, api.RunOptions(), launcher)
