"""Which network, which views, which fusion: the questions that the paper leaves open, on any knees.

Each cell trains what it needs, is scored on test patients, who serve for nothing else, and adds its lines to
results.jsonl; a finished cell is not done again, so the command can be killed and repeated. At the end it prints the
table and the answers, which are also in study.md. Rendered test knees come from a label map of their own.

    python benchmarks/study.py runs/study                              small: for 2 cores, on rendered knees
    python benchmarks/study.py /data/study --preset full --dataset data/oai     for a lab with GPUs
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rendered import make_apart
from study_answers import written

from knee3d import api
from knee3d.atomic import whole_file
from knee3d.dataset.case_collection import CaseCollection, Split, load_cases
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import OBLIQUE, SHARED, SOLID
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import ProbabilityWriter
from knee3d.inference.trained_models import load_models
from knee3d.lease import leased
from knee3d.models.model_folder import is_trained
from knee3d.networks.architecture import NETWORKS
from knee3d.postprocess.assessment import assess_case
from knee3d.postprocess.decision import fused_labels
from knee3d.report.tables import to_plain_json
from knee3d.training.config import RunOptions, TrainConfig
from knee3d.training.view_setup import make_view_setup

PLANES = [plane.value for plane in Plane]
FLAT = [name for name, network in NETWORKS.items() if not network.solid]
PAPER = dict(zip(("sagittal", "axial", "coronal"), (0.5077, 0.4012, 0.0911), strict=True))
"""Weights of the paper's fusion, by their anatomical names (decision D2)."""
DIRECTIONS = 6
SHAPES = {"thick along Left, as OAI": (64, 64, 32), "thick along Inferior": (32, 64, 64), "even": (51, 51, 51)}
"""Of the rendered knees: the same field of view, cut into as many voxels otherwise."""
USUAL, *OTHERS = SHAPES
GIVEN = "as they were given"


@dataclass(frozen=True)
class Preset:
    """How much is done; test knees have no say in it.

    Attributes:
        config: Of networks of slices; the same for all.
        solid: Of the network of the volume, by nnU-Net's loss: with soft Dice alone, much of the background stayed
            patella (D69).
        shown: Share of its slices that an epoch of a plane's network sees. Slices of planes differ in size and number
            with the voxels' shape: as many slices of each would show more of the knees to one of them. Oblique slices
            then have voxels as large as those of the knees. None is all, in batches as `config` says.
        step: Voxels in a step, where a share is shown: batches are as many slices as have them, so that networks of
            all planes learn in as many steps, from as many voxels.
        slower: Networks of slices that learn at a tenth of the rate: at the whole one they end as background everywhere
            within an epoch, as their loss in training says.
        knees: For each split, patients rendered from a real label map, and made up; the first of them comes twice.
    """

    config: TrainConfig
    solid: TrainConfig
    shown: float | None = None
    step: int = 0
    slower: tuple[str, ...] = ()
    knees: Mapping[Split, tuple[int, int]] = field(
        default_factory=lambda: {Split.TRAIN: (8, 4), Split.VAL: (3, 2), Split.TEST: (6, 2)}
    )


_SMALL = TrainConfig().with_options(
    epochs=3, learning_rate=1e-3, schedule="cosine", augment="none", foreground_fraction=0.8,
    precision="mixed_bfloat16",
)  # fmt: skip
_FULL = TrainConfig().with_options(batch_size=16, precision="mixed_bfloat16", xla=True)
PRESETS = {
    "small": Preset(
        _SMALL,
        _SMALL.with_options(network="unet3d", encoder=None, patch=(48, 48, 32), loss="dice-ce"),
        shown=0.35,
        step=16384,
        slower=("fcn", "pspnet"),
    ),
    "full": Preset(
        _FULL, _FULL.with_options(network="unet3d", encoder=None, batch_size=2, patch=(96, 96, 64), loss="dice-ce")
    ),
}


