"""Jobs on the machines of a Ray cluster, which share a disk for all that is read and written."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from textwrap import shorten
from typing import Any

from knee3d.launch import Job, LaunchError, log_to_stderr

WEIGHTS = "KNEE3D_ENCODER_WEIGHTS"
LOOK_S = 60.0
"""Between two looks at whether there is a machine left."""


def run_on_ray(jobs: Sequence[Job], address: str | None, retries: int) -> None:
    """Run jobs at the same time on the machines of a cluster: one on each, or more where it has several GPUs.

    Args:
        jobs: What to do; they go on with what is there after an interruption.
        address: Address of the cluster, as `ray start --head` prints it, to which this machine must belong; "auto" is
            the cluster that it belongs to, None starts one of this machine alone.
        retries: How often a job whose worker or machine was lost is begun again.

    Raises:
        LaunchError: There is no such cluster, no machine is left, or jobs failed: names them, after all have ended.
    """
    given = {"env_vars": {WEIGHTS: str(Path(path).absolute())}} if (path := os.environ.get(WEIGHTS)) else None
    try:
        import ray

        ray.init(address, logging_level=logging.WARNING, runtime_env=given)
    except ImportError as error:
        raise LaunchError("Ray is not installed; pip install 'knee3d[ray]' on every machine") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LaunchError(f"no Ray cluster answers at {address}; see ray start --help ({error})") from error
    try:
        needs = _share(_machines(ray.nodes()), len(jobs))
        begin = ray.remote(_work).options(max_retries=retries, scheduling_strategy="SPREAD", **needs)
        begun, failed = {begin.remote(job): job.name for job in jobs}, []
        while begun:
            ended, _ = ray.wait([*begun], timeout=LOOK_S)
            if not ended and not _machines(ray.nodes()):
                raise LaunchError("no machine of the cluster is left; what is finished stays, run it again")
            for one in ended:
                name = begun.pop(one)
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    failed.append(f"{name}: {shorten(str(getattr(error, 'cause', error)), 1000)}")
    finally:
        ray.shutdown()
    if failed:
        raise LaunchError("; ".join(failed))


def _work(job: Job) -> None:
    log_to_stderr()
    job.work()


def _machines(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """What the machines have that work: those with GPUs, or where there is none all."""
    there = [node["Resources"] for node in nodes if node["Alive"] and "CPU" in node["Resources"]]
    return [has for has in there if has.get("GPU")] or there


def _share(machines: Sequence[Mapping[str, float]], count: int) -> dict[str, float]:
    """What one of so many jobs is given, so that each machine has one, or one for each GPU if jobs outnumber machines.

    Raises:
        LaunchError: There is no machine.
    """
    if not machines:
        raise LaunchError("no machine of the cluster has a processor to work with")
    most = ceil(count / len(machines))
    jobs = [max(1, min(int(has.get("GPU", 0)), most)) for has in machines]
    cpus, gpus = (
        min(int(has.get(kind, 0)) // many for has, many in zip(machines, jobs, strict=True)) for kind in ("CPU", "GPU")
    )
    return {"num_cpus": max(1, cpus), "num_gpus": gpus}
