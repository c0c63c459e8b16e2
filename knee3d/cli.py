"""The commands: each parses, calls one function of `workflow`, and says what happened.

What is slow to import is imported inside the commands, so that `--help` answers at once.
"""

import logging
import os
from pathlib import Path
from typing import Any

import click

from knee3d import __version__
from knee3d.anatomy.orientation import Side
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES

PLANES = [plane.value for plane in Plane]


class Command(click.Command):
    """A command whose expected failures are one line and exit code 1, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("knee3d").setLevel(logging.INFO)
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, RuntimeError) as error:
            if isinstance(error, click.exceptions.Exit | click.Abort):  # click's own ways out are RuntimeErrors
                raise
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            raise click.ClickException("out of memory; use smaller --jobs or --batch-size") from error


class Group(click.Group):
    """Commands of this kind, listed in the order of the journey."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were defined."""
        return list(self.commands)


class Numbers(click.ParamType):
    """Three numbers with commas between them, such as 64,64,48."""

    def __init__(self, kind: type, name: str) -> None:
        self.kind = kind
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Text -> tuple of three."""
        if isinstance(value, tuple):
            return value
        try:
            first, second, third = (self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not three numbers with commas, such as {self.name}", param, ctx)
        return first, second, third


FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING = click.Path(exists=True, path_type=Path)

models_option = click.option(
    "--models", type=FOLDER, default="models", show_default=True, help="Folder of the trained planes."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=lambda: len(os.sched_getaffinity(0)), help="Knees at a time [all cores]."
)
seed_option = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
series_option = click.option("--series", help="DICOM series, by number or UID, where a folder holds several.")
echo_option = click.option("--echo", help="Echo number where a series holds several, or rss: root sum of squares.")
weights_option = click.option(
    "--encoder-weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|FILE",
    help="What the encoder starts from. imagenet is downloaded, or taken from KNEE3D_ENCODER_WEIGHTS.",
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="knee3d")
def main() -> None:
    """Measure knee cartilage in MRI: one network per plane, fused, in mm3.

    \b
    Try it:          knee3d demo
    Your own knees:  knee3d prepare knees.csv data/oai
                     knee3d-train data/oai --plane all --models models
                     knee3d fuse data/oai --models models
                     knee3d evaluate data/oai --models models --out results
                     knee3d segment path/to/dicom --models models --out knee_1
    """


@main.command()
@click.argument("out", type=FOLDER)
@click.option("--knees", type=click.IntRange(1), default=8, show_default=True, help="Patients, one knee each.")
@click.option("--shape", type=Numbers(int, "64,64,48"), metavar="I,P,L", help="Voxels down, back, left [128,128,96].")
@click.option("--from-labels", "sources", type=FILE, multiple=True, help="Label map to deform (repeat for more).")
@click.option(
    "--deform",
    "strength",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="How much; 0 keeps them exactly.",
)
@seed_option
@jobs_option
def phantom(out: Path, knees: int, **options: Any) -> None:
    """Make up a cohort: DICOM series, masks, knees.csv.

    Right and left knees in turn; the first patient comes back for a follow-up visit with less cartilage.
    Without --from-labels the anatomy is parametric and needs no data. Label maps are right knees numbered as pymskt
    does: 1 femoral, 2 medial tibial, 3 lateral tibial, 4 patellar cartilage, 5 femur, 6 tibia, 7 patella, 8 fibula,
    9 lateral, 10 medial meniscus.

    \b
    knee3d phantom cohort --knees 8 --shape 64,64,48 --seed 1
    knee3d phantom cohort --knees 8 --from-labels knee_a.nrrd --from-labels knee_b.nrrd
    """
    from knee3d import workflow
    from knee3d.dataset.phantom.cohort import Cohort

    jobs = options.pop("jobs")
    table = workflow.phantom(Cohort(knees, **options), out, jobs)
    click.echo(f"{knees} knees and a follow-up in {table}")


@main.command()
@click.argument("table", type=FILE)
@click.argument("dataset", type=FOLDER)
@click.option("--scheme", type=click.Choice(list(SCHEMES)), default="cartilage", show_default=True, help="Classes.")
@click.option("--labels", help="What mask values mean: a name or JSON file [labels.json beside the table].")
@click.option(
    "--split", type=Numbers(float, "0.7,0.15,0.15"), default=(0.7, 0.15, 0.15), help="Patients for train,val,test."
)
@series_option
@echo_option
@seed_option
@jobs_option
def prepare(table: Path, dataset: Path, **options: Any) -> None:
    """Turn the knees of TABLE into PNG slices in three planes.

    TABLE is CSV with the columns case, patient, visit, side (L, R or empty), image (a folder of DICOM, or NIfTI, NRRD,
    MHA), mask (a label file on the same grid, or empty), and optionally split. Splits are by patient. Run it again
    after an interruption: finished knees are kept.

    \b
    knee3d prepare knees.csv data/oai --scheme compartments --split 0.7,0.15,0.15 --seed 1
    """
    from knee3d import workflow
    from knee3d.dataset.prepare import Preparation

    preparation = Preparation(
        SCHEMES[options["scheme"]], None, options["split"], options["seed"], options["series"], options["echo"]
    )
    prepared = workflow.prepare(table, dataset, preparation, options["labels"], options["jobs"])
    counts: dict[str, int] = {}
    for case in prepared.cases:
        counts[case.split or "unlabelled"] = counts.get(case.split or "unlabelled", 0) + 1
    click.echo(f"{dataset}: {', '.join(f'{count} {split}' for split, count in counts.items())}")


@main.command()
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


@main.command()
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


@main.command()
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

    _show_scores(workflow.evaluate(dataset, models, Split(split), out))
    click.echo(f"{out}/scores.json  scores.csv  confusion.png  overview/")


@main.command()
@click.argument("image", type=EXISTING)
@models_option
@click.option("--out", type=FOLDER, default="segmentation", show_default=True)
@click.option("--case", help="Name in the outputs [that of IMAGE].")
@click.option(
    "--side", type=click.Choice([Side.LEFT.value, Side.RIGHT.value]), help="Which knee, where the file does not say."
)
@series_option
@echo_option
def segment(image: Path, models: Path, out: Path, case: str | None, **options: Any) -> None:
    """Segment one knee: labels on its own grid, volumes, a picture.

    IMAGE is a folder of DICOM, or a NIfTI, NRRD or MHA file.

    \b
    knee3d segment path/to/dicom --models models --out knee_1
    knee3d segment knee.nii.gz --models models --side L --out knee_2
    """
    from knee3d import workflow

    source = workflow.Source(image, Side(options["side"] or ""), options["series"], options["echo"])
    volumes = workflow.segment(source, models, out, case or image.resolve().name.split(".")[0])
    for name, mm3 in volumes.items():
        click.echo(f"{name:<28} {mm3:10.1f} mm3")
    click.echo(f"{out}/labels.nii.gz  volumes.csv  overview.png")


@main.command()
@click.option("--out", type=FOLDER, default="runs/demo", show_default=True)
@weights_option
@seed_option
@jobs_option
def demo(out: Path, encoder_weights: str, seed: int, jobs: int) -> None:
    """Run the whole journey on a small made-up cohort, in minutes, without data or GPU.

    \b
    knee3d demo --out runs/demo
    """
    from knee3d.demo import demo as run

    _show_scores(run(out, encoder_weights, seed, jobs))
    click.echo(f"scores    {out}/evaluation/scores.json")
    click.echo(f"pictures  {out}/evaluation/confusion.png  {out}/evaluation/overview/  {out}/segmentation/overview.png")
    click.echo(f"curves    tensorboard --logdir {out}/models")


def train_main() -> None:
    """`knee3d-train`: the train command by itself."""
    train.main(prog_name="knee3d-train")


def _show_scores(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from knee3d.report.tables import scores_table

    Console().print(scores_table(summary))
