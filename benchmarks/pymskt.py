"""Who measures the thickness of cartilage faster, knee3d or pymskt, and do the two agree?

Both go from the label map in memory to a thickness for each corner of the bone's surface, plate by plate; imports and
reading the file are not timed. pymskt is used in three ways: with the defaults of its README, with the settings of its
example notebooks (more smoothing, the bone resampled to 20000 corners), and with the defaults but for the repair of the
cartilage's surface, which takes most of its time. knee3d is used in two: on the bone's surface, and with the bone
inferred. Each plate is measured three times, and the fastest counts. Processor seconds stand beside, as a busy machine
stretches the others.

    python benchmarks/pymskt.py /tmp/pymskt knee_b_label.nrrd    # 3 GB, minutes; pip needs a C compiler
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("mskt==0.1.22", "nibabel")  # it imports nibabel without asking for it
PLATES = {
    "femoral": (1, 5),
    "medial tibial": (2, 6),
    "lateral tibial": (3, 6),
    "patellar": (4, 7),
}
"""Label of the cartilage and of its bone, in pymskt's numbering."""
RUNS = 3
ALLOWED_MM = 0.25

Corners = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Points (n, 3) in mm, triangles (m, 3), thickness (n,) in mm."""
Way = Callable[[Any, int, int], Corners]
"""From labels, and the numbers of a cartilage and its bone, to the corners of the bone."""


@dataclass(frozen=True)
class Use:
    """How pymskt is used. What is not given to it is its own default.

    Attributes:
        bone: For the surface of the bone.
        cartilage: For the surface of the cartilage.
        clusters: How many corners the bone is resampled to; None leaves it as it was cut.
        repair: Whether the cartilage's surface is made watertight, as it is by default.
    """

    bone: Mapping[str, float] = field(default_factory=dict)
    cartilage: Mapping[str, float] = field(default_factory=dict)
    clusters: int | None = None
    repair: bool = True


USES = {
    "pymskt, README": Use(),
    "pymskt, notebook": Use({"smooth_image_var": 1.0}, {"image_smooth_var_cart": 0.5}, clusters=20000),
    "pymskt, no repair": Use(repair=False),
}


def by_pymskt(labels: Any, cartilage: int, bone: int, use: Use) -> Corners:
    """As its README and its notebooks have it."""
    from pymskt.mesh import BoneMesh

    mesh = BoneMesh(seg_image=labels, label_idx=bone, list_cartilage_labels=[cartilage])
    mesh.create_mesh(**use.bone)
    if use.clusters:
        mesh.resample_surface(clusters=use.clusters)
    if not use.repair:
        mesh.create_cartilage_meshes(fix_method=None, **use.cartilage)
    mesh.calc_cartilage_thickness(**use.cartilage)
    return np.asarray(mesh.points), mesh.regular_faces, np.asarray(mesh.point_data["thickness (mm)"])


def by_knee3d(labels: Any, cartilage: int, bone: int) -> Corners:
    """On the surface of the bone."""
    from knee3d.morphometry import level_set as fields
    from knee3d.morphometry.thickness import interface_on_bone

    part, _ = fields.crop_around_tissue(labels, cartilage)
    found = interface_on_bone(fields.tissue_level_set(part, cartilage), fields.tissue_level_set(part, bone))
    return found.points, found.triangles, found.thickness_mm


def by_knee3d_inferred(labels: Any, cartilage: int, bone: int) -> Corners:
    """As if the bone were not segmented."""
    from knee3d.labels.label_names import LABEL_NAMES
    from knee3d.morphometry import level_set as fields
    from knee3d.morphometry.thickness import interface_without_bone

    part, _ = fields.crop_around_tissue(labels, cartilage)
    found = interface_without_bone(fields.tissue_level_set(part, cartilage), LABEL_NAMES["pymskt"].names[cartilage])
    return found.points, found.triangles, found.thickness_mm


def ways_of(package: str, path: Path) -> tuple[Any, Mapping[str, Way]]:
    """The labels as a package reads them, and its ways. What they import is imported."""
    if package == "pymskt":
        import pymskt.mesh  # noqa: F401
        import SimpleITK

        return SimpleITK.ReadImage(str(path)), {name: partial(by_pymskt, use=use) for name, use in USES.items()}
    import knee3d.morphometry.thickness  # noqa: F401
    from knee3d.io.volume_file import read_volume

    return read_volume(path), {"knee3d": by_knee3d, "knee3d, bone inferred": by_knee3d_inferred}


def timed(way: Way, labels: Any, cartilage: int, bone: int) -> dict[str, float]:
    """The least of some runs, and what the last one found."""
    wall, processor = [], []
    for _ in range(RUNS):
        start, start_processor = time.perf_counter(), time.process_time()
        points, triangles, thickness = way(labels, cartilage, bone)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    covered = thickness > 0
    return {
        "seconds": min(wall), "processor": min(processor), "mean_mm": float(thickness[covered].mean()),
        "by_area_mm": float(np.average(thickness[covered], weights=areas(points, triangles)[covered])),
        "covered": int(covered.sum()), "corners": len(thickness),
    }  # fmt: skip


def areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(n,) of each corner: a third of its triangles."""
    first, second, third = np.moveaxis(points.astype(np.float64)[triangles], 1, 0)
    twice = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    return np.bincount(triangles.ravel(), np.repeat(twice / 6, 3), minlength=len(points))


