"""What a user of the command line sees: pytest keeps logs for itself, which a terminal shows."""

import logging

from click.testing import CliRunner, Result

from knee3d.cli import main
from knee3d.cli.frame import Echo


def run_as_seen(*words: object) -> Result:
    """Run a command; its output has what it logs, too."""
    logger, handler = logging.getLogger("knee3d"), Echo()
    logger.addHandler(handler)
    try:
        return CliRunner().invoke(main, [str(word) for word in words])
    finally:
        logger.removeHandler(handler)
