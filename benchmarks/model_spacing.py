"""Which voxels should a model have, and what is one model for many protocols worth?

Knees are deformed from two real label maps, cut out around the joint. Training and validation knees are deformed from
knee_a and rendered by `random-fields`. Test knees are deformed from knee_b and rendered by `leg`; beside them stand
test knees rendered by `random-fields`. The networks are VGG16-UNets. At each point all of them see as many slices.

    limit        What a perfect network loses by its voxels: it says of each of them how much of each tissue is in it.
    seconds      What a whole knee of OAI's size takes by three networks of each voxel size, see segment.py.
    curve        One sagittal network for each voxel size of the model, on scans of OAI's voxels.
    protocols    One sagittal network for three protocols, against one for each of them on the voxels of the scan. Test
                 knees are of the three protocols, and of a fourth.
    views        Three planes of one voxel size, on scans whose slices are thicker and thicker along one axis: what
                 fusion weights do they need?
    summary      Write the means of all of these into model_spacing.json beside this file.

A network that is finished is not trained again, and results are kept in FOLDER/results.jsonl, so the command can be
killed and repeated.

    python benchmarks/model_spacing.py runs/spacing limit
    python benchmarks/model_spacing.py runs/spacing seconds
    python benchmarks/model_spacing.py runs/spacing curve
    python benchmarks/model_spacing.py runs/spacing protocols
    python benchmarks/model_spacing.py runs/spacing views
    python benchmarks/model_spacing.py runs/spacing summary
"""

