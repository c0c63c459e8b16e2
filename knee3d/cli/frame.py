"""What the commands share: how they fail, options, kinds of argument."""

import logging
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import click

from knee3d.anatomy.plane import Plane

VIEWS = (*(plane.value for plane in Plane), "volume")
"""What has a name of its own; oblique views are numbered."""
SOME_DONE, NONE_DONE, INTERRUPTED = 1, 2, 130
"""Exit codes where not all of the work could be done, and where the user stopped it, as shells have it."""


class Echo(logging.Handler):
    """Lines go to whatever stderr is at the moment: above the bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        click.echo(self.format(record), err=True)


class Command(click.Command):
    """A command whose expected failures are one line and an exit code, never a traceback."""

    def __init__(self, *args: Any, failure: int = 1, **kwargs: Any) -> None:
        """As click's.

        Args:
            args: click's.
            failure: The exit code.
            kwargs: click's.
        """
        super().__init__(*args, **kwargs)
        self.failure = failure

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[Echo()])
        logging.getLogger("knee3d").setLevel(logging.INFO)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped; what is finished stays", err=True)
            raise SystemExit(INTERRUPTED) from None
        except (ValueError, OSError, RuntimeError) as error:
            # click's own ways out are RuntimeErrors, and whoever closed the pipe wants to hear no more
            if isinstance(error, click.exceptions.Exit | click.Abort | BrokenPipeError):
                raise
            raise self._failed(str(error)) from error
        except MemoryError as error:
            raise self._failed("out of memory; use smaller --jobs or --batch-size") from error

    def _failed(self, words: str) -> click.ClickException:
        failed = click.ClickException(words)
        failed.exit_code = self.failure  # type: ignore[misc] # click's documentation does so
        return failed


class Group(click.Group):
    """Commands of this kind, listed in the order of the journey."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were defined."""
        return list(self.commands)


class Numbers(click.ParamType):
    """Three numbers with commas between them, such as 64,64,48."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Text -> tuple of three."""
        if isinstance(value, tuple):
            return value
        try:
            first, second, third = (self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not three numbers with commas, such as {self.name}", param, ctx)
        return first, second, third


class ObliqueViews(click.ParamType):
    """How many oblique views a text such as oblique:6 asks for."""

    name = "oblique:N"
    most = 30

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text -> number."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"oblique:([0-9]{1,3})", value.strip().lower())
        if found is None or not 1 <= int(found[1]) <= self.most:
            self.fail(f"{value!r} is none; say oblique:N, with N from 1 to {self.most}", param, ctx)
        return int(found[1])


FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)

models_option = click.option(
    "--models", type=FOLDER, default="models", show_default=True, help="Folder of the trained planes."
)
views_option = click.option(
    "--views",
    "oblique",
    type=ObliqueViews(),
    default=0,
    metavar="oblique:N",
    help=f"Add N oblique views, up to {ObliqueViews.most}, of networks that were trained on oblique slices.",
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=lambda: len(os.sched_getaffinity(0)), help="Knees at a time [all cores]."
)
seed_option = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
series_option = click.option("--series", help="DICOM series, by number or UID, where a folder holds several.")
echo_option = click.option("--echo", help="Echo number where a series holds several, or rss: root sum of squares.")
remove_option = click.option(
    "--remove-below",
    type=click.FloatRange(0),
    default=0.0,
    metavar="MM3",
    help="Drop connected pieces of a tissue that are smaller [keep all].",
)
fill_option = click.option(
    "--fill-below",
    type=click.FloatRange(0),
    default=0.0,
    metavar="MM3",
    help="Fill holes within a tissue that are smaller [leave all].",
)
spacing_option = click.option(
    "--spacing",
    "spacing_mm",
    type=Numbers(float, "0.36,0.36,0.7"),
    metavar="A,B,C",
    help="Distances between voxels in mm along the axes of an HDF5 array (.im, .seg), which has none.",
)
weights_option = click.option(
    "--encoder-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|FILE",
    help="What the encoder starts from. imagenet is downloaded, or taken from KNEE3D_ENCODER_WEIGHTS.",
)


def count(number: int, word: str) -> str:
    """A number of things in words."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def show_scores(summary: dict[str, Any]) -> None:
    """Print the tables of an evaluation."""
    from rich.console import Console

    from knee3d.report.tables import means_table, scores_table

    console = Console()
    console.print(scores_table(summary))
    console.print(means_table(summary))


WIDE = 1000
"""Where nobody looks at a terminal, a row is a line, for whoever searches it."""


def show_failures(failures: Mapping[str, str]) -> None:
    """Print what could not be done, where errors go."""
    from rich.console import Console

    from knee3d.report.tables import failures_table

    console = Console(stderr=True)
    console.width = console.width if console.is_terminal else WIDE
    console.print(failures_table(failures))


def show_findings(found: dict[str, Any]) -> None:
    """Print what an inspection found."""
    from knee3d.report.tables import findings_lines

    for line in findings_lines(found["volumes"], one_line=not sys.stdout.isatty()):
        click.echo(line)
    for one in found["volumes"]:
        if one["problem"]:
            name = one["path"] if one["echo"] is None else f"{one['path']}, series {one['name']} echo {one['echo']}"
            click.echo(f"{name}: {one['problem']}")
    for reason, number in found["skipped"].items():
        click.echo(f"left aside: {count(number, 'file')}, {reason}")
    for problem in found["broken"]:
        click.echo(f"broken: {problem}")


def leave(failures: Mapping[str, str], done: int) -> None:
    """Say what could not be done, if anything, and leave with the exit code for it.

    Args:
        failures: What could not be done, and why.
        done: How much could.
    """
    if failures:
        show_failures(failures)
    leave_with(len(failures), done)


MOST_NAMES = 10


def leave_named(failures: Collection[str], done: int) -> None:
    """Leave as `leave`, where it was said of each why it failed when it did: here are their names."""
    if failures and len(failures) + done > 1:
        some = ", ".join([*failures][:MOST_NAMES])
        rest = f" and {len(failures) - MOST_NAMES} more" if len(failures) > MOST_NAMES else ""
        click.echo(f"not done, as said above: {some}{rest}", err=True)
    leave_with(len(failures), done)


def leave_with(failed: int, done: int) -> None:
    """Leave with the exit code for it, where anything failed."""
    if failed:
        raise SystemExit(SOME_DONE if done else NONE_DONE)
