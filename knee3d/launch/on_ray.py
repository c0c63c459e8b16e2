"""Jobs at the same time on the machines of a Ray cluster, their folders gathered on this one.

Machines need not share a disk for what is written: a job works in a folder of its own machine, whose changed files come
to this one whenever it says so. A job whose machine is lost goes on on another one, with the files that have come.
"""

import logging
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from knee3d.atomic import LOCK, alone
from knee3d.launch.job import Job, LaunchError, log_to_stderr

log = logging.getLogger(__name__)

LAST = "checkpoints"
"""Sent after all other files of a job: a checkpoint says of them that they are there."""
PIECE = 32 * 2**20
"""Bytes of a file in one message: it must fit several times into the memory that Ray sets aside for objects."""
PARTIAL = ".partial-"
WEIGHTS_VARIABLE = "KNEE3D_ENCODER_WEIGHTS"


class Keeper:
    """Files of this machine for those that work on others. An actor: Ray runs it here, one call after another."""

    def files(self, folder: Path) -> list[str]:
        """Names of the files in a folder, with those of folders in it."""
        return list(_files(folder))

    def read(self, path: Path, start: int) -> bytes:
        """A piece of a file."""
        with path.open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def write(self, path: Path, start: int, content: bytes, last: bool) -> None:
        """Write a piece of a file; the file appears when it is whole."""
        partial = path.with_name(f"{PARTIAL}{path.name}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.write(content)
        if last:
            partial.replace(path)

    def forget_others(self, folder: Path, names: Sequence[str]) -> None:
        """Remove the files of a folder that are not named."""
        for name in set(self.files(folder)) - set(names):
            (folder / name).unlink()

    def finish(self, working: Path, final: Path) -> None:
        """Let the working folder take the place of the final one."""
        (working / LOCK).unlink(missing_ok=True)
        for folder in sorted((path for path in working.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        shutil.rmtree(final, ignore_errors=True)
        working.rename(final)


class Copy:
    """A folder of this machine whose original lies with a `Keeper`."""

    def __init__(self, folder: Path, original: Path, keeper: Any) -> None:
        self._keeper, self._original = keeper, original
        for name in _ask(keeper, "files", original):
            _fetch(keeper, original / name, folder / name)
        self._sent = _files(folder)

    def keep(self, folder: Path) -> None:
        """Send what has changed since the last time, and have removed what is no longer there."""
        there = _files(folder)
        changed = [name for name, version in there.items() if self._sent.get(name) != version]
        for name in sorted(changed, key=lambda name: (name.startswith(LAST), name)):
            _send(self._keeper, folder / name, self._original / name)
        _ask(self._keeper, "forget_others", self._original, list(there))
        self._sent = there


def _ask(keeper: Any, method: str, *arguments: Any) -> Any:
    import ray

    return ray.get(getattr(keeper, method).remote(*arguments))


def _fetch(keeper: Any, original: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while piece := _ask(keeper, "read", original, file.tell()):
            file.write(piece)


def _send(keeper: Any, path: Path, original: Path) -> None:
    pieces = max(ceil(path.stat().st_size / PIECE), 1)
    with path.open("rb") as file:
        for number in range(pieces):
            _ask(keeper, "write", original, number * PIECE, file.read(PIECE), number == pieces - 1)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Names of the files in a folder and in its folders -> size and time of change."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    found = [path for path in found if path.name != LOCK and not path.name.startswith(PARTIAL)]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def _run(job: Job, keeper: Any, encoder_weights: Path | None) -> None:
    """On the machine that works."""
    log_to_stderr()
    with TemporaryDirectory(prefix="knee3d-") as home:
        if encoder_weights is not None:
            _fetch(keeper, encoder_weights, Path(home) / encoder_weights.name)
            os.environ[WEIGHTS_VARIABLE] = str(Path(home) / encoder_weights.name)
        working, final = Path(home) / job.working.name, Path(home) / job.final.name
        copy = Copy(working, job.working, keeper)
        log.info("%s: on %s", job.name, socket.gethostname())
        job.work(Path(home), lambda: copy.keep(working))
        copy.keep(final)
        _ask(keeper, "finish", job.working, job.final)


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
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise LaunchError("Ray is not installed; pip install 'knee3d[ray]' on every machine") from error
    if address is not None and address.startswith("ray://"):
        raise LaunchError(
            "give --address as host:port, on a machine that has joined with ray start --address=host:port"
        )
    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(alone(job.working))
        try:
            ray.init(address, logging_level=logging.WARNING, include_dashboard=None if address else False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LaunchError(f"no Ray cluster answers at {address}; see ray start --help ({error})") from error
        stack.callback(ray.shutdown)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = shares(machines, len(jobs))
        each = ", ".join(f"{count} {name.removeprefix('num_')}" for name, count in share.items() if count)
        log.info("%d jobs on %d machines, %s each", len(jobs), len(machines), each)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote()
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