import argparse
import ast
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from knee3d.geometry.axis_resampling import axis_grid, resample_axes
from knee3d.geometry.box import box_between
from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import ProbabilityWriter
from knee3d.inference.trained_models import TrainedModels, load_models
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
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
PLANES = [plane.value for plane in Plane]
OAI: Size = (0.3646, 0.3646, 0.7)
CURVE = ("native", "0.45,1.0", "0.55,1.4", "0.625,1.5", "0.7,1.8", "0.9,2.1")
"""Voxels of the models: pixels and steps between slices in mm."""
PROTOCOLS: tuple[Size, ...] = (OAI, (0.55, 0.55, 3.0), (0.31, 0.31, 1.5))
UNSEEN: Size = (0.45, 0.45, 2.2)
MODEL = "0.55,1.4"
"""Voxels of the models of three planes, and of the one for three protocols."""
THICK: tuple[Size, ...] = (*((0.3646, 0.3646, mm) for mm in (0.7, 1.5, 3.0, 4.5)), (3.0, 0.3646, 0.3646))
"""Scans for three planes: sagittal slices that are thicker and thicker, and thick axial ones."""
SHARES = tuple(
    (first / 10, second / 10, (10 - first - second) / 10) for first in range(11) for second in range(11 - first)
)
"""Fusion weights of the axial, coronal and sagittal plane that are tried."""
POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Of the rule of `by_detail`, tried."""
CANDIDATE = 0.1
"""Voxels of which no view says that they are tissue with this probability are background for any weights."""
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

    def dataset(self, name: str, train: Sequence[Size], test: Sequence[Size], val: Sequence[Size] = ()) -> Path:
        """A prepared dataset.

        Args:
            name: The name of its folder.
            train: The protocols of training knees.
            test: The protocols of test knees.
            val: The protocols of validation knees; none are those of the training knees.
        """
        out = self.path / "datasets" / name
        rows: list[ManifestRow] = []
        for voxel_mm in train:
            rows += self._knees(Split.TRAIN, "knee_a", TRAINED_ON, voxel_mm)
        for voxel_mm in val or train:
            rows += self._knees(Split.VAL, "knee_a", TRAINED_ON, voxel_mm)
        for voxel_mm in test:
            for renderer in (TESTED_ON, TRAINED_ON):
                rows += self._knees(Split.TEST, "knee_b", renderer, voxel_mm)
        table = out.with_suffix(".csv")
        table.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(table, tuple(rows))
        api.prepare(table, out, scheme=SCHEME.name, labels="pymskt")
        return out

    def _knees(self, split: Split, source: str, renderer: str, voxel_mm: Size) -> list[ManifestRow]:
        """The same anatomies for each protocol and renderer: the seed of a split decides."""
        name = f"{split.value}-{renderer}-{'x'.join(f'{mm:g}' for mm in voxel_mm)}"
        seed = {Split.TRAIN: 41, Split.VAL: 42, Split.TEST: 43}[split]
        table = api.make_phantom(
            self.path / "cohorts" / name, knees=KNEES[split], seed=seed, from_labels=[self.joint(source)],
            renderer=renderer, voxel_mm=voxel_mm,
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


def scores(
    folder: Folder,
    what: str,
    point: str,
    dataset: Path,
    trained: Callable[[], Path],
    renderers: Sequence[str] = (TESTED_ON, TRAINED_ON),
) -> None:
    """Score a model on the test knees, once. Nothing is trained if all of them are scored.

    Args:
        folder: Keeps the lines.
        what: The question.
        point: The name of the model in it.
        dataset: With the knees.
        trained: Gives the models folder.
        renderers: Of the test knees.
    """
    done = {line["case"] for line in folder.lines() if (line["what"], line["point"]) == (what, point)}
    cases = load_cases(dataset)
    wanted = [case for case in cases.of_split(Split.TEST) if renderer_of(case) in renderers]
    missing = [case for case in wanted if case.name not in done]
    if not missing:
        return
    models = load_models(trained(), fused=False)
    for case in missing:
        labels = segmented(models, cases.image(case), case.name)
        line = score(cases.mask(case), labels, case.side)
        voxels = " x ".join(f"{mm:.2g}" for mm in case.spacing_mm)
        folder.keep(
            [{"what": what, "point": point, "case": case.name, "renderer": renderer_of(case), "voxels": voxels, **line}]
        )


def segmented(trained: TrainedModels, image: Volume, name: str) -> Volume:
    """Labels of a knee, on the voxels of the scan."""
    return trained.ensemble.predict(image, name).labels


def limit(folder: Folder) -> None:
    """Score a perfect network of each voxel size on the two label maps."""
    done = {(line["point"], line["case"]) for line in folder.lines() if line["what"] == "limit"}
    for knee in ("knee_a", "knee_b"):
        source = to_canonical(read_volume(REAL / f"{knee}_label.nrrd"))
        truth = source.with_array(labels_to_classes(source.array, LABEL_NAMES["pymskt"], SCHEME))
        for spacing in CURVE[1:]:
            if (spacing, knee) not in done:
                line = score(truth, by_perfect_network(truth, spacing), Side.RIGHT)
                folder.keep([{"what": "limit", "point": spacing, "case": knee, "renderer": "", "voxels": "", **line}])
    show(folder, "limit")


def by_perfect_network(truth: Volume, spacing: str) -> Volume:
    """Labels of a sagittal network with voxels of its own, whose probabilities are the shares of tissues."""
    pixel, step = (float(mm) for mm in spacing.split(","))
    grid = axis_grid(truth, (pixel, pixel, step))
    best, labels = np.zeros(truth.shape, np.float32), np.zeros(truth.shape, np.uint8)
    for label in range(SCHEME.classes):
        share = truth.with_array((truth.array == label).astype(np.float32))
        again = resample_axes(resample_axes(share, grid), share).array
        labels[again > best], best = label, np.maximum(again, best)
    return truth.with_array(labels)


def seconds(folder: Folder) -> None:
    """Time a whole knee, and one with --fast, through networks of each voxel size that nobody trained."""
    done = {line["point"] for line in folder.lines() if line["what"] == "seconds"}
    script, labels = Path(__file__).with_name("segment.py"), REAL / "knee_b_label.nrrd"
    for spacing in CURVE:
        if spacing in done:
            continue
        command = [sys.executable, script, "--labels", labels, "--ways", "whole", "fast"]
        said = subprocess.run([*command, "--spacing", spacing], capture_output=True, text=True, check=True).stdout
        ways = dict(line.split(" ", 1) for line in said.splitlines() if line.startswith(("whole {", "fast {")))
        results = {way: ast.literal_eval(one) for way, one in ways.items()}
        if results["fast"]["whole_because"]:
            raise SystemExit(f"{spacing}: --fast computed the whole knee: {results['fast']['whole_because']}")
        found = {way: float(one["seconds"]) for way, one in results.items()}
        folder.keep([{"what": "seconds", "point": spacing, "case": "knee_b", "renderer": "", "voxels": "", **found}])
    show(folder, "seconds")


def summary(folder: Folder) -> None:
    """Write the means over test knees, and what was found about fusion weights."""
    lines = folder.lines()
    found: dict[str, list[dict[str, Any]]] = {}
    for what in ("limit", "seconds", "curve", "protocols"):
        means = means_of([line for line in lines if line["what"] == what])
        keys = [dict(zip(("model", "renderer", "voxels"), key, strict=True)) for key in means]
        rounded = [{name: round(one, 4) for name, one in values.items()} for values in means.values()]
        found[what] = [key | values for key, values in zip(keys, rounded, strict=True)]
    seen = show_views([line for line in lines if line["what"] == "views"])
    Path(__file__).with_suffix(".json").write_text(json.dumps(found | {"views": seen}, indent=1) + "\n")


def curve(folder: Folder) -> None:
    """Train and score a model for each voxel size."""
    dataset = folder.dataset("oai", [OAI], [OAI])
    for spacing in CURVE:
        config = CONFIG.with_options(spacing=spacing)
        trained = partial(folder.trained, f"curve-{spacing}", dataset, ["sagittal"], config)
        scores(folder, "curve", spacing, dataset, trained)
    show(folder, "curve")


def protocols(folder: Folder) -> None:
    """Train one model for three protocols, and one for each; score all on four."""
    everything = folder.dataset("mixed", PROTOCOLS, [*PROTOCOLS, UNSEEN])
    trained = partial(folder.trained, "mixed", everything, ["sagittal"], CONFIG.with_options(spacing=MODEL))
    scores(folder, "protocols", "one for three protocols", everything, trained)
    for voxel_mm in PROTOCOLS:
        name = " x ".join(f"{mm:.2g}" for mm in voxel_mm)
        if voxel_mm == OAI:
            dataset, called = folder.dataset("oai", [OAI], [OAI]), "curve-native"
        else:
            dataset, called = folder.dataset(f"alone-{name.replace(' ', '')}", [voxel_mm], []), f"alone-{name}"
        trained = partial(folder.trained, called, dataset, ["sagittal"], CONFIG.with_options(spacing="native"))
        scores(folder, "protocols", f"{name} alone, not resampled", everything, trained, [TESTED_ON])
    show(folder, "protocols")


def views(folder: Folder) -> None:
    """Train three planes, and find the fusion weights that scans with thicker slices need."""
    models = folder.trained(
        f"curve-{MODEL}", folder.dataset("oai", [OAI], [OAI]), PLANES, CONFIG.with_options(spacing=MODEL)
    )
    dataset = folder.dataset("thick", [], THICK, THICK)
    done = {line["case"] for line in folder.lines() if line["what"] == "views"}
    cases, trained = load_cases(dataset), load_models(models, fused=False)
    for case in cases.cases:
        if case.name in done:
            continue
        seen: dict[str, Volume] = {}
        trained.ensemble.predict(cases.image(case), case.name, keep=ProbabilityWriter(np.float16, seen.__setitem__))
        found = of_shares([seen[plane].array for plane in PLANES], cases.mask(case).array)
        folder.keep([
            {"what": "views", "point": MODEL, "case": case.name, "split": case.split, "renderer": renderer_of(case),
             "spacing_mm": list(case.spacing_mm), "dice": found}
        ])  # fmt: skip
    show_views([line for line in folder.lines() if line["what"] == "views"])


def of_shares(views: Sequence[np.ndarray], truth: np.ndarray) -> list[float]:
    """The mean Dice of the tissues for each of `SHARES`.

    Args:
        views: (i, j, k, classes) probabilities of each plane.
        truth: (i, j, k) labels.
    """
    candidates = np.logical_or.reduce([view[..., 0] < 1 - CANDIDATE for view in views])
    parts, true = [view[candidates].astype(np.float32) for view in views], truth[candidates]
    classes = range(1, views[0].shape[-1])
    sizes = np.array([np.count_nonzero(truth == label) for label in classes])
    found = []
    for shares in SHARES:
        labels = sum(share * part for share, part in zip(shares, parts, strict=True)).argmax(axis=-1)
        both = np.array([np.count_nonzero((labels == label) & (true == label)) for label in classes])
        mine = np.array([np.count_nonzero(labels == label) for label in classes])
        found.append(float(np.mean(2 * both / (sizes + mine))))
    return found


def by_detail(shares: Sequence[float], spacing_mm: Sequence[float], power: float) -> tuple[float, ...]:
    """Weights that fall with the detail that slices of a plane lack: (pixel that is known / scan's pixel) ^ power."""
    known = np.maximum(float(MODEL.split(",")[0]), OAI)
    ratios = [min(1.0, *np.delete(known / spacing_mm, Plane(plane).axis)) for plane in PLANES]
    scaled = [share * ratio**power for share, ratio in zip(shares, ratios, strict=True)]
    return tuple(share / sum(scaled) for share in scaled)


def nearest(shares: Sequence[float]) -> int:
    """The number of the one of `SHARES` that is the nearest."""
    return int(np.argmin(np.square(np.array(SHARES) - shares).sum(axis=1)))


def show_views(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Print what validation knees say about weights, and what test knees gain by it.

    Returns:
        The same, for `summary`.
    """
    dice: dict[tuple[str, str, tuple[float, ...]], list[list[float]]] = {}
    for line in lines:
        scan = tuple(round(mm, 2) for mm in line["spacing_mm"])
        dice.setdefault((line["split"], line["renderer"], scan), []).append(line["dice"])
    over_knees = {key: np.mean(values, axis=0) for key, values in dice.items()}
    scans = sorted({scan for _, _, scan in dice}, key=lambda scan: (scan[0], scan[2]))
    val = {scan: over_knees["val", TRAINED_ON, scan] for scan in scans}
    usual = SHARES[int(val[scans[0]].argmax())]
    of_power = {
        power: mean(float(val[scan][nearest(by_detail(usual, scan, power))]) for scan in scans) for power in POWERS
    }
    best = max(of_power, key=lambda power: of_power[power])
    print(f"weights of {PLANES} on the first scan: {usual}; mean Dice of validation for each power: {of_power}")
    table = Table("scan mm", "best (val)", "rule", "test", *PLANES, "first", f"rule ^{best:g}", "best", title="views")
    rows = []
    for scan in scans:
        rule, fitted = by_detail(usual, scan, best), int(val[scan].argmax())
        for renderer in (TESTED_ON, TRAINED_ON):
            test = over_knees["test", renderer, scan]
            found = {plane: test[nearest([float(plane == one) for one in PLANES])] for plane in PLANES}
            found |= {"first": test[nearest(usual)], "rule": test[nearest(rule)], "best": test[fitted]}
            found = {name: round(float(one), 4) for name, one in found.items()}
            weights = {"fitted": SHARES[fitted], "rule_weights": [round(share, 3) for share in rule]}
            rows.append({"scan": scan, "renderer": renderer, **weights, **found})
            voxels = " x ".join(f"{mm:g}" for mm in scan)
            values = [f"{one:.3f}" for one in found.values()]
            table.add_row(voxels, str(SHARES[fitted]), str(weights["rule_weights"]), renderer, *values)
    Console(width=200).print(table)
    return {"first_weights": usual, "val_dice_of_power": of_power, "rows": rows}


def renderer_of(case: Case) -> str:
    """The name of the renderer of a knee."""
    return TESTED_ON if f"-{TESTED_ON}-" in case.name else TRAINED_ON


def means_of(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Means over the test knees, for each model, renderer and protocol."""
    found = {}
    for key in dict.fromkeys((line["point"], line["renderer"], line["voxels"]) for line in lines):
        mine = [line for line in lines if (line["point"], line["renderer"], line["voxels"]) == key]
        found[key] = {name: mean(line[name] for line in mine) for name in mine[0] if isinstance(mine[0][name], float)}
    return found


def show(folder: Folder, what: str) -> None:
    """Print the means of a question."""
    means = means_of([line for line in folder.lines() if line["what"] == what])
    table = Table("model", "renderer", "voxels of the scan", *next(iter(means.values())), title=what)
    for key, one in means.items():
        table.add_row(*key, *(f"{value:.3f}" for value in one.values()))
    Console(width=200).print(table)


QUESTIONS: Mapping[str, Callable[[Folder], None]] = {
    "limit": limit, "seconds": seconds, "summary": summary, "curve": curve, "protocols": protocols, "views": views,
}  # fmt: skip


def main() -> None:
    """Answer a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets knees, datasets, models and results")
    parser.add_argument("question", choices=QUESTIONS)
    given = parser.parse_args()
    QUESTIONS[given.question](Folder(given.folder))


if __name__ == "__main__":
    main()
