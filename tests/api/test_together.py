"""Processes that were started with the same command share the knees: each is done once, also where one is killed."""

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from as_seen import COMMAND, run_as_seen
from faults import contents
from made_up_models import make_models

from knee3d.dataset.manifest import read_manifest, write_manifest
from knee3d.geometry.orientation import to_canonical
from knee3d.io.image_source import read_image
from knee3d.io.label_names_file import LABELS_FILE
from knee3d.phantom.cohort import CohortConfig

KNEES = 12


@pytest.fixture(scope="module")
def table(made_once, cohort_of) -> Path:
    """Of knees of as many patients, which are four knees again and again."""

    def make(folder: Path) -> None:
        there = read_manifest(cohort_of(CohortConfig(3, (32, 30, 28), seed=1)))
        knees = []
        for number in range(KNEES):
            knee, name = there[number % len(there)], f"P{number + 1:03d}"
            image, mask = folder / name / "dicom", folder / name / knee.mask.name
            shutil.copytree(knee.image, image)
            shutil.copy(knee.mask, mask)
            knees.append(replace(knee, case=name, patient=name, image=image, mask=mask))
        shutil.copy(there[0].image.parents[1] / LABELS_FILE, folder)
        write_manifest(folder / "knees.csv", tuple(knees))

    return made_once("together", make) / "knees.csv"


def together(out: Path, *words: object) -> str:
    """Let three processes work, of which one is killed while it is at a knee, and one is this; returns at which."""
    command = [*COMMAND, *map(str, words)]
    killed, other = (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    )
    case = kill_at_work(killed, out)
    here = run_as_seen(*words)
    said, _ = other.communicate()
    assert (other.returncode, here.exit_code) == (0, 0), said + here.output
    return case


def kill_at_work(child: subprocess.Popen, out: Path) -> str:
    """Kill a process while it is at a knee; returns which."""
    while True:
        assert child.poll() is None, "it ended before"
        with suppress(FileNotFoundError):  # leases come and go while they are looked at
            for holder in out.glob(f".lease-*/*+{child.pid}+*"):
                case = holder.parent.name.removeprefix(".lease-")
                child.send_signal(signal.SIGSTOP)
                if list(out.glob(f".partial-*-{case}")) and holder.exists():
                    child.kill()
                    child.communicate()
                    return case
                child.send_signal(signal.SIGCONT)
        time.sleep(0.01)


@pytest.mark.slow
def test_three_processes_segment_each_knee_once_and_take_over_what_a_killed_one_had(table, tmp_path, plainly):
    image = read_image(read_manifest(table)[0].image)
    models = make_models(tmp_path / "models", tuple(to_canonical(image).spacing_mm.tolist()))
    words = ("segment", table, "--models", models, "--precision", "float32", "--save-probabilities", "--out")
    out = tmp_path / "three"
    case = together(out, *words, out)
    lines = [json.loads(line) for line in (out / "segment.jsonl").read_text().splitlines()]
    done = Counter(line["case"] for line in lines if line.get("status") == "done")
    assert set(done.values()) == {1}
    assert case in done
    assert sum(line["done"] for line in lines if line["event"] == "end") <= KNEES
    assert run_as_seen(*words, tmp_path / "one").exit_code == 0
    assert len(done) == KNEES == len(list(out.glob("*/segmentation.json")))
    assert contents(out) == contents(tmp_path / "one")
    assert (out / "volumes.csv").read_bytes() == (tmp_path / "one" / "volumes.csv").read_bytes()
    assert not list(out.glob(".*"))


@pytest.mark.nightly  # those that segment share their work by the same leases
def test_three_processes_prepare_each_knee_once_and_take_over_what_a_killed_one_had(table, tmp_path):
    words = ("prepare", table, tmp_path / "three", "--jobs", 1)
    together(tmp_path / "three", *words)
    assert run_as_seen("prepare", table, tmp_path / "one").exit_code == 0
    there, alone = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "three", tmp_path / "one")
    )
    assert len(list((tmp_path / "three").glob("*/case.json"))) == KNEES
    assert there == alone
