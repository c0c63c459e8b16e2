"""Which network, which views, which fusion: the questions that the paper leaves open, on any knees.

Each cell trains what it needs, is scored on test patients, who serve for nothing else, and adds its lines to
results.jsonl; a finished cell is not done again, so the command can be killed and repeated. At the end it prints the
table and the answers, which are also in study.md.

    python benchmarks/study.py runs/study                              small: 90 minutes on 2 cores, rendered knees
    python benchmarks/study.py /data/study --preset full --dataset data/oai     for a lab with GPUs
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rendered import make_dataset
from scipy import stats

from knee3d import workflow
from knee3d.anatomy.plane import Plane
from knee3d.dataset.cases import Dataset, Split, load_dataset
from knee3d.learn.config import Going, TrainConfig
from knee3d.learn.networks import NETWORKS
from knee3d.models import load_models
from knee3d.postprocess.intervals import mean_interval
from knee3d.postprocess.oblique import OBLIQUE
from knee3d.postprocess.patches import SOLID

PLANES = [plane.value for plane in Plane]
FLAT = [name for name, network in NETWORKS.items() if not network.solid]
PAPER = dict(zip(("sagittal", "axial", "coronal"), (0.5077, 0.4012, 0.0911), strict=True))
"""Weights of the paper's fusion, by their anatomical names (decision D2)."""
DIRECTIONS = 6
SHAPES = {"thick along Left, as OAI": (72, 72, 36), "thick along Inferior": (36, 72, 72), "even": (57, 57, 57)}
"""Of the rendered knees: the same field of view, cut into as many voxels otherwise."""
USUAL, *OTHERS = SHAPES


@dataclass(frozen=True)
class Preset:
    """How much is done.

    Attributes:
        config: Of networks of slices; the same for all.
        solid: Of the network of the volume.
        knees: Rendered from real label maps, and made up.
        shares: Of training, validation and test patients.
    """

    config: TrainConfig
    solid: TrainConfig
    knees: tuple[int, int] = (16, 8)
    shares: tuple[float, float, float] = (0.4, 0.2, 0.4)


_SMALL = TrainConfig(
    epochs=4, batch_size=16, learning_rate=1e-3, schedule="cosine", augment="none", limit_slices=288,
    foreground_fraction=0.8, precision="mixed_bfloat16",
)  # fmt: skip
_FULL = TrainConfig(batch_size=16, precision="mixed_bfloat16", xla=True)
PRESETS = {
    "small": Preset(
        _SMALL,
        replace(_SMALL, network="unet3d", encoder=None, batch_size=2, patch=(48, 48, 32), limit_slices=72),
    ),
    "full": Preset(_FULL, replace(_FULL, network="unet3d", encoder=None, batch_size=2, patch=(96, 96, 64))),
}


