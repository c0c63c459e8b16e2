"""Options, argument types and error handling that several commands share."""

import logging
import os
import re
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knee3d.choices import MOST_OBLIQUE_VIEWS
from knee3d.geometry.plane import Plane

if TYPE_CHECKING:
    from rich.table import Table

    from knee3d.api import ReadOptions

VIEWS = (*(plane.value for plane in Plane), "volume")
"""What has a name of its own; oblique views are numbered."""
SOME_DONE, NONE_DONE, INTERRUPTED = 1, 2, 130
"""Exit codes where not all of the work could be done, and where the user stopped it, as shells have it."""


def choice_options(command: Any) -> Any:
    """Options for what a path to an image does not say; `choice_of` takes them."""
    for option in (
        click.option("--incomplete", is_flag=True, help="Take a series with fewer images than its headers say."),
        modality_option,
        axes_option,
        spacing_option,
        click.option("--echo", help="Echo number where a series holds several, or rss: root sum of squares."),
        click.option("--series", help="DICOM series, by number or UID, where a folder holds several."),
    ):
        command = option(command)
    return command


def choice_of(options: dict[str, Any]) -> "ReadOptions":
    """What `choice_options` were set to."""
    from knee3d.api import ReadOptions

    told = {field.name: options.get(field.name, field.default) for field in fields(ReadOptions)}
    return ReadOptions(**told | {"axes": told["axes"].upper()})


class Echo(logging.Handler):
    """Lines go to whatever stderr is at the moment: above the bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        click.echo(self.format(record), err=True)


def _say_more(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Let all that is imported later speak."""
    if value:
        os.environ["KNEE3D_VERBOSE"] = "1"
        logging.getLogger("knee3d").setLevel(logging.DEBUG)


class Command(click.Command):
    """A command whose expected failures are one line and an exit code, never a traceback."""

    def __init__(self, *args: Any, failure: int = 1, **kwargs: Any) -> None:
        """As click's.

        Args:
            args: click's.
            failure: The exit code.
            kwargs: click's.
        """
        super().__init__(*args, **{"context_settings": {"show_default": True}, **kwargs})
        self.failure = failure
        self.params.append(
            click.Option(
                ["--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_say_more,
                help="Say more, also TensorFlow's own.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[Echo()])
        if not logging.getLogger("knee3d").isEnabledFor(logging.DEBUG):
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
        failed = click.ClickException(add_command_hints(words, self))
        failed.exit_code = self.failure  # type: ignore[misc] # click's documentation does so
        return failed


def add_command_hints(words: str, command: click.Command) -> str:
    """A message, and which commands have the options that it names, where this command has not.

    Args:
        words: An option that follows the name of a command in them is that command's.
        command: What the user runs.
    """
    from knee3d.cli import main

    named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"\bknee3d[- ][^;:]*|\bray start[^;:]*", "", words))
    notes = []
    for option in dict.fromkeys(named):
        if not _has(command, option):
            owners = [name for name, one in main.commands.items() if _has(one, option)]
            notes += [f"{option} is an option of knee3d {', '.join(owners)}"] if owners else []
    return f"{words} ({'; '.join(notes)})" if notes else words


def _has(command: click.Command, option: str) -> bool:
    return any(option in (*one.opts, *one.secondary_opts) for one in command.params)


class Group(click.Group):
    """Commands of this kind, listed in the order of the journey."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were defined."""
        return list(self.commands)


class Numbers(click.ParamType):
    """As many numbers with commas between them as an example has, such as 64,64,48."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name
        self.count = len(name.split(","))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Text -> tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self.count:
            count = {2: "two", 3: "three"}[self.count]
            self.fail(f"{value!r} is not {count} numbers with commas, such as {self.name}", param, ctx)
        return numbers


class ObliqueViews(click.ParamType):
    """How many oblique views a text such as oblique:6 asks for."""

    name = "oblique:N"
    most = MOST_OBLIQUE_VIEWS

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
    "--models",
    type=FOLDER,
    default="models",
    help="Folder of the trained planes, or of the folds of a cross-validation.",
)
views_option = click.option(
    "--views",
    "oblique_views",
    type=ObliqueViews(),
    default=0,
    show_default=False,
    metavar="oblique:N",
    help=f"Add N oblique views, up to {ObliqueViews.most}, of networks that were trained on oblique slices.",
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=len(os.sched_getaffinity(0)), help="Knees at a time, one for each core."
)
seed_option = click.option("--seed", type=click.IntRange(0), default=0)
remove_option = click.option(
    "--remove-below",
    "remove_below_mm3",
    type=click.FloatRange(0),
    default=0.0,
    metavar="MM3",
    help="Drop smaller pieces of a tissue.",
)
fill_option = click.option(
    "--fill-below",
    "fill_below_mm3",
    type=click.FloatRange(0),
    default=0.0,
    metavar="MM3",
    help="Fill smaller holes within a tissue.",
)
spacing_option = click.option(
    "--spacing",
    "spacing_mm",
    type=Numbers(float, "0.36,0.36,0.7"),
    metavar="A,B,C",
    help="Distances between voxels in mm along the axes of an array (.npy, HDF5), which has none.",
)
axes_option = click.option(
    "--axes",
    default="",
    metavar="LIP|...",
    help="Where the axes of an array run to, such as LIP: slices to the left, rows down, columns to the back "
    "[HDF5: IPR].",
)
modality_option = click.option(
    "--any-modality", is_flag=True, help="Read DICOM images of another modality than MR, or of none, as MR."
)
resume_option = click.option(
    "--resume/--overwrite", default=True, help="Keep what is finished, or do again what was finished before this run."
)
weights_option = click.option(
    "--encoder-weights",
    default="imagenet",
    metavar="imagenet|none|FILE",
    help="What the encoder starts from. imagenet is downloaded, or taken from KNEE3D_ENCODER_WEIGHTS.",
)


def count(number: int, word: str) -> str:
    """A number of things in words."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


WIDE = 1000
"""Where nobody looks at a terminal, a row is a line, for whoever searches it."""


def show(*tables: "Table") -> None:
    """Print tables."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDE)
    for table in tables:
        console.print(table)


MOST_NAMES = 10


def leave(failures: Collection[str], done: int) -> None:
    """Name what failed, of which it was said why when it did, and leave with the exit code for it.

    Args:
        failures: Names of what could not be done.
        done: How much could.
    """
    if failures and len(failures) + done > 1:
        some = ", ".join([*failures][:MOST_NAMES])
        rest = f" and {len(failures) - MOST_NAMES} more" if len(failures) > MOST_NAMES else ""
        click.echo(f"not done, as said above: {some}{rest}", err=True)
    if failures:
        raise SystemExit(SOME_DONE if done else NONE_DONE)
