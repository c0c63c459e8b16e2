"""Jobs through Slurm, with an sbatch and an srun that behave like Slurm's."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest
from click.testing import CliRunner

from knee3d.cli.training import train
from knee3d.cluster import ClusterError, ClusterJob
from knee3d.cluster.slurm_jobs import submit_to_slurm

cloudpickle = pytest.importorskip("cloudpickle")
pytest.importorskip("submitit")

SBATCH = """#!/bin/sh
case $1 in *.sh) ;; *) echo "sbatch: no script" >&2; exit 1;; esac
if grep -q "partition=closed" "$1"; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
cp "$1" "$SPOOL/script"
echo "$1" > "$SPOOL/path"
SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
    setsid sh "$SPOOL/script" > "$SPOOL/out" 2>&1 &
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/sh
while [ "$1" != "${1#--}" ]; do case $1 in --unbuffered) shift;; *) shift 2;; esac; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
test "$1 $2" = "requeue 7" && echo again >> "$SPOOL/requeued"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with what sbatch was given."""
    spool = tmp_path / "spool"
    spool.mkdir()
    for name, program in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (spool / name).write_text(program)
        (spool / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{spool}:{os.environ['PATH']}")
    monkeypatch.setenv("SPOOL", str(spool))
    return spool


def options(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    return dict((line.split("=", 1) + [""])[:2] for line in lines)


def wait_for(found, seconds=120):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def job_of(command, tmp_path):
    return ClusterJob("left plane", tmp_path / "a", partial(subprocess.check_call, command))


@pytest.mark.nightly
def test_planes_become_jobs(balls, slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("KNEE3D_ENCODER_WEIGHTS", "")
    command = [str(balls.folder), "--plane", "axial", "--models", str(tmp_path / "models"), "--epochs", "1",
               "--encoder-weights", "none", "--limit-slices", "4", "--launcher", "slurm"]  # fmt: skip
    given = ["--slurm", "partition=gpu", "--slurm", "gpus-per-node=4", "--slurm", "time=90", "--slurm", "exclusive"]
    run = CliRunner().invoke(train, [*command, *given])
    assert run.exit_code == 0, run.output
    sbatch = options(slurm / "script")
    assert sbatch["job-name"] == "knee3d-axial"
    assert (sbatch["partition"], sbatch["gpus-per-node"], sbatch["time"]) == ("gpu", "4", "90")
    assert "exclusive" in sbatch
    wait_for(lambda: (tmp_path / "models" / "axial" / "card.json").exists())
    run = CliRunner().invoke(train, command)
    assert run.exit_code == 0
    assert run.output.strip().endswith(str(tmp_path / "models" / "axial"))
    assert len(list((tmp_path / "models" / "slurm").glob("*_submission.sh"))) == 1  # there was nothing left to submit


def test_a_job_whose_time_is_over_is_put_back(slurm, tmp_path, caplog):
    """Slurm sends USR2 before the end; submitit then asks for the same job again."""
    caplog.set_level("INFO", "knee3d")
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGUSR2); time.sleep(60)"
    job = ClusterJob("axis", tmp_path / "a", partial(interrupted, [sys.executable, "-c", program]))
    import cloudpickle
    import submitit.core.utils  # noqa: F401

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        submit_to_slurm([job], tmp_path / "slurm", {}, retries=2)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert f"axis: Slurm job 7 prints to {tmp_path / 'slurm'}" in caplog.text
    wait_for(lambda: (slurm / "requeued").exists())
    assert options(slurm / "script")["time"] == "1440"


def interrupted(command):
    subprocess.check_call(command)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"partition": "closed"}, "Slurm did not take the job: .*invalid partition"), ({"time": "1-00:00"}, "minutes")],
)
def test_what_slurm_refuses_is_a_clear_error(slurm, tmp_path, given, message):
    with pytest.raises((ClusterError, ValueError), match=message):
        submit_to_slurm([job_of(["true"], tmp_path)], tmp_path / "slurm", given, retries=2)


def test_a_machine_without_slurm_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="Slurm"):
        submit_to_slurm([job_of(["true"], tmp_path)], tmp_path / "slurm", {}, retries=2)


def test_options_of_another_launcher_are_refused(balls, tmp_path):
    for wrong in (["--slurm", "time=3"], ["--address", "auto", "--launcher", "slurm"]):
        run = CliRunner().invoke(train, [str(balls.folder), "--models", str(tmp_path), *wrong])
        assert run.exit_code == 1
        assert "needs --launcher" in run.output
