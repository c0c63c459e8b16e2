"""What is launched: work that fills a folder, and that goes on in it after an interruption."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class LaunchError(RuntimeError):
    """A cluster or a job on it failed; the message says which and how to go on."""


@dataclass(frozen=True)
class Job:
    """Work that fills a folder.

    Attributes:
        name: For messages.
        working: The folder while it is being filled.
        final: Its name when it is done, beside it.
        work: Fills a folder called as `working` in the folder that it is given, goes on with what is there, calls the
            function that it is given whenever all that is there is worth keeping, and renames the folder as `final`.
            Found by its import: the machine that runs it has knee3d, too.
    """

    name: str
    working: Path
    final: Path
    work: Callable[[Path, Callable[[], object]], object]


def log_to_stderr() -> None:
    """Show on the machine that works what the command line shows here."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("knee3d").setLevel(logging.INFO)
