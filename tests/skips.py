"""Which tests may be skipped, why, and how many: a test that vanishes for another reason is a failure.

Loaded by conftest.py as a plugin. The numbers hold where the environment variable CI is set: there a browser, Ray and
all other optional packages are installed, and ../shared lies beside the project.
"""

from __future__ import annotations

import os

import pytest

REASONS = {
    "under ../shared": "real scans, label maps and weights that are not part of the project",
    "no chromium": "pages are looked at in a browser",
    "small disk": "a full disk is a mounted one of a megabyte, which only root may mount",
    "could not import": "an optional package",
    "not installed": "an optional package",
    "optional package": "an optional package",
    "GPUs add up in any order": "the same seed gives the same weights on processors alone",
    "OpenGL": "pictures of surfaces need software that draws them",
}
"""Part of the reason that a skipped test gives, and why that may be."""
MOST_IN_CI = 0
"""Tests that CI may skip."""


class Skips:
    """Counts skipped tests, and fails a run that skips what it may not."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.reasons.append(f"{report.nodeid}: {reason}")

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found = [
            f"skipped for no known reason: {one}" for one in self.reasons if not any(map(one.__contains__, REASONS))
        ]
        if os.environ.get("CI") and len(self.reasons) > MOST_IN_CI:
            found += [f"{len(self.reasons)} tests were skipped, at most {MOST_IN_CI} may be in CI", *self.reasons]
        return found

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.problems() and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for problem in self.problems():
            terminalreporter.write_line(f"ERROR {problem}", red=True)