def by_itself(do: Callable[..., Any], *given: Any) -> Any:
    """Do something in a process of its own, with which goes what TensorFlow keeps.

    The largest networks do not fit into 24 GB beside those before them, nor are they scored beside their trainings.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(do, *given).result()


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
    def kinds(self) -> list[str]:
        """Of knees; networks are compared on the first."""
        return list(SHAPES) if self.given is None else [GIVEN]

    @property
    def usual(self) -> str:
        """The first kind."""
        return self.kinds[0]

    @property
    def results(self) -> Path:
        """A line for each way of looking at knees."""
        return self.folder / "results.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """All so far."""
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def dataset(self, kind: str) -> Path:
        """Knees of a kind of voxel."""
        if self.given is not None:
            return self.given
        return make_apart(self.folder / "knees" / kind, SHAPES[kind], self.preset.knees)

    def begin(self, name: str) -> None:
        """Make the folder, or refuse one of another study.

        Raises:
            SystemExit: It is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "study.json"
        wanted = {"preset": name, "dataset": str(self.given or "rendered"), **asdict(self.preset), "shapes": SHAPES}
        text = json.dumps(wanted, indent=1, default=str) + "\n"
        if path.exists() and path.read_text() != text:
            raise SystemExit(f"{path} is of another study; give another folder")
        path.write_text(text)

    def trained(self, name: str, kind: str, views: Sequence[str], config: TrainConfig, planes: int = 1) -> Path:
        """A models folder whose views are trained.

        Args:
            name: Of the folder.
            kind: Of the knees.
            views: Of networks of slices, or that of the volume.
            config: How.
            planes: How many networks of planes one of these takes the place of, and sees as much of the knees as.
        """
        models, dataset = self.folder / "models" / name, self.dataset(kind)
        if not all(is_trained(models, view) for view in views):
            by_itself(self._train, models, dataset, views, config, planes)
        return models

    def _train(self, models: Path, dataset: Path, views: Sequence[str], config: TrainConfig, planes: int) -> None:
        for view in views:
            shown = config if view == SOLID else self.shown(view, config, load_cases(dataset), planes)
            api.train_views(dataset, [view], models, shown, RunOptions(resume=True))

    def shown(self, view: str, config: TrainConfig, dataset: CaseCollection, planes: int) -> TrainConfig:
        """As many slices in an epoch and in a step as the preset shows."""
        if self.preset.shown is None:
            return config
        cases = dataset.of_split(Split.TRAIN)
        if view == OBLIQUE:
            config = config.with_options(
                spacing=float(np.median([np.cbrt(np.prod(case.spacing_mm)) for case in cases]))
            )
        seeing = make_view_setup(view, config, cases)
        slices, height, width = np.array([stack.shape for stack in seeing.stacks(dataset, cases)]).T
        limit = round(self.preset.shown * planes * slices.sum() / max(1, len(seeing.rotations)))
        batch = max(1, round(self.preset.step / np.average(height * width, weights=slices)))
        return config.with_options(limit_slices=limit, batch_size=batch)

    def unet(self) -> Path:
        """The models folder of the U-Net of each plane, which is trained if it was not yet."""
        return self.trained("unet", self.usual, PLANES, self.preset.config)

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
MEASURES = ("dice", "assd_mm", "volume_difference")


def scored(study: Study, kind: str, models: Path, ways: Mapping[str, str], **scoring: Any) -> Lines:
    """A line for each way of looking: scores of every test knee.

    Args:
        study: Where things lie.
        kind: Of the knees.
        models: With fusion.json, if fusion is among the ways.
        ways: Name in the evaluation to what it is called in the study.
        scoring: Arguments of `KneeModel.evaluate`.
    """
    out = study.folder / "evaluation" / models.name
    dataset = study.dataset(kind)
    test = api.Dataset.load(dataset).test
    found = api.KneeModel(models).evaluate(test, out, pictures=False, **scoring)
    patients = {case.name: case.patient for case in load_cases(dataset).cases}
    cases = list(found.cases.values())
    return [
        {
            "way": called, "knees": kind,
            "patients": [patients[case] for case in found.cases],
            "weights": to_plain_json(found.weights) if way == "fused" else None,
            **_by_tissue([views[way] for views in cases]),
        }
        for way, called in ways.items()
    ]  # fmt: skip


