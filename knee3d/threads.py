"""Run work in threads."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
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


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
