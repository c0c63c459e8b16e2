"""A progress bar on stderr for whatever takes over two seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; yields a function that is told how many more are done.

    The bar goes away at the end, and is not drawn at all when stderr is not a terminal.
    """
    from rich import progress as parts  # here, so that post-processing can be had with numpy and scipy alone
    from rich.console import Console

    console = Console(stderr=True)
    columns = (parts.TextColumn("{task.description}"), parts.BarColumn(), parts.MofNCompleteColumn())
    times = (parts.TimeElapsedColumn(), parts.TimeRemainingColumn())
    with parts.Progress(*columns, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda more: bar.advance(task, more)