def scored_among(study: Study, models: Path, ways: Mapping[str, Callable[[str], bool]]) -> Lines:
    """A line for each way of choosing among planes and oblique views, which look at each knee once; all count equally.

    Args:
        study: Where things lie.
        models: With networks of planes and of oblique slices.
        ways: What it is called to whether a view is chosen.
    """
    dataset, trained = load_cases(study.dataset(study.usual)), load_models(models, fused=False, oblique=DIRECTIONS)
    cases, names = dataset.of_split(Split.TEST), dataset.scheme.names
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for case in cases:
        seen: dict[str, Volume] = {}
        trained.ensemble.predict(dataset.image(case), case.name, keep=ProbabilityWriter(np.float32, seen.__setitem__))
        for way, is_chosen in ways.items():
            chosen = {view: said for view, said in seen.items() if is_chosen(view)}
            labels = fused_labels(chosen, dict.fromkeys(chosen, 1 / len(chosen)))
            found[way].append(to_plain_json(assess_case(dataset.mask(case), labels, names).measures))
    patients = [case.patient for case in cases]
    return [
        {"way": way, "knees": study.usual, "patients": patients, "weights": None, **_by_tissue(measures)}
        for way, measures in found.items()
    ]


def _by_tissue(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float | None]]]:
    return {
        measure: {tissue: [case[measure].get(tissue) for case in cases] for tissue in cases[0][measure]}
        for measure in MEASURES
    }


@dataclass(frozen=True)
class Cost:
    """Of a view: its network's folder and parameters; GFLOP and seconds of a test knee."""

    network: str
    parameters: int
    gflop: float
    seconds: float


def costs(study: Study, models: Path, oblique: int = 0) -> dict[str, Cost]:
    """Of each view of a models folder, after a knee to warm up."""
    import keras

    dataset = load_cases(study.dataset(study.usual))
    cases = dataset.of_split(Split.TEST)
    first, last = dataset.image(cases[0]), dataset.image(cases[-1])
    ensemble = load_models(models, fused=False, oblique=oblique).ensemble
    found: dict[str, Cost] = {}
    for name, view in ensemble.views.items():
        folder = OBLIQUE if is_oblique(name) else name
        for _ in view.parts(first):
            pass
        shown: list[tuple[int, ...]] = []
        started = time.perf_counter()
        for _ in replace(view, predictor=Counting(view.predictor, shown)).parts(last):
            pass
        seconds = time.perf_counter() - started
        model = keras.models.load_model(models / folder / "model.keras", compile=False)
        per_shape = {shape: gflop(model, shape) for shape in {shape[1:] for shape in shown}}
        work = sum(shape[0] * per_shape[shape[1:]] for shape in shown)
        found[name] = Cost(folder, model.count_params(), work, seconds)
    return found


def summed(found: Iterable[Cost]) -> dict[str, float]:
    """Of views that are fused, as a line has it; a network behind several has its parameters once."""
    views = list(found)
    networks = {view.network: view.parameters for view in views}
    return {
        "parameters": sum(networks.values()),
        "gflop": sum(view.gflop for view in views),
        "seconds": sum(view.seconds for view in views),
    }


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


def planes_cell(name: str, special: str | None = None) -> Callable[[Study], Lines]:
    """A network on each plane, and their mean; on knees of a special kind or the usual one."""

    def run(study: Study) -> Lines:
        kind, called = (study.usual, name) if special is None else (special, f"{name}, {special}")
        config = study.preset.config.with_options(network=name)
        if name in study.preset.slower:
            config = config.with_options(learning_rate=config.optimizer.learning_rate / 10)
        models = study.trained(called, kind, PLANES, config)
        ways = {view: view for view in PLANES} | {"fused": "three planes, equal"}
        lines = scored(study, kind, models, ways)
        found = costs(study, models) if special is None else {}
        cost = {view: summed([found[view]]) for view in found} | ({"fused": summed(found.values())} if found else {})
        return [line | {"network": name, **cost.get(way, {})} for way, line in zip(ways, lines, strict=True)]

    return run


