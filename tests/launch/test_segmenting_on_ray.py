"""Knees on a cluster of two machines: the same bytes as here, though a worker is killed in the middle."""

import os
import threading
import time

import pytest
from made_up_models import make_models
from test_segmenting import contents

from knee3d import workflow
from knee3d.anatomy.orientation import to_canonical
from knee3d.dataset.phantom.cohort import Cohort
from knee3d.dataset.source import read_image
from knee3d.dataset.table import read_table

ray = pytest.importorskip("ray")


@pytest.mark.slow
def test_knees_on_a_cluster_that_loses_a_worker_are_those_made_here(cluster, tmp_path):
    table = workflow.phantom(Cohort(5, (32, 30, 28), seed=1), tmp_path / "cohort", jobs=2)
    image, _ = read_image(read_table(table)[0].image)
    models = make_models(tmp_path / "models", tuple(to_canonical(image).spacing_mm.tolist()))
    bad = table.parent / "P002-baseline" / "dicom"
    sorted(bad.iterdir())[3].unlink()
    entries = workflow.knees_at(table)
    wish = workflow.Wish(models, precision="float32", probabilities=True)
    here = workflow.segment(entries, wish, tmp_path / "here")
    out = tmp_path / "there"
    where = workflow.Where("ray", cluster.address)
    killer = threading.Thread(target=kill_a_worker, args=(out,), daemon=True)
    killer.start()
    there = workflow.segment(entries, wish, out, where)
    killer.join()
    assert [one.status for one in there] == ["done", "failed", "done", "done", "done", "done"]
    assert [one.message for one in there] == [one.message for one in here]
    assert "mm apart" in there[1].message
    assert contents(out) == contents(tmp_path / "here")
    assert (out / "volumes.csv").read_bytes() == (tmp_path / "here" / "volumes.csv").read_bytes()
    assert not list(out.glob(".partial*"))
    again = workflow.segment(entries, wish, out, where)
    assert [one.status for one in again] == ["kept", "failed", "kept", "kept", "kept", "kept"]


def kill_a_worker(out) -> None:
    """As soon as the first knee has come."""
    while not list(out.glob("*/segmentation.json")):
        time.sleep(0.05)
    for number in os.listdir("/proc"):
        try:
            with open(f"/proc/{number}/cmdline") as file:
                if number.isdecimal() and file.read().startswith("ray::Worker"):
                    os.kill(int(number), 9)
                    return
        except OSError:
            continue
    raise AssertionError("there was no worker to kill")
