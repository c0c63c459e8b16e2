"""Leases: let one process at a time work on a file or folder, among all processes on machines that share a disk.

The lease on NAME is the folder .lease-NAME beside it. It holds one empty file, whose name is that of the holder:
machine, process, and a random word, so that no two holders have the same name.

- To take a lease, a process makes such a folder under a temporary name and renames it to .lease-NAME. The system, or
  the server of a network disk, lets one process do so: only where there is no such folder, or an empty one.
- The holder renews the time of its file every `BEAT_S` seconds, in a thread.
- A holder is gone if its file was not renewed for `STALE_S` seconds by the clock of the disk, or if it was a process of
  this machine that no longer exists. Whoever wants the lease then removes the file of this holder, and tries again.
- A holder that was only suspended finds its file removed, and learns with `Lease.check` that the lease is lost.
"""

import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from knee3d.atomic import partial_of, remove_partial

log = logging.getLogger(__name__)

BEAT_S, STALE_S = 10.0, 60.0
PAUSE_S, TURN_S = 3.0, 0.05
"""Between two looks at what others hold, and at what they hold for an instant."""
_PREFIX = ".lease-"
_HOLDER = re.compile(r"(?P<host>.*)\+(?P<machine>[0-9a-f]{8})\+(?P<process>[0-9]{1,9})\+(?P<word>[0-9a-f]{8})")
_LEFTOVER = re.compile(r"\.(?:partial-[0-9a-f]{8}|lease|old)-(?P<name>.+)")
_TRIES = 3

Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Mapping[str, Item], bool], Iterator[tuple[str, Result | None]]]
"""Works on items: yields names and results, None where another process works on an item. The second argument says
whether leases of processes that are gone may be taken over."""


class LeaseHeldError(ValueError):
    """Another process holds the lease.

    Attributes:
        here: Whether it is a process of this machine, which then is alive.
    """

    def __init__(self, path: Path, holder: str) -> None:
        found = _HOLDER.fullmatch(holder)
        who = f"process {found['process']} on {found['host']}" if found else "another process"
        super().__init__(f"{path}: {who} is at work there; wait for it, or choose another folder")
        self.here = found is not None and found["machine"] == _machine()


class LeaseLostError(LeaseHeldError):
    """The lease was not renewed for so long that another process took it: what was made under it must not be kept."""


@dataclass(frozen=True)
class Lease:
    """A lease that this process holds.

    Attributes:
        path: What is leased.
        file: The holder's file.
    """

    path: Path
    file: Path

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLostError: Another process may have it by now.
            OSError: The disk does not answer.
        """
        try:
            os.utime(self.file)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            raise LeaseLostError(self.path, "") from error

    def release(self) -> None:
        """Give the lease back; if the disk does not answer, it ends by itself."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
            self.file.parent.rmdir()  # fails where another process has taken it already


@contextmanager
def leased(path: Path, take_over: bool = True, patience_s: float = 0.0) -> Iterator[Lease]:
    """Hold the lease on a path while the block runs. The path need not exist; its parent folder is made.

    Args:
        path: A file or a folder.
        take_over: Whether to take the lease from a process that is gone.
        patience_s: How long to wait for a process of another machine, which may have died without a word.

    Raises:
        LeaseHeldError: Another process holds the lease.
        LeaseLostError: The block failed and the lease was lost meanwhile: its new holder may have removed files.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            lease = _take(path, take_over)
            break
        except LeaseHeldError as held:
            if held.here or time.monotonic() >= end:
                raise
            time.sleep(min(PAUSE_S, patience_s))
    done = threading.Event()
    threading.Thread(target=_renew, args=(lease, done), daemon=True).start()
    try:
        yield lease
    except Exception:
        with suppress(OSError):
            lease.renew()
        raise
    finally:
        done.set()
        lease.release()


@contextmanager
def wait_for_lease(path: Path) -> Iterator[None]:
    """Hold the lease on a path while the block runs, after waiting for it: for files that several processes write."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(leased(path))
                break
            except LeaseHeldError:
                time.sleep(TURN_S)
        yield


