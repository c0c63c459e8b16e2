"""Many small works on the machines of a Ray cluster, each of which fills a folder that comes to this machine.

What a worker needs is loaded once (networks), then it is handed one work after the other. A worker that is lost is
replaced, and what it was at is tried again; a work that takes its worker with it every time is given up.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from knee3d.launch.job import LaunchError, log_to_stderr
from knee3d.launch.keeper import ask, fetch, files_in, joined, keeper_here, send

log = logging.getLogger(__name__)

AHEAD = 2
"""Works that a worker has at hand: the one it is at, and one so that it need not wait. More would pile up there."""

READY_S = 600.0
"""A machine whose processors others hold for longer is done without."""

MakeWork = Callable[[Path], Callable[[Any, Path], None]]
"""Given a folder of the worker's machine that is like `shared`: what is done with an item and an empty folder."""


@dataclass(frozen=True)
class Shared:
    """Files that every worker needs: a folder of this machine, and the names of those in it."""

    folder: Path
    names: tuple[str, ...]


class Worker:
    """An actor: lives on a machine of the cluster and has the work loaded."""

    def __init__(self, keeper: Any, shared: Shared, make_work: MakeWork) -> None:
        log_to_stderr()
        self._keeper = keeper
        with TemporaryDirectory(prefix="knee3d-") as home:
            for name in shared.names:
                fetch(keeper, shared.folder / name, Path(home) / name)
            self._work = make_work(Path(home))

    def ready(self) -> str:
        """The machine's name, when all is loaded."""
        return socket.gethostname()

    def run(self, item: Any, original: Path) -> str:
        """Do one work and send its files; returns what went wrong with it, or nothing."""
        with TemporaryDirectory(prefix="knee3d-") as home:
            try:
                self._work(item, Path(home))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                return " ".join(str(error).split()) or type(error).__name__
            for name in files_in(Path(home)):
                send(self._keeper, Path(home) / name, original / name)
        return ""


@dataclass
class _Hand:
    """A worker as this side sees it."""

    actor: Any
    machine: str
    node: str
    share: dict[str, int]
    at: deque[tuple[str, Any, Any]] = field(default_factory=deque)  # name, item, what Ray promised; the oldest first


def run_pool_on_ray(
    items: Iterable[tuple[str, Any]], make_work: MakeWork, shared: Shared, out: Path, address: str | None, retries: int
) -> Iterator[tuple[str, str]]:
    """Do a work for each item.

    Args:
        items: Names and items; asked for only as fast as workers take them. What an item refers to (images) must be at
            the same path on each machine.
        make_work: Called once by each worker.
        shared: Files of this machine that each worker gets a copy of before that.
        out: Gets a folder of the item's name for each, which appears when it is complete, in place of any other.
        address: The cluster's, see `run_on_ray`.
        retries: How often an item whose worker was lost is tried again.

    Yields:
        Name and what went wrong, or nothing, as they are done.

    Raises:
        LaunchError: Ray is not installed, there is no such cluster, or no worker can be started.
    """
    with joined(address):
        import ray

        keeper = keeper_here()
        needs = (keeper, shared, make_work)
        hands = _hire(needs)
        queue, again, lost = iter(items), deque[tuple[str, Any]](), Counter[str]()
        while True:
            for hand in hands:
                while (some := _next_for(hand, again, queue, lost)) is not None:
                    partial = _partial(out, some[0])
                    shutil.rmtree(partial, ignore_errors=True)
                    hand.at.append((*some, hand.actor.run.remote(some[1], partial)))
            promises = {promise: hand for hand in hands for _, _, promise in hand.at}
            if not promises:
                return
            (done,), _ = ray.wait(list(promises), num_returns=1)
            hand = promises[done]
            # A worker goes by the order: if any of its works is done, its first one is, and if it was lost, then at the
            # first one that it had not done.
            name, item, done = hand.at[0]
            try:
                error = ray.get(done)
            except ray.exceptions.RayTaskError as problem:  # an error that is no knee's: of this program
                error = f"on {hand.machine}: {type(problem.cause).__name__}: {problem.cause}"
            except ray.exceptions.RayError:
                lost[name] += 1
                again.extendleft((waiting, it) for waiting, it, _ in reversed(hand.at) if waiting != name)
                hands = _replaced(hands, hand, needs)
                if lost[name] <= retries:
                    log.warning("%s: its worker on %s was lost; it is tried again", name, hand.machine)
                    again.append((name, item))
                else:
                    yield name, f"lost its worker {lost[name]} times; left out"
                continue
            hand.at.popleft()
            if not error:
                ask(keeper, "finish", _partial(out, name), out / name)
            yield name, error


def _next_for(
    hand: _Hand, again: deque[tuple[str, Any]], queue: Iterator[tuple[str, Any]], lost: Mapping[str, int]
) -> tuple[str, Any] | None:
    """What a worker gets to do next; None for nothing at the moment.

    What has lost a worker before goes alone: a worker that dies may take its answer to the work before with it.
    """
    if len(hand.at) == AHEAD or any(lost[name] for name, *_ in hand.at):
        return None
    if not again:
        return next(queue, None)
    return None if lost[again[0][0]] and hand.at else again.popleft()


def _partial(out: Path, name: str) -> Path:
    return out / f".partial-{name}"


def _hire(needs: Sequence[Any]) -> list[_Hand]:
    """A worker for each GPU of the cluster, or for each machine without one that has processors."""
    import ray

    hands = []
    for node in ray.nodes():
        gpus, cpus = (int(node["Resources"].get(kind, 0)) for kind in ("GPU", "CPU"))
        if node["Alive"] and cpus:
            count = max(1, gpus)
            share = {"num_cpus": max(1, cpus // count), "num_gpus": min(1, gpus)}
            hands += [_hired(node["NodeID"], share, needs) for _ in range(count)]
    ready = []
    for hand in hands:
        try:
            hand.machine = ray.get(hand.actor.ready.remote(), timeout=READY_S)
            ready.append(hand)
        except ray.exceptions.RayError as error:
            reason = getattr(error, "cause", None) or error
            log.warning("a worker could not be started: %s", " ".join(str(reason).split())[:300])
    if not ready:
        raise LaunchError("no worker could be started on any machine of the cluster; see the messages above")
    log.info("%d workers on %d machines", len(ready), len({hand.machine for hand in ready}))
    return ready


def _hired(node: str, share: dict[str, int], needs: Sequence[Any]) -> _Hand:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    threads = {"env_vars": {"TF_NUM_INTRAOP_THREADS": str(share["num_cpus"])}}
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    made = ray.remote(Worker).options(scheduling_strategy=there, runtime_env=threads, **share)
    return _Hand(made.remote(*needs), "", node, share)


def _replaced(hands: list[_Hand], lost: _Hand, needs: Sequence[Any]) -> list[_Hand]:
    """The others, and one in place of the lost one if its machine is still there.

    Raises:
        LaunchError: None is left.
    """
    import ray

    others = [hand for hand in hands if hand is not lost]
    ray.kill(lost.actor)
    if any(one["NodeID"] == lost.node and one["Alive"] for one in ray.nodes()):
        others.append(replace(_hired(lost.node, lost.share, needs), machine=lost.machine))
    if not others:
        raise LaunchError("every machine of the cluster was lost; what is finished stays, run it again")
    return others
