"""Run jobs through Slurm, by submitit."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knee3d.cluster import ClusterError, ClusterJob, log_to_stderr

log = logging.getLogger(__name__)

DAY = 24 * 60


@dataclass(frozen=True)
class _Task:
    """What submitit runs; it asks for a `checkpoint` before time is over or the job is preempted."""

    job: ClusterJob

    def __call__(self) -> None:
        log_to_stderr()
        self.job.work()

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_to_slurm(jobs: Sequence[ClusterJob], folder: Path, options: Mapping[str, str | bool], retries: int) -> None:
    """Submit jobs to Slurm, and say under which numbers; returns at once.

    Args:
        jobs: All that they read and write must be on a disk that the machines share.
        folder: Gets the scripts and logs.
        options: Of sbatch by name, True for those without a value: {"partition": "gpu", "gpus-per-node": "4"}; the time
            is in minutes, `DAY` by default.
        retries: How often a job whose time is over is put into the queue again; one that is preempted always is.

    Raises:
        ClusterError: submitit is not installed, this machine has no Slurm, or Slurm refused a job.
        ValueError: The time is no whole number of minutes.
    """
    try:
        import submitit
    except ImportError as error:
        raise ClusterError("submitit is not installed; pip install 'knee3d[slurm]'") from error
    others = {name.replace("-", "_"): value for name, value in options.items()}
    minutes = others.pop("time", str(DAY))
    if not str(minutes).isdecimal():
        raise ValueError(f"--slurm time={minutes} must be a whole number of minutes")
    try:
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=retries)
        for job in jobs:
            name = f"knee3d-{job.name.replace(' ', '-')}"
            executor.update_parameters(job_name=name, time=int(minutes), additional_parameters=others)
            queued = executor.submit(_Task(job))
            log.info("%s: Slurm job %s prints to %s", job.name, queued.job_id, queued.paths.stderr)
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        raise ClusterError(f"Slurm did not take the job: {' '.join(str(error).split())}") from error
