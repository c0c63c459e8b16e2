"""Leases: one holder at a time in every interleaving, whatever becomes of the others."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from knee3d import lease as room
from knee3d.atomic import remove_partial, whole_folder
from knee3d.lease import (
    LeaseHeldError,
    LeaseLostError,
    file_system_time,
    leased,
    remove_leftovers,
    run_in_threads,
    share_work,
    wait_for_lease,
)

ELSEWHERE = "node17+0123abcd+4711+89abcdef"
"""Holder's name of a process on another machine."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(room, "PAUSE_S", 0.01)
    monkeypatch.setattr(room, "TURN_S", 0.001)


def held_by(path: Path, holder: str, age_s: float = 0.0) -> Path:
    """What a holder leaves whose last heartbeat was so long ago."""
    file = path.with_name(f".lease-{path.name}") / holder
    file.parent.mkdir()
    file.touch()
    make_old(file, age_s)
    return file


def make_old(file: Path, age_s: float = 1000.0) -> None:
    then = file.stat().st_mtime - age_s
    os.utime(file, (then, then))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_one_at_a_time(tmp_path):
    path = tmp_path / "new" / "case"
    with leased(path) as lease:
        with (
            pytest.raises(LeaseHeldError, match=f"{path}: process {os.getpid()} on .* choose another folder") as held,
            leased(path),
        ):
            pass
        assert held.value.here
        lease.renew()
        assert names(path.parent) == {".lease-case"}
        with leased(path.with_name("other")) as other:
            assert other.file.name != lease.file.name
    with pytest.raises(ZeroDivisionError), leased(path):
        raise ZeroDivisionError
    assert not names(path.parent)


def test_many_threads_take_turns(tmp_path):
    """Reading and writing a number would lose counts if two did so at the same time."""
    file = tmp_path / "count"
    file.write_text("0")

    def add(_: int) -> None:
        with wait_for_lease(file):
            count = int(file.read_text())
            time.sleep(0)
            file.write_text(str(count + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(100)))
    assert file.read_text() == "100"
    assert names(tmp_path) == {"count"}


class Schedule:
    """Lets threads take their next steps in a given order, as long as they have steps to take."""

    def __init__(self, order: tuple[str, ...]) -> None:
        self._order = list(order)
        self._change = threading.Condition()

    def step(self) -> None:
        me = threading.current_thread().name
        with self._change:
            self._change.wait_for(lambda: me not in self._order or self._order[0] == me, timeout=10)
            if me in self._order:
                del self._order[0]
            self._change.notify_all()

    def run(self, **works: Callable[[], object]) -> None:
        """Do works at the same time, each under its name in the order."""

        def whole(work: Callable[[], object]) -> None:
            with suppress(LeaseHeldError):
                work()
            with self._change:
                self._order = [who for who in self._order if who != threading.current_thread().name]
                self._change.notify_all()

        threads = [threading.Thread(target=whole, args=(work,), name=name) for name, work in works.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    ["nobody", "stale", "releases it",
     *(pytest.param(more, marks=pytest.mark.nightly) for more in ("dead", "empty", "wakes up", "works"))],
)  # fmt: skip
def test_in_every_order_of_steps_one_of_two_gets_it(tmp_path, monkeypatch, before):
    """All orders of the first eight steps of two takers, or of six with the holder, who asks the disk for something."""
    schedule = Schedule(())
    for where, name in ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (os, "listdir"), (os, "utime"),
                        (room, "_is_gone")):  # fmt: skip
        monkeypatch.setattr(where, name, stepping(getattr(where, name), lambda: schedule.step()))
    third = before in ("releases it", "wakes up", "works")
    for number, order in enumerate(itertools.product("ABO", repeat=6) if third else itertools.product("AB", repeat=8)):
        path, schedule = tmp_path / f"case{number}", Schedule(order)
        got = contest(room.Lease(path, stage(path, before)), schedule, before if third else "")
        held, place = {name for name in got if got[name].file.exists()}, path.with_name(f".lease-{path.name}")
        assert set(got) - {"O"} <= held, order
        assert len(held) == 1 or (before == "releases it" and not place.exists()), order
        assert not place.exists() or names(place) == {got[name].file.name for name in held}
        for name in held:
            got[name].renew()
            got[name].release()
    assert not names(tmp_path)


def contest(owner: room.Lease, schedule: Schedule, owner_does: str) -> dict[str, room.Lease]:
    """Who holds the lease, or did so after all."""
    got: dict[str, room.Lease] = {}

    def take() -> None:
        got[threading.current_thread().name] = room._take(owner.path, take_over=True)

    def check() -> None:
        owner.renew()
        got["O"] = owner

    third = {"O": owner.release if owner_does == "releases it" else check} if owner_does else {}
    schedule.run(A=take, B=take, **third)
    return got


def stepping(call, step):
    def wrapped(*args, **options):
        step()
        return call(*args, **options)

    return wrapped


def stage(path: Path, before: str) -> Path:
    if before == "nobody":
        return path.with_name("no holder")
    holder = f"here+{room._machine()}+{dead_process()}+89abcdef" if before == "dead" else ELSEWHERE
    file = held_by(path, holder, 0 if before in ("dead", "works") else 100)
    if before == "empty":
        file.unlink()
    return file


def dead_process(known: list[int] = []) -> int:  # noqa: B006 one is enough
    if not known:
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        known.append(child.pid)
    return known[0]


def test_who_was_robbed_notices_and_keeps_nothing(tmp_path):
    """A suspended process: another one takes its lease and finishes before it wakes up."""
    path = tmp_path / "case"

    def mine() -> None:
        with leased(path) as lease, whole_folder(path) as partial:
            (partial / "result").write_text("mine")
            make_old(lease.file)
            with leased(path) as other, whole_folder(path) as theirs:
                (theirs / "result").write_text("theirs")
                other.renew()
            lease.renew()

    assert str(path) in str(pytest.raises(LeaseLostError, mine).value)
    assert (path / "result").read_text() == "theirs"
    assert names(tmp_path) == {"case"}


