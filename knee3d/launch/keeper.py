"""A Ray cluster: joining it, and moving files between this machine and those that work."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from knee3d.atomic import LOCK, replace_folder
from knee3d.launch.job import LaunchError

PIECE = 32 * 2**20
"""Bytes of a file in one message: it must fit several times into the memory that Ray sets aside for objects."""
PARTIAL = ".partial-"


class Keeper:
    """Files of this machine for those that work on others. An actor: Ray runs it here, one call after another."""

    def files(self, folder: Path) -> list[str]:
        """Names of the files in a folder, with those of folders in it."""
        return list(files_in(folder))

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
        replace_folder(working, final)


def ask(keeper: Any, method: str, *arguments: Any) -> Any:
    """What a `Keeper`'s method returns."""
    import ray

    return ray.get(getattr(keeper, method).remote(*arguments))


def fetch(keeper: Any, original: Path, path: Path) -> None:
    """Copy a file of the keeper's machine to this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while piece := ask(keeper, "read", original, file.tell()):
            file.write(piece)


def send(keeper: Any, path: Path, original: Path) -> None:
    """Copy a file of this machine to the keeper's."""
    pieces = max(ceil(path.stat().st_size / PIECE), 1)
    with path.open("rb") as file:
        for number in range(pieces):
            ask(keeper, "write", original, number * PIECE, file.read(PIECE), number == pieces - 1)


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Names of the files in a folder and in its folders -> size and time of change."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    found = [path for path in found if path.name != LOCK and not path.name.startswith(PARTIAL)]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Belong to a Ray cluster while the block runs.

    Args:
        address: As `ray start --head` prints it; "auto" is the one this machine belongs to, None starts one of this
            machine alone. This machine must belong to it.

    Raises:
        LaunchError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise LaunchError("Ray is not installed; pip install 'knee3d[ray]' on every machine") from error
    if address is not None and address.startswith("ray://"):
        raise LaunchError(
            "give --address as host:port, on a machine that has joined with ray start --address=host:port"
        )
    try:
        ray.init(address, logging_level=logging.WARNING, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise LaunchError(f"no Ray cluster answers at {address}; see ray start --help ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def keeper_here() -> Any:
    """A `Keeper` of this machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote()
