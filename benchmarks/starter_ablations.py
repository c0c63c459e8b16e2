"""What in the made-up knees helps networks that learn from label maps alone?

One sagittal VGG16-UNet for each recipe, trained on knees from one label map, rendered by `leg`, and scored on knees
from the other, rendered by `random-fields`. Recipes leave out one part each of what varies. All see as many slices as
often, and begin from the same weights. Finished recipes are not trained again, and results are kept in
FOLDER/results.jsonl.

    python benchmarks/starter_ablations.py runs/ablations
    python benchmarks/starter_ablations.py runs/ablations --recipes all dess no-shapes
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

from rendered import REAL
from rich.console import Console
from rich.table import Table
from starter import score, test_knees

import knee3d
from knee3d import api
from knee3d.api.label_map_training import DEFECTS, DEFORM, FLEXION_DEG, THICKNESS
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import read_manifest, write_manifest
from knee3d.phantom import cohort
from knee3d.phantom.image_variation import VARIATIONS, ImageVariation
from knee3d.training.config import RunOptions, TrainConfig

TRAINED_ON, TESTED_ON = "knee_a", "knee_b"
FIELD_OF_VIEW_MM = (96.0, 96.0, 96.0)
KNEES, SEED = 16, 5
PROTOCOLS = ((0.3646, 0.3646, 0.7), (0.5, 0.5, 1.5))
CONFIG = TrainConfig().with_options(
    epochs=3, limit_slices=800, batch_size=4, learning_rate=5e-4, schedule="cosine", loss="dice-ce", augment="strong",
    ema=0.99, spacing="0.55,1.4", precision="mixed_bfloat16",
)  # fmt: skip
ANY = VARIATIONS["any"]


@dataclass(frozen=True)
class Recipe:
    """How the training knees of a network are made.

    Attributes:
        variation: How images differ from DESS.
        anatomy: Arguments of `make_phantom` for how knees differ from the label map.
        augment: The augmentation of training.
    """

    variation: ImageVariation = ANY
    anatomy: Mapping[str, Any] = field(
        default_factory=lambda: {
            "deform": DEFORM, "flexion_deg": FLEXION_DEG, "thickness": THICKNESS, "defects": DEFECTS,
        }
    )  # fmt: skip
    augment: str = "strong"


def without(part: str) -> Recipe:
    """Everything but one part of the variation of images."""
    return Recipe(replace(ANY, **{part: 0.0}))


def anatomy_without(**usual: Any) -> Recipe:
    """Everything but one part of the variation of anatomies."""
    return Recipe(anatomy={**Recipe().anatomy, **usual})


RECIPES: Mapping[str, Recipe] = {
    "all": Recipe(),
    "dess": Recipe(VARIATIONS["dess"]),
    **{f"no-{part}": without(part) for part in ANY.__dataclass_fields__},
    "no-flexion": anatomy_without(flexion_deg=0.0),
    "no-thickness": anatomy_without(thickness=(1.0, 1.0), defects=0.0),
    "deform-1": anatomy_without(deform=1.0),
    "augment-medium": Recipe(augment="medium"),
}
"""Names of recipes to recipes."""


def dataset_of(folder: Path, name: str, recipe: Recipe) -> Path:
    """The prepared training and validation knees of a recipe; the same anatomies where it does not say otherwise."""
    rows = []
    with patch.object(cohort, "VARIATIONS", {"any": recipe.variation}):
        for number, voxel_mm in enumerate(PROTOCOLS):
            made = api.make_phantom(
                folder / "cohorts" / f"{name}-{number}", knees=KNEES // len(PROTOCOLS), seed=SEED + number,
                from_labels=[REAL / f"{TRAINED_ON}_label.nrrd"], voxel_mm=voxel_mm, appearance="any",
                letter="AB"[number], field_of_view_mm=FIELD_OF_VIEW_MM, **recipe.anatomy,
            )  # fmt: skip
            rows += read_manifest(made)
    last = rows[-1].patient
    rows = [replace(knee, split=Split.VAL if knee.patient == last else Split.TRAIN) for knee in rows]
    table = folder / "cohorts" / f"{name}.csv"
    write_manifest(table, tuple(rows))
    return api.prepare(table, folder / "datasets" / name, scheme="knee", labels="pymskt").folder


def run(folder: Path, names: Sequence[str]) -> None:
    """Train and score recipes that have no lines yet."""
    results = folder / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for name in names:
        if any(line["recipe"] == name for line in lines):
            continue
        recipe = RECIPES[name]
        dataset, models = dataset_of(folder, name, recipe), folder / "models" / name
        config = CONFIG.with_options(augment=recipe.augment)
        api.train_views(
            dataset, "sagittal", models, config, RunOptions(resume=True, cache=str(folder / "cache" / name))
        )
        model = knee3d.KneeModel.load(models)
        found = [
            {"recipe": name, "case": case, **score(truth, model.segment(image))}
            for case, image, truth in test_knees(TESTED_ON, folder / "test")
        ]
        with results.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in found)
        lines += found
        show(lines)


def show(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean over test knees for each recipe."""
    columns = [name for name in lines[0] if name not in ("recipe", "case")]
    table = Table("recipe", *columns)
    for name in dict.fromkeys(line["recipe"] for line in lines):
        mine = [line for line in lines if line["recipe"] == name]
        table.add_row(name, *(f"{mean(line[column] for line in mine):.3f}" for column in columns))
    Console(width=200).print(table)


def main() -> None:
    """Run recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    given = parser.parse_args()
    run(given.folder, given.recipes)


if __name__ == "__main__":
    main()