@dataclass(frozen=True)
class Study:
    """Where things lie.

    Attributes:
        folder: Of the study.
        preset: How much is done.
        given: A prepared dataset; None renders knees.
    """

    folder: Path
    preset: Preset
    given: Path | None

    @cached_property
    def done(self) -> set[str]:
        """Cells that are finished."""
        return {line["cell"] for line in self.lines()}

    @property
    def results(self) -> Path:
        """A line for each way of looking at knees."""
        return self.folder / "results.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """All so far."""
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def dataset(self, kind: str) -> Path:
        """Knees of a kind of voxel."""
        if kind == USUAL and self.given is not None:
            return self.given
        return make_dataset(self.folder / "knees" / kind, SHAPES[kind], *self.preset.knees, self.preset.shares)

    def trained(self, name: str, kind: str, views: Sequence[str], config: TrainConfig) -> Path:
        """A models folder whose views are trained."""
        models = self.folder / "models" / name
        workflow.train(self.dataset(kind), views, models, config, workflow.Launcher(going=Going(resume=True)))
        return models

    def together(self, name: str, *sources: Path) -> Path:
        """A models folder of the networks of others."""
        models = self.folder / "models" / name
        models.mkdir(parents=True, exist_ok=True)
        for source in sources:
            for card in source.glob("*/card.json"):
                if not (models / card.parent.name).exists():
                    (models / card.parent.name).symlink_to(card.parent.resolve())
        return models


Lines = list[dict[str, Any]]


def scored(study: Study, kind: str, models: Path, ways: Mapping[str, str], oblique: int = 0, **scoring: Any) -> Lines:
    """A line for each way of looking: scores of every test knee.

    Args:
        study: Where things lie.
        kind: Of the knees.
        models: With fusion.json, if fusion is among the ways.
        ways: Name in the evaluation to what it is called in the study.
        oblique: Views beside the planes.
        scoring: See `workflow.Scoring`.
    """
    out = study.folder / "evaluation" / models.name
    dataset = study.dataset(kind)
    summary = workflow.evaluate(dataset, models, Split.TEST, out, workflow.Scoring(pictures=False, **scoring), oblique)
    patients = {case.name: case.patient for case in load_dataset(dataset).cases}
    return [
        {
            "way": called, "knees": kind,
            "patients": [patients[case] for case in summary["cases"]],
            "weights": summary["weights"] if way == "fused" else None,
            **{measure: {tissue: [views[way][measure].get(tissue) for views in summary["cases"].values()]
                         for tissue in views_of(summary)[way][measure]}
               for measure in ("dice", "assd_mm", "volume_difference")},
        }
        for way, called in ways.items()
    ]  # fmt: skip


def views_of(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the first case."""
    return next(iter(summary["cases"].values()))


def costs(study: Study, models: Path, view: str, oblique: int = 0) -> dict[str, float]:
    """Parameters of a view's network, GFLOP and seconds of a test knee, after another one to warm up."""
    import keras

    dataset = load_dataset(study.dataset(USUAL))
    first, *_, last = (dataset.image(case) for case in dataset.of_split(Split.TEST))
    ensemble = load_models(models, fused=False, oblique=oblique).ensemble
    one = ensemble.views[view]
    for _ in one.parts(first):
        pass
    shown: list[tuple[int, ...]] = []
    started = time.perf_counter()
    for _ in replace(one, predictor=Counting(one.predictor, shown)).parts(last):
        pass
    seconds = time.perf_counter() - started
    folder = view if (models / view).exists() else OBLIQUE
    model = keras.models.load_model(models / folder / "model.keras", compile=False)
    per_shape = {shape: gflop(model, shape) for shape in {shape[1:] for shape in shown}}
    work = sum(shape[0] * per_shape[shape[1:]] for shape in shown)
    return {"parameters": model.count_params(), "gflop": work, "seconds": seconds}


