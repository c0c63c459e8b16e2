"""Run work in threads."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def results_as_completed(work: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Future[Result]]:
    """Call `work` on every item, `jobs` at a time.

    Yields:
        Futures in the order in which they are finished. If the caller stops early or is interrupted, what was not
        begun is dropped and what was is waited for.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from as_completed([pool.submit(work, item) for item in items])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_on_all_cores(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call `work` on every item, in threads that are kept for the next call: starting them costs a ms.

    Args:
        work: Computes outside Python's lock, as numpy does. It must not call `map_on_all_cores` itself: all threads
            would wait for each other.
        items: What `work` is called on, in this order.

    Raises:
        Exception: The first error of `work`; items that were not begun then are dropped.
    """
    for _ in _kept_threads(os.getpid()).map(work, items):
        pass


@cache
def _kept_threads(process: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked one needs its own."""
    return ThreadPoolExecutor(cores(), f"knee3d-{process}")


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
