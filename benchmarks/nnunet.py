"""The 3D alternative of the field on the same machine and volume: nnU-Net's default 3d_fullres, time only.

Installs nnU-Net into an environment of its own, lets its own planner plan for volumes of 160 x 384 x 384 voxels with
six tissues, times a patch with random weights and counts the patches of its sliding window. What nnU-Net does besides
(preprocessing, weighting, export) is not counted.

    python benchmarks/nnunet.py runs/nnunet    # 6 GB
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

PACKAGE = "nnunetv2==2.8.1"
SHAPE, SPACING_MM, TISSUES = [160, 384, 384], [0.7, 0.3646, 0.3646], 6
STEP = 0.5
MIRRORED = 8  # nnU-Net mirrors along three axes by default
CASES = 100
PIXEL_STATISTICS = ("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5")


def plan() -> dict[str, Any]:
    """What nnU-Net's planner makes of a fingerprint of such volumes; it needs no image for that."""
    labels = {"background": 0} | {f"tissue {number}": number for number in range(1, TISSUES + 1)}
    dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz",
               "overwrite_image_reader_writer": "SimpleITKIO",
               "dataset": {"case": {"images": ["case_0000.nii.gz"], "label": "case.nii.gz"}}}  # fmt: skip
    fingerprint = {"spacings": [SPACING_MM] * CASES, "shapes_after_crop": [SHAPE] * CASES,
                   "foreground_intensity_properties_per_channel": {"0": dict.fromkeys(PIXEL_STATISTICS, 1.0)},
                   "median_relative_size_after_cropping": 1.0}  # fmt: skip
    name = "Dataset001_Knees"
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(nnUNet_raw=f"{home}/raw", nnUNet_preprocessed=f"{home}/pre", nnUNet_results=f"{home}/results")
        for folder, file, content in (("raw", "dataset", dataset), ("pre", "dataset_fingerprint", fingerprint)):
            path = Path(home, folder, name, f"{file}.json")
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(content))
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

        with contextlib.redirect_stdout(sys.stderr):
            return ExperimentPlanner(name).plan_experiment()["configurations"]["3d_fullres"]


def measure() -> dict[str, Any]:
    """Within nnU-Net's environment: seconds of a patch, and patches of a knee."""
    found = plan()
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    architecture, patch = found["architecture"], [int(side) for side in found["patch_size"]]
    kind, settings = architecture["network_class_name"], architecture["arch_kwargs"]
    network = get_network_from_plans(
        kind, settings, architecture["_kw_requires_import"], 1, TISSUES + 1, deep_supervision=False
    )
    padded = [max(side, least) for side, least in zip(SHAPE, patch, strict=True)]
    patches = 1
    for steps in compute_steps_for_sliding_window(padded, patch, STEP):
        patches *= len(steps)
    image, seconds = torch.randn(1, 1, *patch), []
    with torch.inference_mode():
        for _ in range(3):
            start = time.perf_counter()
            network.eval()(image)
            seconds.append(time.perf_counter() - start)
    knee = min(seconds[1:]) * patches
    return {"network": type(network).__name__, "patch": patch, "patches": patches, "s_per_patch": min(seconds[1:]),
            "s_per_knee": knee, "s_per_knee_mirrored": knee * MIRRORED}  # fmt: skip


def main() -> None:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="For the environment.")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    python = options.folder / "bin" / "python"
    if not python.exists():
        venv.create(options.folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
    done = subprocess.run([python, __file__, "--measure"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for name, value in found.items():
        print(f"{name:<20} {value}")


if __name__ == "__main__":
    main()
