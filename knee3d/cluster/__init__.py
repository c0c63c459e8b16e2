"""Work on the machines of a Ray or Slurm cluster that share a disk with this one."""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 10.0


class ClusterError(RuntimeError):
    """A cluster or a job on it failed; the message says which and how to go on."""


@dataclass(frozen=True)
class ClusterJob:
    """Work that fills a folder.

    Attributes:
        name: Name of the job for messages.
        folder: The folder that is there when the job is done.
        work: Does the job, and goes on with what is there after an interruption. It is found by its import: the machine
            that runs it has knee3d, too.
    """

    name: str
    folder: Path
    work: Callable[[], object]


def log_to_stderr() -> None:
    """Show on the machine that works what the command line shows here."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("knee3d").setLevel(logging.INFO)


def check_cluster_answers(address: str | None) -> None:
    """Refuse a HOST:PORT where nothing answers; Ray itself would try for ten minutes.

    Args:
        address: The address of a cluster; other forms than HOST:PORT and ray://HOST:PORT are not looked at.

    Raises:
        OSError: Nothing answers within `ANSWER_S` seconds.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), ANSWER_S).close()
