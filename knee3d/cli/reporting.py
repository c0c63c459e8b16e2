"""The command from finished knees to measures, meshes and pages."""

from pathlib import Path
from typing import Any

import click

from knee3d.cli.frame import FOLDER, NONE_DONE, Command, count, leave_named


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("results", type=FOLDER)
@click.argument("knees", type=click.Path(path_type=Path), required=False)
@click.option(
    "--meshes",
    type=click.Choice(["ply", "stl", "vtp"]),
    default="ply",
    show_default=True,
    help="Format of the surfaces, in RAS mm; a scene of all of them is written as PLY as well.",
)
@click.option(
    "--keep",
    type=click.FloatRange(0.01, 1),
    default=1.0,
    show_default=True,
    help="Share of the surfaces' triangles to keep.",
)
@click.option("--labels", "numbering", help="What values of masks mean: a name such as pymskt, or a JSON file.")
@click.option(
    "--resume/--overwrite",
    default=True,
    help="Keep reports that are finished, or make those again that were finished before this run.  [resume]",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Knees at a time.")
def report(results: Path, knees: Path | None, **options: Any) -> None:
    """Measure finished knees in mm3 and mm, and make a page of each that opens from disk.

    RESULTS is what knee3d segment filled, or the folder of one knee. KNEES is what was segmented: a knee, a folder of
    knees, or a table. Without it pages have no MR image. Masks that a table names are scored against. A finished report
    that has image or scores is kept where these are not given again. Run it several times at once, as a Slurm array
    (sbatch --array=1-20) for example, on machines that share a disk: each report is made once. The exit code is 0 if
    all are done, 1 if some are, 2 if none is.

    \b
    knee3d report segmentation path/to/dicom
    knee3d report labels knees.csv --jobs 2
    knee3d report labels/P001 --meshes stl --keep 0.2
    """
    from knee3d import workflow

    wish = workflow.ReportWish(options["meshes"], options["keep"])
    images = workflow.knees_of(knees, options["numbering"])
    outcomes = workflow.report(results, images, wish, not options["resume"], options["jobs"])
    failures = [one.case for one in outcomes if one.status == "failed"]
    done = len(outcomes) - len(failures)
    if done:
        page = results / "index.html" if (results / "index.html").is_file() else results / "report" / "report.html"
        click.echo(f"{done} of {count(len(outcomes), 'report')}; open {page}")
    leave_named(failures, done)
