"""A real full disk: a file system in memory that only one child process sees."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = """
mount -t tmpfs -o size="$1" none "$2" || exit 77
shift 2
"$@"
code=$?
find "$0" >&2
exit $code
"""


def run_in_small_disk(size: str, folder: Path, command: list[object]) -> subprocess.CompletedProcess[str]:
    """Run a command while `folder` has so much room; the names of all files in it come after its stderr.

    Args:
        size: Such as "200k".
        folder: Made; what is written there is gone afterwards.
        command: What to run.
    """
    folder.mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, folder, size, folder]
    try:
        done = subprocess.run([str(word) for word in (*unshare, *command)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare to mount a small disk with")
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr}")
    return done