def test_who_was_robbed_fails_for_that_reason_and_gives_nothing_back(tmp_path):
    path = tmp_path / "case"

    def mine() -> None:
        with leased(path) as lease:
            make_old(lease.file)
            others.append(stack.enter_context(leased(path)))
            raise FileNotFoundError("the other one has removed the temporary folder")

    others: list[room.Lease] = []
    with ExitStack() as stack:
        pytest.raises(LeaseLostError, mine)
        others[0].renew()


def test_a_process_of_this_machine_that_is_dead_is_known_to_be(tmp_path):
    path = tmp_path / "case"
    held_by(path, f"here+{room._machine()}+{dead_process()}+89abcdef")
    with pytest.raises(LeaseHeldError), leased(path, take_over=False):
        pass
    with leased(path):
        assert len(names(tmp_path / ".lease-case")) == 1
    held_by(path, f"here+{room._machine()}+{os.getpid()}+89abcdef")
    with pytest.raises(LeaseHeldError), leased(path):
        pass


@pytest.mark.parametrize("holder", [ELSEWHERE, "something else"])
def test_of_other_machines_the_clock_of_the_disk_tells(tmp_path, monkeypatch, holder):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    path = tmp_path / "case"
    file = held_by(path, holder, room.STALE_S - 5)
    with pytest.raises(LeaseHeldError) as held, leased(path):
        pass
    assert not held.value.here
    make_old(file, 10)
    with leased(path):
        pass
    assert not names(tmp_path)


def test_a_lease_is_renewed_also_after_the_disk_was_away(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "BEAT_S", 0.005)
    utime, failures = os.utime, itertools.count()

    def away(*args, **options):
        if threading.current_thread() is not threading.main_thread() and next(failures) < 3:
            raise OSError(5, "Input/output error")
        utime(*args, **options)

    with leased(tmp_path / "case") as lease:
        monkeypatch.setattr(os, "utime", away)
        utime(lease.file, (0, 0))
        until = time.monotonic() + 10
        while lease.file.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.005)
        assert lease.file.stat().st_mtime > 0
    assert next(failures) >= 3


def test_patience_with_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "STALE_S", 0.1)
    path = tmp_path / "case"
    held_by(path, ELSEWHERE)
    with leased(path, patience_s=10), pytest.raises(LeaseHeldError), leased(path, patience_s=10):
        pass  # the first did not renew its lease; a process of this machine is alive, or it is not
    file = held_by(path, ELSEWHERE)
    alive = threading.Event()

    def renew() -> None:
        while not alive.wait(0.01):
            os.utime(file)

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(LeaseHeldError), leased(path, patience_s=0.3):
        pass
    alive.set()
    thread.join()


def test_what_others_do_is_left_to_the_end_and_taken_over_last(tmp_path):
    """b is another's, which finishes it; c is that of a dead process."""
    begun = []
    file = held_by(tmp_path / "b", ELSEWHERE)
    held_by(tmp_path / "c", f"here+{room._machine()}+{dead_process()}+89abcdef")

    def work(name: str, take_over: bool) -> str:
        if (tmp_path / name).exists():
            return "elsewhere"
        with leased(tmp_path / name, take_over):
            begun.append(name)
            if name == "c":
                (tmp_path / "b").touch()
                file.unlink()
        return "here"

    ended = dict(share_work({name: name for name in "abcde"}, run_in_threads(work, jobs=1)))
    assert ended == {"a": "here", "b": "elsewhere", "c": "here", "d": "here", "e": "here"}
    assert begun == ["a", "d", "e", "c"]


def test_an_error_that_concerns_all_ends_the_work(tmp_path):
    def work(name: str, take_over: bool) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(share_work({"a": "a", "b": "b"}, run_in_threads(work, jobs=2)))


def test_only_leftovers_of_what_is_named_and_nobody_has_are_swept(tmp_path):
    dead = f"here+{room._machine()}+{dead_process()}+89abcdef"
    for name in ("a", "b", "c", "x-a"):
        (tmp_path / f".partial-0123abcd-{name}" / "deep").mkdir(parents=True)
    for name in ("a", "d", "mine"):
        (tmp_path / f".old-{name}").mkdir()
    (tmp_path / "a").mkdir()
    held_by(tmp_path / "a", dead)
    held_by(tmp_path / "b", ELSEWHERE)
    remove_leftovers(tmp_path, ["a", "b", "d"])
    kept = {f".partial-0123abcd-{name}" for name in ("b", "c", "x-a")}
    assert names(tmp_path) == {*kept, ".lease-b", ".old-mine", "a", "d"}


def test_who_is_taken_for_a_leftover_while_it_asks_is_told_that_the_lease_is_held(tmp_path, monkeypatch):
    """The holder removes what lies under temporary names, also what another one has just made for its own try."""
    path = tmp_path / "case"
    rename = Path.rename

    def tidied(self: Path, to: Path) -> Path:
        remove_partial(path)
        return rename(self, to)

    with leased(path):
        monkeypatch.setattr(Path, "rename", tidied)
        with pytest.raises(LeaseHeldError), leased(path):
            pass
    monkeypatch.undo()
    assert not names(tmp_path)


def test_the_time_of_the_disk_is_that_of_its_files(tmp_path):
    before = file_system_time(tmp_path)
    (tmp_path / "file").touch()
    assert before <= (tmp_path / "file").stat().st_mtime <= file_system_time(tmp_path)
    assert names(tmp_path) == {"file"}
