"""Which voxels should a model have, and what is one model for many protocols worth?

Knees are deformed from two real label maps, cut out around the joint. Training and validation knees are deformed from
knee_a and rendered by `random-fields`. Test knees are deformed from knee_b and rendered by `leg`; beside them stand
test knees rendered by `random-fields`. The networks are VGG16-UNets. At each point all of them see as many slices.

    curve        One sagittal network for each voxel size of the model, on scans of OAI's voxels.
    protocols    One sagittal network for three protocols, against one for each of them on the voxels of the scan. Test
                 knees are of the three protocols, and of a fourth.
    views        Three planes of one voxel size, on scans whose slices are thicker and thicker along one axis: what
                 fusion weights do they need?

A network that is finished is not trained again, and results are kept in FOLDER/results.jsonl, so the command can be
killed and repeated.

    python benchmarks/model_spacing.py runs/spacing curve
    python benchmarks/model_spacing.py runs/spacing protocols
    python benchmarks/model_spacing.py runs/spacing views
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rendered import REAL
from rich.console import Console
from rich.table import Table

from knee3d import api
from knee3d.dataset.case_collection import Case, Split, load_cases
from knee3d.dataset.manifest import ManifestRow, read_manifest, write_manifest
from knee3d.geometry.box import box_between
from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.inference.trained_models import TrainedModels, load_models
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_scheme import FEMORAL, SCHEMES, TIBIAL
from knee3d.morphometry.knee_measurements import measure_knee
from knee3d.postprocess.assessment import assess_case
from knee3d.training.config import RunOptions, TrainConfig

Size = tuple[float, float, float]
JOINT = (192, 256, 160)
"""Voxels along Inferior, Posterior and Left that are cut out around the cartilage: 70 x 93 x 112 mm."""
CARTILAGE = (1, 2, 3, 4)
"""The labels of cartilage, as pymskt numbers them."""
SCHEME = SCHEMES["compartments"]
TRAINED_ON, TESTED_ON = "random-fields", "leg"
"""Renderers."""
OAI: Size = (0.3646, 0.3646, 0.7)
CURVE = ("native", "0.45,1.0", "0.55,1.4", "0.7,1.8", "0.9,2.1")
"""Voxels of the models: pixels and steps between slices in mm."""
PROTOCOLS: tuple[Size, ...] = ((0.36, 0.36, 0.7), (0.31, 0.31, 1.5), (0.55, 0.55, 3.0))
UNSEEN: Size = (0.45, 0.45, 2.2)
MODEL = "0.55,1.4"
"""Voxels of the models of three planes."""
THICK_MM = (0.7, 1.5, 3.0, 4.5)
CONFIG = TrainConfig().with_options(
    epochs=5, limit_slices=420, batch_size=6, learning_rate=5e-4, schedule="cosine", loss="dice-ce",
    augment="medium", precision="mixed_bfloat16",
)  # fmt: skip
KNEES = {Split.TRAIN: 8, Split.VAL: 1, Split.TEST: 3}
"""The number of patients of each split, for each protocol."""


@dataclass(frozen=True)
class Folder:
    """Where everything lies.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def results(self) -> Path:
        """A line for each test knee and network."""
        return self.path / "results.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def keep(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add some lines."""
        with self.results.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def joint(self, knee: str) -> Path:
        """The label map of a knee, cut out around the joint."""
        path = self.path / f"{knee}_joint.nrrd"
        if not path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            write_volume(around_joint(to_canonical(read_volume(REAL / f"{knee}_label.nrrd"))), path)
        return path

    def dataset(self, name: str, train: Sequence[Size], test: Sequence[Size], many: int = KNEES[Split.TRAIN]) -> Path:
        """A prepared dataset.

        Args:
            name: The name of its folder.
            train: The protocols of training and validation knees.
            test: The protocols of test knees.
            many: The number of training knees for each protocol.
        """
        out = self.path / "datasets" / name
        rows: list[ManifestRow] = []
        for voxel_mm in train:
            rows += self._knees(Split.TRAIN, "knee_a", TRAINED_ON, voxel_mm, many)
            rows += self._knees(Split.VAL, "knee_a", TRAINED_ON, voxel_mm, KNEES[Split.VAL])
        for voxel_mm in test:
            for renderer in (TESTED_ON, TRAINED_ON):
                rows += self._knees(Split.TEST, "knee_b", renderer, voxel_mm, KNEES[Split.TEST])
        table = out.with_suffix(".csv")
        table.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(table, tuple(rows))
        api.prepare(table, out, scheme=SCHEME.name, labels="pymskt")
        return out

    def _knees(self, split: Split, source: str, renderer: str, voxel_mm: Size, count: int) -> list[ManifestRow]:
        """The same anatomies for each protocol and renderer: the seed of a split decides."""
        name = f"{split.value}-{renderer}-{'x'.join(f'{mm:g}' for mm in voxel_mm)}"
        seed = {Split.TRAIN: 41, Split.VAL: 42, Split.TEST: 43}[split]
        table = api.make_phantom(
            self.path / "cohorts" / name, knees=count, seed=seed, from_labels=[self.joint(source)], renderer=renderer,
            voxel_mm=voxel_mm,
        )  # fmt: skip
        knees = read_manifest(table)
        first = [knee for knee in knees if knee.visit == "baseline"]
        return [
            replace(knee, case=f"{name}-{knee.case}", patient=f"{split.value}-{source}-{knee.patient}", split=split)
            for knee in first
        ]

    def trained(self, name: str, dataset: Path, views: Sequence[str], config: TrainConfig) -> Path:
        """The models folder of a training, which is done first if it is not done."""
        models, started = self.path / "models" / name, time.perf_counter()
        api.train_views(dataset, views, models, config, RunOptions(resume=True))
        print(f"{name}: trained in {time.perf_counter() - started:.0f} s", flush=True)
        return models


