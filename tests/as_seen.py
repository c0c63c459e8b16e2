"""The command line as its users meet it: what a terminal shows, for which pytest keeps logs, and whole processes."""

import logging
import sys

from click.testing import CliRunner, Result

from knee3d.cli import main
from knee3d.cli.options import Echo

PLAINLY = """
from pathlib import Path
from knee3d.report import overview_figure
overview_figure.overview_figure = lambda *args: Path(args[3]).write_bytes(b"picture")
from knee3d.cli import main
main()
"""
COMMAND = [sys.executable, "-c", PLAINLY]
"""`knee3d` as a process that draws no pictures, which take longer than all the rest."""


def run_as_seen(*words: object) -> Result:
    """Run a command; its output has what it logs, too."""
    logger, handler = logging.getLogger("knee3d"), Echo()
    logger.addHandler(handler)
    try:
        return CliRunner().invoke(main, [str(word) for word in words])
    finally:
        logger.removeHandler(handler)
