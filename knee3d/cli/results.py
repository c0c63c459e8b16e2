"""Commands from knees to numbers, and the whole journey."""

import logging
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import click

from knee3d.anatomy.orientation import Side
from knee3d.cli.frame import (
    FOLDER,
    NONE_DONE,
    VIEWS,
    Command,
    echo_option,
    fill_option,
    jobs_option,
    leave_named,
    leave_with,
    models_option,
    remove_option,
    seed_option,
    series_option,
    show_scores,
    spacing_option,
    views_option,
    weights_option,
)

if TYPE_CHECKING:
    from knee3d import workflow


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("knees", type=click.Path(path_type=Path))
@models_option
@click.option("--out", type=FOLDER, default="segmentation", show_default=True, help="Gets a folder for each knee.")
@click.option(
    "--planes", metavar="PLANE,...", help="Which planes, or volume, look at the knee [all that were trained]."
)
@views_option
@click.option("--fast", is_flag=True, help="Compute only where a quick look finds tissue; whole where that is unsure.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 if the processor has it, which is timed. float32: the same labels on every machine.",
)
@click.option("--device", metavar="cpu|gpu:N", help="What computes [the first GPU, or the processor].")
@click.option(
    "--format",
    "form",
    type=click.Choice(["nifti", "nrrd", "mha", "dicom-seg"]),
    default="nifti",
    show_default=True,
    help="Of the labels.",
)
@click.option("--save-probabilities", "probabilities", is_flag=True, help="Of each view, as float16 in HDF5.")
@click.option(
    "--keep-largest", is_flag=True, help="Of each tissue, keep the largest piece, or as many as a knee has (tibial 2)."
)
@remove_option
@fill_option
@click.option("--any-spacing", is_flag=True, help="Take knees with other voxels than the networks were trained on.")
@click.option("--case", help="Name of a single knee in the outputs [that of KNEES].")
@click.option(
    "--side", type=click.Choice([Side.LEFT.value, Side.RIGHT.value]), help="Which knee, where the file does not say."
)
@series_option
@echo_option
@spacing_option
@click.option(
    "--resume/--overwrite",
    default=True,
    help="Keep knees that are finished, or do those again that were finished before this run.  [resume]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Knees at a time: others are read and written."
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: on all machines of a Ray cluster, which share the disk.",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster, as ray start --head prints it.")
@click.option(
    "--retries", type=click.IntRange(0), default=2, show_default=True, help="For a knee whose worker is lost."
)
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines [OUT/segment.jsonl].")
def segment(knees: Path, models: Path, out: Path, **options: Any) -> None:
    """Segment knees: labels on their own grid, volumes, a picture of each.

    KNEES is a knee (a folder of DICOM, a zip of it, or a NIfTI, NRRD, MHA or HDF5 file), a folder of knees, or a table
    (knees.csv). Run it again after an interruption: finished knees are kept. Run it several times at once, in terminals
    or as a Slurm array (sbatch --array=1-20), on machines that share a disk: each knee is done once. The exit code is 0
    if all are done, 1 if some are, 2 if none is.

    \b
    knee3d segment path/to/dicom --models models
    knee3d segment knee.nii.gz --models models --side L --fast
    knee3d segment path/to/knees --models models --out labels --precision float32
    knee3d segment knees.csv --models models --format dicom-seg --dry-run
    knee3d segment knees.csv --models models --launcher ray --address auto
    """
    from knee3d import workflow
    from knee3d.dataset.source import Choice

    if options["quiet"]:
        logging.getLogger("knee3d").setLevel(logging.ERROR)
    choice = Choice(options["series"], options["echo"], options["spacing_mm"])
    entries = workflow.knees_at(knees, options["case"], Side(options["side"] or ""), choice)
    cleaning = workflow.Cleaning(options["remove_below"], options["fill_below"], options["keep_largest"])
    method = workflow.Method(options["fast"], cleaning, options["any_spacing"])
    planes = _planes(options["planes"])
    kept = {name: options[name] for name in ("precision", "device", "form", "probabilities")}
    wish = workflow.Wish(models, planes, method, **kept, oblique=options["oblique"])
    if options["dry_run"]:
        planned = workflow.plan(entries, wish, out, overwrite=not options["resume"])
        for entry, words, _ in planned:
            click.echo(f"{entry.case:<24} {entry.source.side or '?'}  {words}  {entry.source.path}")
        if not all(entry.source.side for entry, *_ in planned):
            click.echo("?: the side is read from the image when it is segmented, where that knows it")
        well = sum(well for *_, well in planned)
        leave_with(len(planned) - well, well)
        return
    told = {name: options[name] for name in ("launcher", "address", "retries", "jobs", "log")}
    where = workflow.Where(**told, overwrite=not options["resume"])
    _tell(workflow.segment(entries, wish, out, where), out, options["quiet"])


def _planes(text: str | None) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    if not text:
        return ()
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    if not set(names) <= set(VIEWS):
        raise click.BadParameter(f"{text!r} are no planes with commas between them; there are {', '.join(VIEWS)}")
    return names


def _tell(outcomes: "list[workflow.Outcome]", out: Path, quiet: bool) -> None:
    """Say what happened, and leave with the exit code for it."""
    failures = [one.case for one in outcomes if one.status == "failed"]
    if not quiet:
        if len(outcomes) == 1 and not failures:
            for tissue, mm3 in outcomes[0].record["volumes_mm3"].items():
                click.echo(f"{tissue:<28} {mm3:10.1f} mm3")
        flagged = sum(bool(one.record.get("flags")) for one in outcomes)
        kept = sum(one.status == "kept" for one in outcomes)
        done = len(outcomes) - kept - len(failures)
        click.echo(f"{done} done, {kept} kept, {len(failures)} failed, {flagged} flagged: {out}")
    leave_named(failures, len(outcomes) - len(failures))


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

    scores, loss = run(out, encoder_weights, seed, jobs)
    show_scores(scores)
    click.echo(f"scores    {out}/evaluation/scores.json")
    click.echo(f"pictures  {out}/evaluation/confusion.png  {out}/evaluation/overview/")
    click.echo(f"curves    {_beside_us('tensorboard')} --logdir {out}/models")
    click.echo(f"repeated  {out}/reproducibility/reproducibility.csv  bland-altman.pdf")
    click.echo(f"change    {out}/change/compare.csv")
    click.echo(f"          {loss}")
    click.echo(f"reports   {out}/segmentation/index.html")


def _beside_us(program: str) -> str:
    """How to start a program of the environment that knee3d is in, which need not be active."""
    beside = Path(sys.argv[0]).with_name(program)
    return program if which(program) or not beside.is_file() else str(beside)
