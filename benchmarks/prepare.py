"""How long `prepare` takes for a knee of OAI's size, against the least that anyone must do.

The floor: read the same 160 files with pydicom and encode the same 928 image and 928 mask PNGs with OpenCV, in one
thread, with no geometry, no checks, no windows; the slices lie ready in memory.

    TMPDIR=/dev/shm python benchmarks/prepare.py

On a disk both also pay for creating 1856 files, and with ext4 the more, the more were removed in the minutes before.
"""

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
from rich.console import Console
from rich.table import Table

from knee3d.dataset.case_collection import CaseCollection
from knee3d.dataset.manifest import ManifestRow, read_manifest
from knee3d.dataset.preparation import PrepareConfig, prepare_knee
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import SCHEMES

SHAPE = (384, 384, 160)
ROUNDS = 7
PREPARATION = PrepareConfig(SCHEMES["iwoai"], LABEL_NAMES["pymskt"])


def make_knee(folder: Path) -> ManifestRow:
    """A made-up knee on disk, made in a process of its own, or its memory would be counted here."""
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", "phantom", str(folder), "--knees", "1"]
    subprocess.run([*command, "--shape", ",".join(map(str, SHAPE))], check=True, capture_output=True)
    return read_manifest(folder / "knees.csv")[0]


def floor(dicom: Path, stacks: list[np.ndarray], out: Path) -> None:
    """The least: the same files in and out."""
    for path in sorted(dicom.iterdir()):
        _ = pydicom.dcmread(path).pixel_array
    for number, stack in enumerate(stacks):
        folder = out / str(number)
        folder.mkdir(parents=True)
        for index, pixels in enumerate(stack):
            cv2.imwrite(str(folder / f"{index:04d}.png"), np.ascontiguousarray(pixels))


def seconds(work: Callable[[Path], object], folder: Path) -> float:
    """How long it takes to fill a folder, which is emptied again off the clock."""
    started = time.perf_counter()
    work(folder)
    ended = time.perf_counter()
    shutil.rmtree(folder)
    return ended - started


def main() -> None:
    """Print the table: the median of some rounds, in each of which both have their turn."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        knee = make_knee(folder / "cohort")
        case = prepare_knee(knee, folder / "dataset", PREPARATION)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        dataset = CaseCollection(folder / "dataset", PREPARATION.scheme, (case,))
        stacks = [to_slices(volume, plane) for volume in (dataset.image(case), dataset.mask(case)) for plane in Plane]
        rounds = [
            (
                seconds(lambda out: floor(knee.image, stacks, out), folder / "floor"),
                seconds(lambda out: prepare_knee(knee, out, PREPARATION), folder / "ours"),
            )
            for _ in range(ROUNDS)
        ]
    least, ours = np.median(rounds, axis=0)
    table = Table(title=f"one knee of {' x '.join(map(str, SHAPE))}, {sum(map(len, stacks))} PNGs")
    for column in ("", "seconds", "of the floor", "peak memory"):
        table.add_column(column, justify="right")
    table.add_row("pydicom + OpenCV, one thread", f"{least:.2f}", "1.00", "")
    table.add_row("knee3d prepare", f"{ours:.2f}", f"{ours / least:.2f}", f"{peak:.2f} GB")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
