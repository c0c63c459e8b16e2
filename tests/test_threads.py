"""Threads: everything once, errors kept apart, nothing begun after an interruption."""

import time

import pytest

from knee3d.threads import map_on_all_cores, results_as_completed


def test_everything_is_done_once_and_an_error_is_its_own():
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number**2

    futures = list(results_as_completed(work, range(6), jobs=3))
    assert sorted(future.result() for future in futures if not future.exception()) == [0, 1, 4, 16, 25]
    assert [str(future.exception()) for future in futures if future.exception()] == ["three"]


def test_an_interruption_drops_what_was_not_begun():
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.02)

    def interrupted() -> None:
        for _ in results_as_completed(work, range(500), jobs=2):
            raise KeyboardInterrupt

    pytest.raises(KeyboardInterrupt, interrupted)
    assert len(begun) < 10


def test_all_cores_do_everything_once_and_the_first_error_is_raised():
    done = []
    map_on_all_cores(done.append, range(100))
    assert sorted(done) == list(range(100))

    def work(number: int) -> None:
        if number >= 3:
            raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item 3"):
        map_on_all_cores(work, range(6))
    map_on_all_cores(done.append, range(100, 110))  # the threads go on after an error
    assert len(done) == 110
