"""Preparation that is killed, or runs out of room: nothing half-written, and what is missing is made up later."""

import hashlib
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_disk import run_in_small_disk

from knee3d import workflow
from knee3d.anatomy.tissue import SCHEMES
from knee3d.dataset import prepare
from knee3d.dataset.cases import load_dataset
from knee3d.dataset.phantom.cohort import Cohort
from knee3d.dataset.prepare import Preparation
from knee3d.workflow import data

KILLS = 20
PREPARATION = Preparation(SCHEMES["iwoai"], None, (0.5, 0.25, 0.25))
PROGRAM = """
import sys
from pathlib import Path
from knee3d import workflow
from knee3d.anatomy.tissue import SCHEMES
from knee3d.dataset.prepare import Preparation
print("ready", flush=True)
workflow.prepare(Path(sys.argv[1]), Path(sys.argv[2]), Preparation(SCHEMES["iwoai"], None, (0.5, 0.25, 0.25)), None, 2)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    return workflow.phantom(Cohort(7, (40, 40, 32)), folder, jobs=2)


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file; what a killed run was about to rename or remove is hidden, and no case."""
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_bytes(table, tmp_path):
    workflow.prepare(table, tmp_path / "whole", PREPARATION, None, jobs=2)
    expected = contents(tmp_path / "whole")
    target, rng = tmp_path / "killed", random.Random(1)
    ended = []
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", PROGRAM, table, target], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.25))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        ended.append(child.returncode)
        cases = [path for path in target.iterdir() if path.is_dir()] if target.exists() else []
        for case in cases:
            if not case.name.startswith("."):
                inside = {name: one for name, one in expected.items() if name.startswith(f"{case.name}/")}
                assert contents(case).items() == {name.split("/", 1)[1]: one for name, one in inside.items()}.items()
    assert -signal.SIGKILL in ended
    workflow.prepare(table, target, PREPARATION, None, jobs=2)
    assert contents(target) == expected


def test_what_the_list_says_of_slices_does_not_outlive_them(table, tmp_path, monkeypatch):
    """Prepared again with other settings, and interrupted: the list has none of the knees that were to be sliced."""
    before = workflow.prepare(table, tmp_path, PREPARATION, None, jobs=2)
    record = tmp_path / before.cases[0].name / "case.json"
    kept = record.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "prepare_knee", lambda *args: pytest.fail("there is nothing to do"))
        workflow.prepare(table, tmp_path, PREPARATION, None, jobs=2)
    prepare_knees = data.prepare_knees

    def interrupted(*args):
        yield next(prepare_knees(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare_knees", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workflow.prepare(table, tmp_path, replace(PREPARATION, bits=16), None, jobs=1)
    assert load_dataset(tmp_path).cases == ()
    assert record.read_bytes() != kept
    monkeypatch.undo()
    again = workflow.prepare(table, tmp_path, replace(PREPARATION, bits=16), None, jobs=2)
    assert len(again.cases) == len(before.cases)


@pytest.mark.slow
def test_without_room_it_ends_in_one_line_and_goes_on_later(table, tmp_path):
    """A limit on the size of files, as on a full disk: the same error, OSError, for every file above it."""
    command = [
        sys.executable,
        "-c",
        "from knee3d.cli import main; main()",
        "prepare",
        table,
        tmp_path / "d",
        "--scheme",
        "iwoai",
    ]

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))

    child = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_disk)
    assert child.returncode == 1, child.stderr
    assert "Traceback" not in child.stderr
    assert child.stderr.splitlines()[-1].startswith("Error: no room left")
    assert [path.name for path in (tmp_path / "d").iterdir()] in ([], ["cases.json"])
    subprocess.run(command, check=True, capture_output=True)
    workflow.prepare(table, tmp_path / "whole", Preparation(SCHEMES["iwoai"], None), None, jobs=2)
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(table, tmp_path):
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", "prepare", table, tmp_path / "small" / "d"]
    command += ["--scheme", "iwoai", "--split", "0.5,0.25,0.25", "--jobs", 2]
    done = run_in_small_disk("1m", tmp_path / "small", command)
    assert done.returncode == 1, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "no room left" in line]
    assert len(lines) == 1, done.stderr
    assert "knees are done and stay" in lines[0]
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stderr