def share_work(items: Mapping[str, Item], run: Run[Item, Result]) -> Iterator[tuple[str, Result]]:
    """Work on items that other processes may work on at the same time.

    Items on which others are at work are left to the end. Those whose process is gone are then taken over: as late as
    that, so that an item that ends its process does so when all others are done.

    Args:
        items: Name to item.
        run: See `Run`. An item for which it yields nothing is left to the end, too.

    Yields:
        Name and result of each item, when all is done, here or elsewhere.
    """
    left, late, told = dict(items), False, False
    while left:
        for name, result in run(dict(left), late):
            if result is not None:
                del left[name]
                yield name, result
        if left and late:
            if not told:
                log.info("waiting for other processes: %s", ", ".join([*left][:5]) + (" ..." if len(left) > 5 else ""))
            told = True
            time.sleep(PAUSE_S)
        late = True


def run_in_threads(work: Callable[[Item, bool], Result], jobs: int) -> Run[Item, Result]:
    """A `Run` in threads of this process.

    Args:
        work: Called with an item, and whether leases may be taken over; raises `LeaseHeldError` where it cannot be done
            now.
        jobs: Items at a time.
    """

    def run(items: Mapping[str, Item], late: bool) -> Iterator[tuple[str, Result | None]]:
        pool = ThreadPoolExecutor(jobs)
        try:
            names = {pool.submit(work, item, late): name for name, item in items.items()}
            for done in as_completed(names):
                try:
                    yield names[done], done.result()
                except LeaseHeldError:
                    yield names[done], None
        finally:  # what was not begun is dropped, and what was is waited for
            pool.shutdown(wait=True, cancel_futures=True)

    return run


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Remove what processes that are gone have left beside some files and folders: leases, temporary and old folders.

    Args:
        folder: Where they lie.
        names: Of the files and folders; nothing else is looked at.
    """
    found = {match["name"] for path in os.scandir(folder) if (match := _LEFTOVER.fullmatch(path.name))}
    for name in found & set(names):
        with suppress(LeaseHeldError, OSError), leased(folder / name):
            remove_partial(folder / name)


def file_system_time(folder: Path) -> float:
    """The time by the clock of the disk that a folder is on, in seconds as those of its files."""
    file = folder / f".clock-{secrets.token_hex(4)}"
    try:
        return _touched(file)
    finally:
        file.unlink(missing_ok=True)


def _take(path: Path, take_over: bool) -> Lease:
    place = path.with_name(f"{_PREFIX}{path.name}")
    me = f"{socket.gethostname()}+{_machine()}+{os.getpid()}+{secrets.token_hex(4)}"
    made, holder = partial_of(path), None
    try:
        made.mkdir(parents=True)
        now = _touched(made / me)
        for _ in range(_TRIES):
            try:
                made.rename(place)
                return Lease(path, place / me)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            holder = _holder(place)
            if holder is not None:
                if not (take_over and _is_gone(place / holder, now)):
                    break
                (place / holder).unlink(missing_ok=True)
            with suppress(OSError):  # not every system renames to the name of an empty folder
                place.rmdir()
        raise LeaseHeldError(path, holder or "")
    except FileNotFoundError as error:  # who holds it has taken what we made for what a killed process left
        raise LeaseHeldError(path, holder or "") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _renew(lease: Lease, done: threading.Event) -> None:
    while not done.wait(BEAT_S):
        try:
            lease.renew()
        except LeaseLostError:
            return
        except OSError:
            continue  # a network disk may answer again


def _holder(place: Path) -> str | None:
    """Name of the holder of a lease; None where there is none."""
    try:
        return next((name for name in os.listdir(place) if not name.startswith(".")), None)
    except FileNotFoundError:
        return None


def _is_gone(file: Path, now: float) -> bool:
    found = _HOLDER.fullmatch(file.name)
    if found and found["machine"] == _machine():
        with suppress(PermissionError):  # of a process of another user
            try:
                os.kill(int(found["process"]), 0)
            except ProcessLookupError:
                return True
    try:
        with file.open("rb") as opened:  # a client of NFS asks the server for the time of a file that it opens
            return now - os.fstat(opened.fileno()).st_mtime > STALE_S
    except FileNotFoundError:
        return True


def _touched(file: Path) -> float:
    """Make a file; returns its time."""
    with file.open("wb") as opened:
        return os.fstat(opened.fileno()).st_mtime


@cache
def _machine() -> str:
    """Eight characters that tell this machine, since it was started, from others, and containers from each other."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:
        told = secrets.token_hex()  # then nothing is known of other processes but their heartbeats
    return hashlib.sha256(told.encode()).hexdigest()[:8]
