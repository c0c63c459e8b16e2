"""Commands that segment and measure: segment, report, demo."""

import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knee3d.choices import INFERENCE_PRECISIONS, LABEL_FORMATS, MESH_FORMATS
from knee3d.cli.options import (
    FOLDER,
    NONE_DONE,
    VIEWS,
    Command,
    choice_of,
    choice_options,
    count,
    fill_option,
    jobs_option,
    leave,
    models_option,
    remove_option,
    resume_option,
    seed_option,
    show,
    views_option,
    weights_option,
)
from knee3d.geometry.orientation import Side

if TYPE_CHECKING:
    from knee3d import api


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("knees", type=click.Path(path_type=Path))
@models_option
@click.option("--out", type=FOLDER, default="segmentation", help="Gets a folder for each knee.")
@click.option(
    "--plane",
    "planes",
    type=click.Choice(VIEWS),
    multiple=True,
    help="Plane that looks at the knee (repeat for more) [all].",
)
@views_option
@click.option("--fast", is_flag=True, help="Compute only where a quick look finds tissue; whole where that is unsure.")
@click.option(
    "--precision",
    type=click.Choice(INFERENCE_PRECISIONS),
    default="auto",
    help="auto: bfloat16 if the processor has it, which is timed. float32: the same labels on every machine.",
)
@click.option("--device", metavar="cpu|gpu:N", help="What computes [the first GPU, or the processor].")
@click.option(
    "--format",
    "label_format",
    type=click.Choice(LABEL_FORMATS),
    default="nifti",
    help="Of the labels; seg-nrrd is 3D Slicer's, with names and colours.",
)
@click.option("--save-probabilities", is_flag=True, help="Of each view, as float16 in HDF5.")
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
@choice_options
@resume_option
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=2,
    help="Knees at a time: one is computed while others are read and written.",
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: on all machines of a Ray cluster, which share the disk.",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster, as ray start --head prints it.")
@click.option("--retries", type=click.IntRange(0), default=2, help="For a knee whose worker is lost.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
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
    from knee3d import api

    if options["quiet"]:
        logging.getLogger("knee3d").setLevel(logging.ERROR)
    config = api.SegmentConfig(**{field.name: options[field.name] for field in fields(api.SegmentConfig)})
    cases = api.find_cases(knees, options["case"], Side(options["side"] or ""), choice_of(options))
    if options["dry_run"]:
        _tell_plan(api.plan_cases(cases, models, out, config, overwrite=not options["resume"]))
        return
    told = {name: options[name] for name in ("launcher", "address", "retries", "jobs")}
    execution = api.ExecutionConfig(**told, overwrite=not options["resume"])
    _tell(api.segment(cases, models, out, config=config, execution=execution), out, options["quiet"])


def _tell_plan(planned: "list[tuple[api.InputCase, str, bool]]") -> None:
    """Say what would be done with each knee, and leave with the exit code for it."""
    for case, words, _ in planned:
        click.echo(f"{case.case:<24} {case.source.side or '?'}  {words}  {case.source.path}")
    if not all(case.source.side for case, *_ in planned):
        click.echo(
            "?: the side is read from the image when it is segmented, where that knows it, or found by the networks"
        )
    problems = [case.case for case, _, well in planned if not well]
    leave(problems, len(planned) - len(problems))


def _tell(outcomes: "list[api.CaseResult[api.SegmentationRecord]]", out: Path, quiet: bool) -> None:
    """Say what happened, and leave with the exit code for it."""
    failures = [one.case for one in outcomes if one.status == "failed"]
    if not quiet:
        records = [one.record for one in outcomes if one.record]
        if len(outcomes) == len(records) == 1:
            for tissue, mm3 in records[0].volumes_mm3.items():
                click.echo(f"{tissue:<28} {mm3:10.1f} mm3")
        flagged = sum(bool(record.flags) for record in records)
        kept = sum(one.status == "kept" for one in outcomes)
        done = len(outcomes) - kept - len(failures)
        click.echo(f"{done} done, {kept} kept, {len(failures)} failed, {flagged} flagged: {out}")
    leave(failures, len(outcomes) - len(failures))


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("results", type=FOLDER)
@click.argument("knees", type=click.Path(path_type=Path), required=False)
@click.option(
    "--meshes",
    type=click.Choice(MESH_FORMATS),
    default="ply",
    help="Format of the surfaces, in RAS mm; a scene of all of them is written as PLY as well.",
)
@click.option(
    "--triangle-share", type=click.FloatRange(0.01, 1), default=1.0, help="Share of the surfaces' triangles to keep."
)
@click.option("--labels", help="What values of masks mean: a name such as pymskt, or a JSON file.")
@choice_options
@resume_option
@click.option("--jobs", type=click.IntRange(1), default=1, help="Knees at a time.")
def report(results: Path, knees: Path | None, **options: Any) -> None:
    """Measure finished knees in mm3 and mm, and make a page of each that opens from disk.

    RESULTS is what knee3d segment filled, or the folder of one knee. KNEES is what was segmented: a knee, a folder of
    knees, or a table; options that said how to read it are given again. Without KNEES pages have no MR image. Masks
    that a table names are scored against. A finished report that has image or scores is kept where these are not given
    again. Run it several times at once, as a Slurm array (sbatch --array=1-20) for example, on machines that share a
    disk: each report is made once. The exit code is 0 if all are done, 1 if some are, 2 if none is.

    \b
    knee3d report segmentation path/to/dicom
    knee3d report labels knees.csv --jobs 2
    knee3d report labels/P001 --meshes stl --triangle-share 0.2
    """
    from knee3d import api

    outcomes = api.make_reports(
        results,
        knees,
        meshes=options["meshes"],
        triangle_share=options["triangle_share"],
        labels=options["labels"],
        options=choice_of(options),
        overwrite=not options["resume"],
        jobs=options["jobs"],
    )
    failures = [one.case for one in outcomes if one.status == "failed"]
    done = len(outcomes) - len(failures)
    if done:
        page = results / "index.html" if (results / "index.html").is_file() else results / "report" / "report.html"
        click.echo(f"{done} of {count(len(outcomes), 'report')}; open {page}")
    leave(failures, done)


@click.command(cls=Command)
@click.option("--out", type=FOLDER, default="runs/demo")
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
    show(*scores.tables())
    click.echo(f"scores    {out}/evaluation/scores.json")
    click.echo(f"pictures  {out}/evaluation/confusion.png  {out}/evaluation/overview/")
    # The environment that knee3d is in need not be active.
    click.echo(f"curves    {Path(sys.executable).with_name('tensorboard')} --logdir {out}/models")
    click.echo(f"repeated  {out}/repeatability/repeatability.csv  bland-altman.pdf")
    click.echo(f"change    {out}/change/compare.csv")
    click.echo(f"          {loss}")
    click.echo(f"reports   {out}/segmentation/index.html")
