"""Commands from one knee to numbers, and the whole journey."""

from pathlib import Path
from typing import Any

import click

from knee3d.anatomy.orientation import Side
from knee3d.cli.frame import (
    EXISTING,
    FOLDER,
    Command,
    echo_option,
    fill_option,
    jobs_option,
    models_option,
    remove_option,
    seed_option,
    series_option,
    show_scores,
    spacing_option,
    weights_option,
)


@click.command(cls=Command)
@click.argument("image", type=EXISTING)
@models_option
@click.option("--out", type=FOLDER, default="segmentation", show_default=True)
@click.option("--case", help="Name in the outputs [that of IMAGE].")
@click.option(
    "--side", type=click.Choice([Side.LEFT.value, Side.RIGHT.value]), help="Which knee, where the file does not say."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["nifti", "nrrd", "mha", "dicom-seg"]),
    default="nifti",
    show_default=True,
    help="Of the labels.",
)
@remove_option
@fill_option
@series_option
@echo_option
@spacing_option
def segment(image: Path, models: Path, out: Path, case: str | None, **options: Any) -> None:
    """Segment one knee: labels on its own grid, volumes, a picture.

    IMAGE is a folder of DICOM, or a NIfTI, NRRD or MHA file.

    \b
    knee3d segment path/to/dicom --models models --out knee_1
    knee3d segment knee.nii.gz --models models --side L --out knee_2
    knee3d segment path/to/dicom --models models --format dicom-seg --out knee_3
    """
    from knee3d import workflow
    from knee3d.dataset.labels import FORMS
    from knee3d.dataset.source import Choice

    choice = Choice(options["series"], options["echo"], options["spacing_mm"])
    source = workflow.Source(image, Side(options["side"] or ""), choice)
    cleaning = workflow.Cleaning(options["remove_below"], options["fill_below"])
    name = case or image.resolve().name.split(".")[0]
    volumes = workflow.segment(source, models, out, name, options["form"], cleaning)
    for tissue, mm3 in volumes.items():
        click.echo(f"{tissue:<28} {mm3:10.1f} mm3")
    click.echo(f"{out}/{FORMS[options['form']]}  volumes.csv  overview.png  quality.json")


@click.command(cls=Command)
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

    show_scores(run(out, encoder_weights, seed, jobs))
    click.echo(f"scores    {out}/evaluation/scores.json")
    click.echo(f"pictures  {out}/evaluation/confusion.png  {out}/evaluation/overview/  {out}/segmentation/overview.png")
    click.echo(f"curves    tensorboard --logdir {out}/models")
