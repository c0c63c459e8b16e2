"""A progress bar on stderr for work of more than two seconds."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; yields a function that is told how many more are done.

    The bar goes away at the end, and is not drawn at all when stderr is not a terminal, or when knee3d is to be quiet:
    when the level of its logger was set above INFO. Bars may be nested.
    """
    from rich import progress as parts  # here, so that post-processing can be had with numpy and scipy alone

    console = _console()
    shown = console.is_terminal and logging.getLogger("knee3d").level <= logging.INFO  # 0 where nobody has set it
    columns = (parts.TextColumn("{task.description}"), parts.BarColumn(), parts.MofNCompleteColumn())
    times = (parts.TimeElapsedColumn(), parts.TimeRemainingColumn())
    with parts.Progress(*columns, *times, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(description, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def lines_shown() -> Iterator[None]:
    """Print what knee3d logs while the block runs, to stderr, unless the user has set up logging.

    Keras prints a line for each epoch, and so does knee3d in Python.
    """
    logger = logging.getLogger("knee3d")
    if logger.hasHandlers() or logger.level != logging.NOTSET:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Leave the root logger as it is while the block runs, where nobody has set it up.

    TensorFlow logs by absl, which otherwise sets the root logger up; what the user sets up afterwards has no effect.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    if root.handlers:
        yield
        return
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@cache
def _console() -> Any:
    """One for all bars, or nested ones would draw over each other."""
    from rich.console import Console

    return Console(stderr=True)
