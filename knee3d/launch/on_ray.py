"""Jobs at the same time on the machines of a Ray cluster, their folders gathered on this one.

Machines need not share a disk for what is written: a job works in a folder of its own machine, whose changed files come
to this one whenever it says so. A job whose machine is lost goes on on another one, with the files that have come.
"""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from knee3d.atomic import alone
from knee3d.launch.job import Job, LaunchError, log_to_stderr
from knee3d.launch.keeper import ask, fetch, files_in, joined, keeper_here, send

log = logging.getLogger(__name__)

LAST = "checkpoints"
"""Sent after all other files of a job: a checkpoint says of them that they are there."""
WEIGHTS_VARIABLE = "KNEE3D_ENCODER_WEIGHTS"


class Copy:
    """A folder of this machine whose original lies with a `Keeper`."""

    def __init__(self, folder: Path, original: Path, keeper: Any) -> None:
        self._keeper, self._original = keeper, original
        for name in ask(keeper, "files", original):
            fetch(keeper, original / name, folder / name)
        self._sent = files_in(folder)

    def keep(self, folder: Path) -> None:
        """Send what has changed since the last time, and have removed what is no longer there."""
        there = files_in(folder)
        changed = [name for name, version in there.items() if self._sent.get(name) != version]
        for name in sorted(changed, key=lambda name: (name.startswith(LAST), name)):
            send(self._keeper, folder / name, self._original / name)
        ask(self._keeper, "forget_others", self._original, list(there))
        self._sent = there


def _run(job: Job, keeper: Any, encoder_weights: Path | None) -> None:
    """On the machine that works."""
    log_to_stderr()
    with TemporaryDirectory(prefix="knee3d-") as home:
        if encoder_weights is not None:
            fetch(keeper, encoder_weights, Path(home) / encoder_weights.name)
            os.environ[WEIGHTS_VARIABLE] = str(Path(home) / encoder_weights.name)
        working, final = Path(home) / job.working.name, Path(home) / job.final.name
        copy = Copy(working, job.working, keeper)
        log.info("%s: on %s", job.name, socket.gethostname())
        job.work(Path(home), lambda: copy.keep(working))
        copy.keep(final)
        ask(keeper, "finish", job.working, job.final)


def shares(machines: Sequence[Mapping[str, float]], jobs: int) -> dict[str, int]:
    """What each job may take so that all run at the same time, spread evenly over the machines.

    Args:
        machines: Of each the resources, by Ray's names.
        jobs: How many.

    Returns:
        num_cpus, at least 1, and num_gpus, 0 only where no machine has one.
    """

    def share(name: str) -> int:
        largest = sorted((int(machine.get(name, 0)) for machine in machines), reverse=True)
        used = [count for count in largest if count][:jobs]
        return max(1, used[-1] // ceil(jobs / len(used))) if used else 0

    return {"num_cpus": max(1, share("CPU")), "num_gpus": share("GPU")}


def run_on_ray(jobs: Sequence[Job], address: str | None, retries: int) -> None:
    """Run jobs on a Ray cluster at the same time; returns when all have ended.

    Args:
        jobs: What they read (datasets) must be there at the same path on each machine.
        address: The cluster's, as `ray start --head` prints it; "auto" is the one this machine belongs to, None starts
            one of this machine alone. This machine must belong to it.
        retries: How often a job whose machine or process was lost is started again.

    Raises:
        LaunchError: Ray is not installed, there is no such cluster, or jobs failed: names them, after all have ended.
        ValueError: Another process works in a job's folder.
    """
    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(alone(job.working))
        stack.enter_context(joined(address))
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = shares(machines, len(jobs))
        each = ", ".join(f"{count} {name.removeprefix('num_')}" for name, count in share.items() if count)
        log.info("%d jobs on %d machines, %s each", len(jobs), len(machines), each)
        keeper = keeper_here()
        named = os.environ.get(WEIGHTS_VARIABLE, "")
        weights = Path(named).absolute() if named else None
        task = ray.remote(_run)
        options = {
            "max_retries": retries,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"TF_NUM_INTRAOP_THREADS": str(share["num_cpus"])}},
            **share,
        }
        running = {task.options(name=job.name, **options).remote(job, keeper, weights): job for job in jobs}
        failed = []
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                ray.get(done)
                log.info("%s: gathered in %s", job.name, job.final)
            except ray.exceptions.RayTaskError as error:
                failed.append(f"{job.name}: {error.cause}")
            except ray.exceptions.RayError as error:
                failed.append(f"{job.name}: lost {retries + 1} times ({' '.join(str(error).split())[:200]})")
    if failed:
        raise LaunchError("; ".join(failed))
