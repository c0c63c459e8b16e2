"""Commands from slices to scores."""

from pathlib import Path
from typing import Any

import click

from knee3d.anatomy.plane import Plane
from knee3d.cli.frame import FOLDER, Command, models_option, seed_option, show_scores, weights_option

PLANES = [plane.value for plane in Plane]


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@click.option("--plane", type=click.Choice([*PLANES, "all"]), default="all", show_default=True)
@models_option
@weights_option
@click.option("--context", type=click.IntRange(0), default=1, show_default=True, help="Neighbours on each side.")
@click.option("--epochs", type=click.IntRange(1), default=100, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=2, show_default=True, help="Over all devices together.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True)
@click.option(
    "--schedule",
    type=click.Choice(["plateau", "cosine"]),
    default="plateau",
    show_default=True,
    help="Learning rate: down when validation stalls, or down a cosine to the last epoch.",
)
@click.option("--augment/--no-augment", default=False, show_default=True, help="Change training pairs at random.")
@click.option("--limit-slices", type=click.IntRange(1), help="Use so many slices only, for a quick try.")
@click.option("--overwrite", is_flag=True, help="Replace a model that was trained with other settings or cases.")
@seed_option
def train(dataset: Path, plane: str, models: Path, overwrite: bool, **options: Any) -> None:
    """Train one network per plane on the slices in DATASET.

    Defaults are the paper's: VGG16-UNet, soft Dice, Adam 1e-4, batch 2, 100 epochs, ReduceLROnPlateau, on all visible
    devices (MirroredStrategy). Each plane gets a SavedModel, a model card, metrics.csv and TensorBoard logs. A plane
    that is already trained so is left alone.

    \b
    knee3d-train data/oai --plane all --models models
    knee3d-train data/oai --plane sagittal --batch-size 16 --learning-rate 3e-4
    tensorboard --logdir models
    """
    from knee3d import workflow
    from knee3d.learn.training import TrainConfig

    planes = list(Plane) if plane == "all" else [Plane(plane)]
    for folder in workflow.train(dataset, planes, models, TrainConfig(**options), overwrite):
        click.echo(f"{folder}")


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@models_option
def fuse(dataset: Path, models: Path) -> None:
    """Fit the weights of F = wc*C + wa*A + ws*S on the validation patients.

    \b
    knee3d fuse data/oai --models models
    """
    from knee3d import workflow

    fusion = workflow.fuse(dataset, models)
    for view, weight in fusion.weights.items():
        click.echo(f"{view:<10} weight {weight:.4f}   foreground Dice alone {fusion.alone[view]:.4f}")
    click.echo(f"fused foreground Dice on validation {fusion.dice:.4f}")


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@models_option
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--out", type=FOLDER, default="evaluation", show_default=True)
def evaluate(dataset: Path, models: Path, split: str, out: Path) -> None:
    """Score each plane and their fusion: confusion matrices, Dice, IoU, MIoU.

    \b
    knee3d evaluate data/oai --models models --split test --out results
    """
    from knee3d import workflow
    from knee3d.dataset.cases import Split

    show_scores(workflow.evaluate(dataset, models, Split(split), out))
    click.echo(f"{out}/scores.json  scores.csv  confusion.png  overview/")