def measure(package: str, path: Path) -> dict[str, dict[str, Any]]:
    """Within a package's own environment: plate -> way -> what `timed` found."""
    with contextlib.redirect_stdout(sys.stderr):  # pymskt prints
        labels, ways = ways_of(package, path)
        return {
            plate: {name: timed(way, labels, *numbers) for name, way in ways.items()}
            for plate, numbers in PLATES.items()
        }


def installed(folder: Path) -> Path:
    """The Python of pymskt's environment; what is there already is kept."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def measured(python: Path, package: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `measure` finds in a process of an environment."""
    # -P, because this file is called pymskt, too, and would be imported in the place of pymskt.
    command = [python, "-P", __file__, "--measure", package, options.folder, options.labels]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="For pymskt's environment.")
    parser.add_argument("labels", type=Path, help="Label map in pymskt numbering, with bones.")
    parser.add_argument("--measure", choices=("pymskt", "knee3d"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.labels)))
        return
    theirs = measured(installed(options.folder), "pymskt", options)
    ours = measured(Path(sys.executable), "knee3d", options)
    found = {plate: theirs[plate] | ours[plate] for plate in PLATES}
    _show(found)
    for plate, ways in found.items():
        print(*_compared(plate, ways), sep="\n")
    apart = abs(found["femoral"]["knee3d"]["mean_mm"] - found["femoral"]["pymskt, README"]["mean_mm"])
    print(f"femoral means {apart:.3f} mm apart: {'within' if apart <= ALLOWED_MM else 'NOT within'} {ALLOWED_MM} mm")


def _show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"best of {RUNS}; load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    table.add_column("plate, way")
    for name in ("seconds", "processor s", "mean t > 0", "by area, mm", "covered", "corners"):
        table.add_column(name, justify="right")
    for plate, ways in found.items():
        for way, one in ways.items():
            times = (f"{one[name]:.2f}" for name in ("seconds", "processor"))
            means = (f"{one[name]:.3f}" for name in ("mean_mm", "by_area_mm"))
            table.add_row(f"{plate}, {way}", *times, *means, str(one["covered"]), str(one["corners"]))
        table.add_section()
    Console(width=120).print(table)


def _compared(plate: str, ways: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    ours = ways["knee3d"]
    for name in USES:
        theirs = ways[name]
        times = " and ".join(f"{theirs[kind] / ours[kind]:.1f}" for kind in ("seconds", "processor"))
        mean, by_area = (ours[kind] - theirs[kind] for kind in ("mean_mm", "by_area_mm"))
        yield (
            f"{plate}: knee3d is {times} times as fast as {name} (seconds, processor); "
            f"its mean differs by {mean:+.3f} mm, by area {by_area:+.3f} mm"
        )


if __name__ == "__main__":
    main()