def around_joint(labels: Volume) -> Volume:
    """Cut out `JOINT` voxels around the cartilage of a label map."""
    where = np.argwhere(np.isin(labels.array, CARTILAGE))
    middle = (where.min(axis=0) + where.max(axis=0) + 1) // 2
    start = np.clip(middle - np.array(JOINT) // 2, 0, np.array(labels.shape) - JOINT)
    return labels.part(box_between(start, start + JOINT))


def measured(labels: Volume, side: Side) -> dict[str, float]:
    """Volumes in mm3 and mean thicknesses in mm of the femoral and tibial cartilage."""
    wanted = {"volume": "volume", "thickness_mean": "thickness"}
    return {
        f"{one.tissue.split()[0]} {wanted[one.measure]}": one.value
        for one in measure_knee(labels, SCHEME, side, None).measures
        if one.region == "whole" and one.measure in wanted and one.tissue in (FEMORAL, TIBIAL)
    }


def score(truth: Volume, labels: Volume, side: Side) -> dict[str, float]:
    """Dice of all cartilage and of each tissue; volume in per cent and thickness in mm against the truth."""
    found = assess_case(truth, labels, SCHEME.names, surfaces=False).scores
    line = {"dice": float(found.foreground_dice)}
    line |= {name: float(one) for name, one in zip(SCHEME.names, found.dice, strict=True)}
    mine, true = measured(labels, side), measured(truth, side)
    for name, value in true.items():
        if "volume" in name:
            line[name] = 100 * (mine.get(name, 0.0) / value - 1)
        else:
            line[name] = mine.get(name, float("nan")) - value
    return line


def scores(folder: Folder, what: str, point: str, dataset: Path, models: Path, chosen: Callable[[Case], bool]) -> None:
    """Score a model on the test knees, once.

    Args:
        folder: Keeps the lines.
        what: The question.
        point: The name of the model in it.
        dataset: With the knees.
        models: The models folder.
        chosen: Whether a knee counts.
    """
    done = {line["case"] for line in folder.lines() if (line["what"], line["point"]) == (what, point)}
    cases = load_cases(dataset)
    trained = load_models(models, fused=False)
    for case in cases.of_split(Split.TEST):
        if case.name in done or not chosen(case):
            continue
        labels = segmented(trained, cases.image(case), case.name)
        line = score(cases.mask(case), labels, case.side)
        renderer = TESTED_ON if f"-{TESTED_ON}-" in case.name else TRAINED_ON
        voxels = " x ".join(f"{mm:.2g}" for mm in case.spacing_mm)
        folder.keep([{"what": what, "point": point, "case": case.name, "renderer": renderer, "voxels": voxels, **line}])


def segmented(trained: TrainedModels, image: Volume, name: str) -> Volume:
    """Labels of a knee, on the voxels of the scan."""
    return trained.ensemble.predict(image, name).labels


def curve(folder: Folder) -> None:
    """Train and score a model for each voxel size."""
    dataset = folder.dataset("oai", [OAI], [OAI])
    for spacing in CURVE:
        models = folder.trained(f"curve-{spacing}", dataset, ["sagittal"], CONFIG.with_options(spacing=spacing))
        scores(folder, "curve", spacing, dataset, models, lambda case: True)
    show(folder, "curve")


def protocols(folder: Folder) -> None:
    """Train one model for three protocols, and one for each; score all on four."""
    everything = folder.dataset("mixed", PROTOCOLS, [*PROTOCOLS, UNSEEN])
    models = folder.trained("mixed", everything, ["sagittal"], CONFIG.with_options(spacing="auto"))
    scores(folder, "protocols", "one for three protocols", everything, models, lambda case: True)
    for voxel_mm in PROTOCOLS:
        name = " x ".join(f"{mm:g}" for mm in voxel_mm)
        dataset = folder.dataset(f"alone-{name.replace(' ', '')}", [voxel_mm], [])
        models = folder.trained(f"alone-{name}", dataset, ["sagittal"], CONFIG.with_options(spacing="native"))
        scores(folder, "protocols", f"{name} alone", everything, models, lambda case: True)
    show(folder, "protocols")


def show(folder: Folder, what: str) -> None:
    """Print means over the test knees: for each model, renderer and protocol."""
    lines = [line for line in folder.lines() if line["what"] == what]
    measures = [name for name in lines[0] if isinstance(lines[0][name], float)]
    table = Table("model", "renderer", "voxels of the scan", "knees", *measures, title=what)
    keys = dict.fromkeys((line["point"], line["renderer"], line["voxels"]) for line in lines)
    for key in keys:
        mine = [line for line in lines if (line["point"], line["renderer"], line["voxels"]) == key]
        table.add_row(*key, str(len(mine)), *(f"{mean(line[name] for line in mine):.3f}" for name in measures))
    Console(width=200).print(table)


QUESTIONS: Mapping[str, Callable[[Folder], None]] = {"curve": curve, "protocols": protocols}


def main() -> None:
    """Answer a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets knees, datasets, models and results")
    parser.add_argument("question", choices=QUESTIONS)
    given = parser.parse_args()
    QUESTIONS[given.question](Folder(given.folder))


if __name__ == "__main__":
    main()
