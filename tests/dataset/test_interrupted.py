"""Preparation that is killed, or runs out of room: nothing half-written, and what is missing is made up later."""

import hashlib
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from as_seen import run_as_seen
from faults import changes_of, killed_at
from small_disk import run_in_small_disk

from knee3d import lease
from knee3d.api import data
from knee3d.api.data import prepare_dataset, write_phantom
from knee3d.dataset import preparation
from knee3d.dataset.case_collection import load_cases
from knee3d.dataset.preparation import PrepareConfig
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig

PREPARATION = PrepareConfig(SCHEMES["iwoai"], None, (0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def table(cohort_of) -> Path:
    return cohort_of(CohortConfig(4, (40, 40, 32)))


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file; what a killed run was about to rename or remove is hidden, and no case."""
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_killed_at_any_change_it_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    """Also where the killed process is this one, whose leases are then as old as may be."""
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    table = write_phantom(CohortConfig(1, (16, 16, 16)), tmp_path / "cohort", jobs=1)
    preparation = PrepareConfig(SCHEMES["compartments"], None, (1, 0, 0))

    def work(folder: Path) -> None:
        prepare_dataset(table, folder, preparation, None, jobs=1)

    count = changes_of(lambda: work(tmp_path / "whole"), tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert count > 200
    cut_short = 0
    for number in sorted({*range(1, count, count // 20), *range(count - 12, count + 1)}):
        target = tmp_path / f"killed {number}"
        killed_at(number, lambda here=target: work(here), target)
        there = contents(target)
        for case in {name.split("/")[0] for name in there} - {"cases.json"}:
            whole = {name: digest for name, digest in expected.items() if name.startswith(f"{case}/")}
            assert {name: digest for name, digest in there.items() if name.startswith(f"{case}/")} == whole
        cut_short += there != expected
        work(target)
        assert contents(target) == expected
        assert not [path.name for path in target.iterdir() if path.name.startswith(".")]
    assert cut_short > 20


@pytest.mark.slow
def test_what_the_list_says_of_slices_does_not_outlive_them(table, tmp_path, monkeypatch):
    """Prepared again with other settings and interrupted: the list has no knee that is to be sliced again."""
    before = prepare_dataset(table, tmp_path, PREPARATION, None, jobs=2)
    record = tmp_path / before.cases[0].name / "case.json"
    kept = record.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "prepare_knee", lambda *args: pytest.fail("there is nothing to do"))
        prepare_dataset(table, tmp_path, PREPARATION, None, jobs=2)
    prepare_knees = data.prepare_knees

    def interrupted(*args):
        yield next(prepare_knees(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare_knees", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(table, tmp_path, replace(PREPARATION, bits=16), None, jobs=1)
    assert load_cases(tmp_path).cases == ()
    assert record.read_bytes() != kept
    monkeypatch.undo()
    again = prepare_dataset(table, tmp_path, replace(PREPARATION, bits=16), None, jobs=2)
    assert len(again.cases) == len(before.cases)


@pytest.mark.slow
def test_without_room_it_ends_in_one_line_and_goes_on_later(table, tmp_path):
    """A limit on the size of files, as on a full disk: the same error, OSError, for every file above it."""
    words = ["prepare", table, tmp_path / "d", "--scheme", "iwoai"]
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", *words]

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))

    child = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_disk)
    assert child.returncode == 1, child.stderr
    assert "Traceback" not in child.stderr
    assert child.stderr.splitlines()[-1].startswith("Error: no room left")
    assert [path.name for path in (tmp_path / "d").iterdir()] in ([], ["cases.json"])
    assert run_as_seen(*words).exit_code == 0
    prepare_dataset(table, tmp_path / "whole", PrepareConfig(SCHEMES["iwoai"], None), None, jobs=2)
    assert contents(tmp_path / "d") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(table, tmp_path):
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", "prepare", table, tmp_path / "small" / "d"]
    command += ["--scheme", "iwoai", "--split", "0.5,0.25,0.25", "--jobs", 2]
    done = run_in_small_disk("500k", tmp_path / "small", command)
    assert done.returncode == 1, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "no room left" in line]
    assert len(lines) == 1, done.stderr
    assert "knees are done and stay" in lines[0]
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stderr
