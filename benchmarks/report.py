"""What does a report cost, and who measures thickness faster? A finished knee of OAI's size is made up, and reported.

The knee is a real label map (or the phantom's), its probabilities its smoothed labels, its image rendered from it.

    python benchmarks/report.py --labels knee_b_label.nrrd
    python benchmarks/report.py --labels knee_b_label.nrrd --pymskt /tmp/pymskt   # installs pymskt there, and compares
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from knee3d import api
from knee3d.api import case_report
from knee3d.dataset.input_case import content_fingerprint
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.box import bounding_box
from knee3d.geometry.orientation import CANONICAL, Side, axis_codes, reorient
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import read_image
from knee3d.io.probability_file import write_probabilities
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import FEMORAL, SCHEMES, LabelScheme
from knee3d.morphometry.measurement import WHOLE
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.postprocess.quality import check_quality
from knee3d.report.measures_files import read_measures_csv
from knee3d.report.overview_figure import overview_figure

SHAPE, FIELD_OF_VIEW_MM = (384, 384, 160), (140.0, 140.0, 112.0)
STAGES = {
    "reading image, labels, probabilities": ("load_image", "load_labels", "load_probabilities"),
    "thickness, volumes, parts": ("measure_knee",),
    "thickness as an overlay": ("thickness_map",),
    "surfaces": ("_surfaces",),
    "maps": ("probability_maps", "score_views"),
    "page, meshes and tables": ("_write",),
}


def make_finished(source: Volume, scheme: LabelScheme, home: Path) -> tuple[Path, Path]:
    """A knee's folder as `knee3d segment` leaves it, without any network, and its image."""
    image, folder = home / "knee", home / "results" / "knee"
    write_series(simulate_image(source, seed=1), image, Side.RIGHT, patient="made up", description="made up", seed=0)
    volume = read_image(image)
    here = reorient(source, "".join(axis_codes(volume.affine)))
    labels = volume.with_array(labels_to_classes(here.array, LABEL_NAMES["pymskt"], scheme))
    part = labels.part(bounding_box(labels.array > 0, 9))
    one_hot = (
        ndimage.gaussian_filter((part.array == number).astype(np.float32), 0.8) for number in range(scheme.classes)
    )
    fused = part.with_array(np.stack([np.rint(255 * one).astype(np.uint8) for one in one_hot], axis=-1))
    folder.mkdir(parents=True)
    write_volume(labels, folder / "labels.nii.gz")
    views = {"one": labels, "other": labels.with_array(np.roll(labels.array, 1, axis=0))}
    write_probabilities(fused, ("background", *scheme.names), "fused", folder / "fused.h5", views)
    canonical = reorient(labels, CANONICAL)
    shown, _ = to_network_input(replace(volume, side=Side.RIGHT))
    overview_figure(shown, canonical, scheme, folder / "overview.png", "knee")
    found = check_quality(canonical, {}, scheme.names, None)
    api.QualityRecord.of(found).write(folder / "quality.json")
    record = api.SegmentationRecord(
        knee3d="",
        case="knee",
        side=Side.RIGHT,
        scheme=scheme,
        image_fingerprint=content_fingerprint(image),
        side_given=Side.UNKNOWN,
        read_options={},
        models_fingerprint="made up",
        settings=api.SegmentConfig().settings,
        network_fingerprints={},
        fusion_weights={},
        computed_by="",
        computed_whole_because="",
        shape=volume.shape,
        spacing_mm=tuple(volume.spacing_mm.tolist()),
        volumes_mm3={},
        flags=(),
        files={},
    )
    record.write(folder / "segmentation.json")
    return folder, image


def timed(name: str, seconds: dict[str, float]) -> None:
    """From now on a function of `api.case_report` notes how long it takes."""
    work: Callable[..., Any] = getattr(case_report, name)

    def timing(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    setattr(case_report, name, timing)


def reported(folder: Path, image: Path) -> dict[str, Any]:
    """Make the report, in stages."""
    seconds: dict[str, float] = {}
    for names in STAGES.values():
        for name in names:
            timed(name, seconds)
    start = time.perf_counter()
    (outcome,) = api.make_reports(folder, image)
    total = time.perf_counter() - start
    if outcome.message:
        raise SystemExit(outcome.message)
    return {
        "total": total,
        "stages": {stage: sum(seconds[name] for name in names) for stage, names in STAGES.items()},
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "page_mb": (folder / "report" / "report.html").stat().st_size / 1e6,
    }


def femoral_mm(folder: Path) -> float:
    """Mean thickness of femoral cartilage."""
    (measures,) = read_measures_csv(folder / "report" / "measures.csv").values()
    wanted = (FEMORAL, WHOLE, "thickness_mean")
    return next(one.value for one in measures if (one.tissue, one.region, one.measure) == wanted)


def main() -> None:
    """Make a knee, report it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="Label map in pymskt numbering [the phantom].")
    parser.add_argument("--scheme", choices=sorted(SCHEMES), default="iwoai")
    parser.add_argument("--pymskt", type=Path, help="Folder for pymskt's own environment; compares with it, too.")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pymskt and not options.labels:
        parser.error("--pymskt compares on a label map: give --labels")
    if options.child:
        print("RESULT" + json.dumps(reported(*options.child)))
        return
    given = options.labels and reorient(read_volume(options.labels), CANONICAL)
    source = given or parametric_knee(SHAPE, seed=1, field_of_view_mm=FIELD_OF_VIEW_MM)
    with tempfile.TemporaryDirectory() as home:
        folder, image = make_finished(source, SCHEMES[options.scheme], Path(home))
        command = [sys.executable, __file__, "--child", str(folder), str(image)]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        if not lines:
            raise SystemExit(done.stderr[-2000:])
        _show(json.loads(lines[0].removeprefix("RESULT")), femoral_mm(folder))
    if options.pymskt:
        subprocess.run(
            [sys.executable, Path(__file__).with_name("pymskt.py"), options.pymskt, options.labels], check=True
        )


def _show(found: Mapping[str, Any], femoral: float) -> None:
    table = Table(title=f"a report: {found['total']:.1f} s, {found['memory_gb']:.2f} GB, {found['page_mb']:.1f} MB")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in found["stages"].items():
        table.add_row(stage, f"{seconds:.1f}")
    table.add_row("femoral cartilage, mean thickness", f"{femoral:.3f} mm")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
