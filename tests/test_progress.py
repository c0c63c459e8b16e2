"""Bars and lines: shown where somebody looks, and nowhere else."""

import logging
import subprocess
import sys

import pytest

from knee3d import progress as shown
from knee3d.progress import lines_shown

LOGGER = logging.getLogger("knee3d")


@pytest.fixture
def unset(monkeypatch):
    """A logger that nobody has set up, as in a fresh Python."""
    monkeypatch.setattr(LOGGER, "propagate", False)
    monkeypatch.setattr(LOGGER, "handlers", [])
    level = LOGGER.level
    LOGGER.setLevel(logging.NOTSET)
    yield
    LOGGER.setLevel(level)


@pytest.mark.parametrize(("level", "drawn"), [(logging.NOTSET, True), (logging.INFO, True), (logging.ERROR, False)])
def test_a_bar_is_drawn_in_a_terminal_unless_knee3d_is_quiet(unset, monkeypatch, level, drawn):
    from rich import progress as parts
    from rich.console import Console

    asked = []

    class Bar(parts.Progress):
        def __init__(self, *columns, **options):
            asked.append(not options["disable"])
            super().__init__(*columns, **{**options, "disable": True})

    monkeypatch.setattr(parts, "Progress", Bar)
    monkeypatch.setattr(shown, "_console", lambda: Console(stderr=True, force_terminal=True))
    LOGGER.setLevel(level)
    with shown.progress("work", 2) as advance:
        advance(1)
    assert asked == [drawn]


def test_lines_are_shown_where_nobody_set_up_logging_and_only_meanwhile(unset, capsys):
    LOGGER.handlers.clear()  # of pytest
    with lines_shown():
        LOGGER.info("epoch 1")
    LOGGER.info("later")
    assert capsys.readouterr().err == "epoch 1\n"
    assert not LOGGER.handlers
    assert LOGGER.level == logging.NOTSET


def test_a_user_who_set_up_logging_gets_each_line_once(unset, capsys):
    LOGGER.handlers[:] = [logging.StreamHandler(sys.stderr)]
    LOGGER.setLevel(logging.INFO)
    with lines_shown():
        LOGGER.info("epoch 1")
    LOGGER.setLevel(logging.WARNING)
    with lines_shown():
        LOGGER.info("epoch 2")
    assert capsys.readouterr().err == "epoch 1\n"


@pytest.mark.slow
def test_python_m_knee3d_is_the_command():
    done = subprocess.run([sys.executable, "-m", "knee3d", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: knee3d [OPTIONS] COMMAND")