@dataclass(frozen=True)
class Counting:
    """A predictor that writes down what it is shown."""

    inner: Any
    shown: list[tuple[int, ...]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """The predictor's answer."""
        self.shown.append(slices.shape)
        return self.inner(slices)


def gflop(model: Any, shape: tuple[int, ...]) -> float:
    """Of one slice or patch: two for each weight of a convolution and place of its output, or input if transposed."""
    counted: list[float] = []

    def counting(layer: Any) -> Callable[[Any], Any]:
        call, transposed = layer.call, "Transpose" in type(layer).__name__

        def call_and_count(inputs: Any) -> Any:
            answer = call(inputs)
            places = np.prod((inputs if transposed else answer).shape[1:-1])
            counted.append(2e-9 * np.prod(layer.kernel.shape) * float(places))
            return answer

        return call_and_count

    for layer in model._flatten_layers():
        if "Conv" in type(layer).__name__:
            layer.call = counting(layer)
    model(np.zeros((1, *shape), np.uint8))
    return sum(counted)


def planes_cell(name: str, kind: str) -> Callable[[Study], Lines]:
    """A network on each plane, and their mean."""

    def run(study: Study) -> Lines:
        called = name if kind == USUAL else f"{name}, {kind}"
        models = study.trained(called, kind, PLANES, replace(study.preset.config, network=name))
        lines = scored(study, kind, models, {view: view for view in PLANES} | {"fused": "three planes, equal"})
        timed = PLANES if kind == USUAL else ()
        return [
            line | {"network": name} | (costs(study, models, line["way"]) if line["way"] in timed else {})
            for line in lines
        ]

    return run


def fusion_cell(study: Study) -> Lines:
    """Other ways to fuse the planes of the U-Net."""
    models, dataset = study.together("unet-fused", study.folder / "models" / "unet"), study.dataset(USUAL)
    ways = {"fitted": {}, "the paper's weights": {"weights": PAPER}, "weights for each tissue": {"per_class": True}}
    others = {"logarithmic": "logarithmic, equal", "vote": "vote", "STAPLE": "STAPLE"}
    lines: Lines = []
    for way, wanted in ways.items():
        workflow.fuse(dataset, models, workflow.Wanted(**wanted))
        last = way == list(ways)[-1]
        lines += scored(study, USUAL, models, {"fused": way} | (others if last else {}), compare=last)
    return [line | {"network": "unet", "way": f"three planes, {line['way']}"} for line in lines]


def oblique_cell(shared: bool) -> Callable[[Study], Lines]:
    """Oblique directions, with one network for all or one for each, alone and beside the planes."""

    def run(study: Study) -> Lines:
        name = "one network" if shared else "a network each"
        views = [OBLIQUE] if shared else workflow.each_direction(DIRECTIONS)
        config = study.preset.config
        if shared and config.limit_slices is not None:
            config = replace(config, limit_slices=2 * config.limit_slices)
        models = study.trained(f"oblique, {name}", USUAL, views, replace(config, directions=DIRECTIONS))
        both = study.together(f"planes and oblique, {name}", study.folder / "models" / "unet", models)
        lines = []
        for folder, way in ((models, f"{DIRECTIONS} oblique views"), (both, f"three planes and {DIRECTIONS} oblique")):
            lines += scored(study, USUAL, folder, {"fused": f"{way}, {name}, equal"}, DIRECTIONS)
        return [line | {"network": "unet"} for line in lines] + [
            {"way": "oblique view", "network": "unet", "knees": USUAL, "patients": [],
             **costs(study, models, f"{OBLIQUE}-1", DIRECTIONS)}
        ]  # fmt: skip

    return run


def solid_cell(study: Study) -> Lines:
    """The volume at once."""
    models = study.trained("unet3d", USUAL, [SOLID], study.preset.solid)
    lines = scored(study, USUAL, models, {SOLID: SOLID})
    return [line | {"network": "unet3d", **costs(study, models, SOLID)} for line in lines]


CELLS: Mapping[str, Callable[[Study], Lines]] = {
    **{name: planes_cell(name, USUAL) for name in FLAT},
    "fusion": fusion_cell,
    "oblique, shared": oblique_cell(shared=True),
    "oblique, each": oblique_cell(shared=False),
    "unet3d": solid_cell,
    **{f"spacing, {kind}": planes_cell("unet", kind) for kind in OTHERS},
}
RENDERED_ONLY = {f"spacing, {kind}" for kind in OTHERS}


def balance(dataset: Dataset) -> Iterator[str]:
    """Of each plane: spacing within its slices, how many have tissue, how much of these is tissue."""
    cases = dataset.of_split(Split.TRAIN)
    masks = [dataset.mask(case) for case in cases]
    for plane in Plane:
        across = tuple(axis for axis in range(3) if axis != plane.axis)
        spacing = np.median([mask.spacing_mm for mask in masks], axis=0)
        counts = [np.count_nonzero(mask.array, axis=across) / np.prod([mask.shape[axis] for axis in across])
                  for mask in masks]  # fmt: skip
        shares = np.concatenate(counts)
        yield (
            f"- {plane.value}: pixels of {spacing[across[0]]:.2f} x {spacing[across[1]]:.2f} mm, slices "
            f"{spacing[plane.axis]:.2f} mm apart; {np.mean(shares > 0):.0%} of them show cartilage, which is "
            f"{np.mean(shares[shares > 0]):.1%} of these"
        )


def written(study: Study) -> str:
    """The table and the answers, as Markdown."""
    lines = [line for line in study.lines() if line["patients"]]
    rows = [_row(line) for line in sorted(lines, key=lambda line: (line["knees"] != USUAL, line["network"]))]
    head = ["network", "way", "knees", "femoral", "tibial", "patellar", "mean Dice (95 %)", "ASSD mm", "volume error",
            "million parameters", "GFLOP a knee", "s a knee"]  # fmt: skip
    table = [head, ["---"] * len(head), *rows]
    dataset = load_dataset(study.dataset(USUAL))
    counts = ", ".join(
        f"{len(dataset.of_split(split))} {split.value}" for split in (Split.TRAIN, Split.VAL, Split.TEST)
    )
    text = [f"Knees: {counts}.", "", *("| " + " | ".join(row) + " |" for row in table), "", *answers(lines), ""]
    return "\n".join([*text, "What each plane sees of the training knees:", "", *balance(dataset), ""])


def _row(line: Mapping[str, Any]) -> list[str]:
    tissues = [name for name in line["dice"] if name not in ("foreground", "mean")]
    mean = mean_interval(_numbers(line["dice"]["mean"]), line["patients"])
    known = [f"{value:.3g}" if value else "" for value in (
        line.get("parameters", 0) / 1e6, line.get("gflop", 0), line.get("seconds", 0))]  # fmt: skip
    return [
        line["network"], line["way"], line["knees"],
        *(f"{np.nanmean(_numbers(line['dice'][tissue])):.3f}" for tissue in tissues),
        f"{mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f})",
        f"{np.nanmean(_numbers(line['assd_mm']['mean'])):.2f}",
        f"{np.nanmean(np.abs(_numbers(line['volume_difference']['mean']))):.1%}",
        *known,
    ]  # fmt: skip


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def answers(lines: Lines) -> Iterator[str]:
    """What the numbers say, in words; differences are paired by knee."""
    found = {(line["network"], line["way"], line["knees"]): line for line in lines}

    def compared(title: str, one: tuple[str, str, str], other: tuple[str, str, str]) -> str:
        if one not in found or other not in found:
            return f"- {title}: not run yet."
        first, second = found[one], found[other]
        change = _numbers(first["dice"]["mean"]) - _numbers(second["dice"]["mean"])
        interval = mean_interval(change, first["patients"])
        p = stats.wilcoxon(change).pvalue if np.any(change) else 1.0
        clear = (interval.low > 0 or interval.high < 0) and p < 0.05
        return (
            f"- {title}: {one[1]} ({one[0]}) against {other[1]} ({other[0]}), {one[2]}: mean Dice {interval.mean:+.3f} "
            f"({interval.low:+.3f} to {interval.high:+.3f}), Wilcoxon p = {p:.3f}, {len(change)} knees; "
            f"{'a difference' if clear else 'no difference that these knees could show'}."
        )

    planes = [key for key in found if key[0] == "unet" and key[1] in PLANES and key[2] == USUAL]
    best = max(planes, key=lambda key: np.nanmean(_numbers(found[key]["dice"]["mean"])), default=("", "", ""))
    fused = ("unet", "three planes, fitted", USUAL)
    yield compared("Does fusion beat the best plane (chosen on these knees, which favours it)", fused, best)
    for kind in SHAPES:
        yield compared("Does the axial plane lose", ("unet", PLANES[0], kind), ("unet", PLANES[2], kind))
    for way in ("one network", "a network each"):
        more = ("unet", f"three planes and {DIRECTIONS} oblique, {way}, equal", USUAL)
        yield compared("Do more axes help", more, ("unet", "three planes, equal", USUAL))
    yield compared("What does 3D gain", ("unet3d", SOLID, USUAL), fused)


def main() -> None:
    """Do what is left, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets knees, models and results")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--dataset", type=Path, help="prepared knees instead of rendered ones")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS), help="these only")
    parser.add_argument("--encoder-weights", default="imagenet")
    given = parser.parse_args()
    preset = PRESETS[given.preset]
    preset = replace(preset, config=replace(preset.config, encoder_weights=given.encoder_weights))
    study = Study(given.folder, preset, given.dataset)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.cells:
        if name in study.done or (given.dataset is not None and name in RENDERED_ONLY):
            continue
        started = time.perf_counter()
        lines = [line | {"cell": name} for line in CELLS[name](study)]
        with study.results.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            os.fsync(file.fileno())
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    text = written(study)
    (given.folder / "study.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
