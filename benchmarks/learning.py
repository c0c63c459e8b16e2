"""What knee3d's choices are worth: the same training with one choice changed at a time, on two seeds each.

Knees are rendered from the two real label maps of ../shared, deformed differently for each patient, and from the
parametric phantom (which alone serves where ../shared is not there). Scores are of validation patients, averaged over
them; the test patients are not looked at, so that nothing is chosen on them. A training that is finished is not done
again, so the command can be killed and repeated.

    python benchmarks/learning.py runs/learning
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from rendered import make_dataset
from rich.console import Console
from rich.table import Table

from knee3d import api
from knee3d.atomic import whole_file
from knee3d.dataset.case_collection import Split, load_cases
from knee3d.geometry.plane import Plane
from knee3d.training.config import RunOptions, TrainConfig

PLANE = Plane.SAGITTAL
SHAPE = (64, 64, 48)
BASE = TrainConfig().with_options(
    epochs=10, batch_size=8, learning_rate=5e-4, schedule="cosine", augment="none", loss_background=True
)
VARIANTS = {
    "none (ImageNet, context 1, soft Dice of all classes)": BASE,
    "soft Dice without background": BASE.with_options(loss_background=False),
    "soft Dice + cross-entropy": BASE.with_options(loss="dice-ce"),
    "augmentation medium": BASE.with_options(augment="medium"),
    "random encoder": BASE.with_options(encoder_weights="none"),
    "context 0": BASE.with_options(context=0),
}


def dice(dataset: Path, models: Path, config: TrainConfig) -> dict[str, float]:
    """Train and score: the mean over validation knees for each tissue."""
    api.train_views(dataset, [PLANE], models, config, RunOptions(resume=True))
    scores = models / "scores.json"
    if not scores.is_file():
        evaluation = api.KneeModel(models).evaluate(api.Dataset.load(dataset).val, models / "evaluation")
        cases = [views[PLANE.value].dice for views in evaluation.cases.values()]
        found = {tissue: float(np.nanmean([case[tissue] for case in cases])) for tissue in cases[0]}
        with whole_file(scores) as path:
            path.write_text(json.dumps(found))
    return json.loads(scores.read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets knees, dataset and models")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    dataset = make_dataset(given.folder, SHAPE, 10, 4, (0.6, 0.25, 0.15))
    cases = load_cases(dataset)
    counts = ", ".join(f"{len(cases.of_split(split))} {split.value}" for split in (Split.TRAIN, Split.VAL, Split.TEST))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(given.seeds):
        for number, (name, config) in enumerate(VARIANTS.items()):
            models = given.folder / "models" / f"{number}-{seed}"
            found[name].append(dice(dataset, models, config.with_options(seed=seed)))
            print(name, seed, json.dumps(found[name][-1]), flush=True)
    tissues = [*cases.scheme.names, "mean"]
    table = Table(
        "changed", *tissues, title=f"Dice of validation knees ({counts}), {PLANE.value}, mean and spread of seeds"
    )
    for name, runs in found.items():
        columns = [[run[tissue] for run in runs] for tissue in tissues]
        spread = [f" \N{PLUS-MINUS SIGN} {stdev(column):.3f}" if len(column) > 1 else "" for column in columns]
        table.add_row(name, *(f"{mean(column):.3f}{sd}" for column, sd in zip(columns, spread, strict=True)))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
