"""How good are networks that were trained from label maps alone on people and images that they have never seen?

Test knees are deformed from a label map that the networks were not trained on, and rendered by `random-fields`, which
shares no code with the renderer of training. Whole scans, native voxels of OAI, side told.

    python benchmarks/starter.py runs/fold_a/models knee_b --out runs/fold_a/scores.json
    python benchmarks/starter.py starter template --out runs/template.json

The template is the mean of 103 real knees. It is looked at only when a candidate is final: benchmarks/README.md counts
how often it was.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean

import numpy as np
from rendered import REAL
from rich.console import Console
from rich.table import Table

import knee3d
from knee3d import api
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.image_source import read_image
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import FEMORAL, SCHEMES
from knee3d.morphometry.knee_measurements import measure_knee

SCHEME = SCHEMES["knee"]
OAI = (0.3646, 0.3646, 0.7)
SEED, KNEES = 77, 4
TEMPLATE = REAL.parent / "cartimorph_template"
TEMPLATE_CLASSES = np.array([0, 1, 4, 2, 5, 6], np.uint8)
"""The class of the scheme for labels of the template: femur, femoral cartilage, tibia, medial, lateral tibial."""


def test_knees(source: str, out: Path) -> Iterator[tuple[str, knee3d.KneeImage, Volume]]:
    """Name, image and true classes of each test knee."""
    if source == "template":
        names = (TEMPLATE / f"CLAIR-Knee-103R_{part}_64x128x128.nii.gz" for part in ("template", "segmentation"))
        image, labels = (read_volume(path) for path in names)
        truth = labels.with_array(TEMPLATE_CLASSES[labels.array.astype(int)])
        yield "template", knee3d.KneeImage(image.array, image.affine, Side.RIGHT, "template"), truth
        return
    table = api.make_phantom(
        out / source, knees=KNEES, seed=SEED, from_labels=[REAL / f"{source}_label.nrrd"], renderer="random-fields",
        voxel_mm=OAI, flexion_deg=5.0,
    )  # fmt: skip
    for knee in read_manifest(table):
        if knee.visit == "baseline":
            labels = read_volume(knee.mask)
            image = read_image(knee.image)
            known = knee3d.KneeImage(image.array, image.affine, knee.side, knee.case)
            truth = labels.with_array(labels_to_classes(labels.array, LABEL_NAMES["pymskt"], SCHEME))
            yield knee.case, known, truth


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """Dice of two masks."""
    return float(2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found)))


def score(truth: Volume, found: knee3d.Segmentation) -> dict[str, float]:
    """Dice of each tissue, and of all cartilage by the fusion and by each view; errors of femoral cartilage."""
    truth = to_canonical(truth, found.side)
    every = {"fused": found.labels, **found.view_labels}
    every = {name: to_canonical(labels, found.side) for name, labels in every.items()}
    fused = every["fused"]
    there = [number for number in range(1, SCHEME.classes) if (truth.array == number).any()]
    plates = [number for number in there if "cartilage" in SCHEME.names[number - 1]]
    line = {SCHEME.names[number - 1]: dice(truth.array == number, fused.array == number) for number in there}
    for name, labels in every.items():
        line[f"cartilage, {name}"] = dice(np.isin(truth.array, plates), np.isin(labels.array, plates))
    mine, true = (femoral(labels, Side.RIGHT) for labels in (fused, truth))
    line["femoral volume %"] = 100 * (mine["volume"] / true["volume"] - 1)
    line["femoral thickness mm"] = mine["thickness_mean"] - true["thickness_mean"]
    return line


def femoral(labels: Volume, side: Side) -> Mapping[str, float]:
    """Volume in mm3 and mean thickness in mm of femoral cartilage."""
    measures = measure_knee(labels, SCHEME, side, None).measures
    return {one.measure: one.value for one in measures if one.tissue == FEMORAL and one.region == "whole"}


def main() -> None:
    """Score a models folder on the knees of a source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models")
    parser.add_argument("source", choices=["knee_a", "knee_b", "template"])
    parser.add_argument("--knees", type=Path, default=Path("runs/starter_knees"), help="gets the test knees")
    parser.add_argument("--out", type=Path, help="gets the scores of each knee, as JSON")
    given = parser.parse_args()
    model = knee3d.KneeModel.load(given.models)
    lines = {name: score(truth, model.segment(image)) for name, image, truth in test_knees(given.source, given.knees)}
    table = Table("", *lines, "mean")
    for name in dict.fromkeys(name for line in lines.values() for name in line):
        values = [line.get(name, float("nan")) for line in lines.values()]
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{mean(values):.3f}")
    Console(width=140).print(table)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