def fusion_cell(study: Study) -> Lines:
    """Other ways to fuse the planes of the U-Net."""
    models, dataset = study.together("unet-fused", study.unet()), study.dataset(study.usual)
    ways = {"fitted": {}, "the paper's weights": {"weights": PAPER}, "weights for each tissue": {"per_tissue": True}}
    others = {"logarithmic": "logarithmic, equal", "vote": "vote", "STAPLE": "STAPLE"}
    lines: Lines = []
    for way, wanted in ways.items():
        api.KneeModel(models).fit_fusion(dataset, **wanted)
        last = way == list(ways)[-1]
        lines += scored(study, study.usual, models, {"fused": way} | (others if last else {}), compare=last)
    return [line | {"network": "unet", "way": f"three planes, {line['way']}"} for line in lines]


def is_oblique(view: str) -> bool:
    """Whether it is one of the views oblique-1, oblique-2, ..."""
    return view.startswith(OBLIQUE)


def oblique_cell(study: Study) -> Lines:
    """Oblique directions, with one network for all, alone and beside the planes."""
    config, name = study.preset.config.with_options(directions=DIRECTIONS), "one network"
    models = study.trained("oblique", study.usual, [OBLIQUE], config, len(PLANES))
    both = study.together("planes and oblique", study.unet(), models)
    found = costs(study, both, DIRECTIONS)
    alone = [cost for view, cost in found.items() if is_oblique(view)]
    ways: dict[str, Callable[[str], bool]] = {
        f"{DIRECTIONS} oblique views, {name}, equal": is_oblique,
        f"three planes and {DIRECTIONS} oblique, {name}, equal": lambda view: True,
    }
    lines = scored_among(study, both, ways)
    cost = (summed(alone), summed(found.values()))
    return [line | {"network": "unet", **one} for line, one in zip(lines, cost, strict=True)]


def shared_cell(study: Study) -> Lines:
    """One U-Net for the slices of all planes, which sees as many of them as the three networks together."""
    models = study.trained("shared", study.usual, [SHARED], study.preset.config)
    ways = {view: f"{view}, one network for all" for view in PLANES} | {"fused": "three planes, one network, equal"}
    lines = scored(study, study.usual, models, ways)
    found = {view: cost.with_options(network=SHARED) for view, cost in costs(study, models).items()}
    cost = {view: summed([found[view]]) for view in found} | {"fused": summed(found.values())}
    return [line | {"network": "unet", **cost[way]} for way, line in zip(ways, lines, strict=True)]


def solid_cell(study: Study) -> Lines:
    """The volume at once."""
    models = study.trained("unet3d", study.usual, [SOLID], study.preset.solid)
    lines = scored(study, study.usual, models, {SOLID: SOLID})
    return [line | {"network": "unet3d", **summed(costs(study, models).values())} for line in lines]


CELLS: Mapping[str, Callable[[Study], Lines]] = {
    **{name: planes_cell(name) for name in FLAT},
    "fusion": fusion_cell,
    "shared": shared_cell,
    "oblique": oblique_cell,
    "unet3d": solid_cell,
    **{f"spacing, {kind}": planes_cell("unet", kind) for kind in OTHERS},
}
RENDERED_ONLY = {f"spacing, {kind}" for kind in OTHERS}


def cell(name: str, study: Study) -> Lines:
    """The lines of a cell."""
    return [line | {"cell": name} for line in CELLS[name](study)]


def main() -> None:
    """Do what is left, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets knees, models and results")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--dataset", type=Path, help="prepared knees instead of rendered ones")
    parser.add_argument("--cells", nargs="*", choices=CELLS, help="these only [all]")
    parser.add_argument("--encoder-weights", default="imagenet")
    given = parser.parse_args()
    preset = PRESETS[given.preset]
    preset = replace(preset, config=preset.config.with_options(encoder_weights=given.encoder_weights))
    study = Study(given.folder, preset, given.dataset)
    with leased(given.folder):
        study.begin(given.preset)
        for name in dict.fromkeys(given.cells or CELLS):
            if name in study.done or (given.dataset is not None and name in RENDERED_ONLY):
                continue
            started = time.perf_counter()
            lines = by_itself(cell, name, study)
            took = time.perf_counter() - started
            with whole_file(study.results) as part:
                done = study.lines() + [line | {"took": took} for line in lines]
                part.write_text("".join(json.dumps(line) + "\n" for line in done))
            print(f"{name}: {took:.0f} s", flush=True)
        text = written(study.lines(), load_cases(study.dataset(study.usual)), study.kinds)
        (given.folder / "study.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
