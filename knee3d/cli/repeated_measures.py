"""Commands for measures that were taken twice: repeatability, compare."""

from pathlib import Path

import click

from knee3d.cli.options import EXISTING, FILE, FOLDER, NONE_DONE, Command, count, leave, show


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("table", type=FILE)
@click.option("--out", type=FOLDER, default="repeatability")
def repeatability(table: Path, out: Path) -> None:
    """Say how well measures repeat, from the knees in TABLE that were measured twice.

    TABLE is CSV with the columns first and second, the folders of segmented knees or their measures.csv, relative to
    it, and optionally patient. A pair is the same knee, scanned twice while nothing changed. For every tissue, region
    and measure: bias and 95 % limits of agreement, RMS-CV, smallest detectable change (SDC) and ICC(2,1), with plots as
    PDF. knee3d compare takes repeatability.json. The exit code is 0 if all pairs can be used, 1 if some can, 2 if
    none can.

    \b
    knee3d repeatability retests.csv --out repeatability
    """
    from knee3d import api

    found = api.repeatability(table, out)
    pairs = len(found.pairs)
    if pairs:
        show(found.table())
        click.echo(f"{count(pairs, 'pair')} of {count(found.patients, 'patient')}: {out}")
    leave(found.failures, pairs)


@click.command(cls=Command, failure=NONE_DONE)
@click.argument("baseline", type=EXISTING)
@click.argument("followup", type=EXISTING)
@click.option("--error", type=FILE, help="repeatability.json, which tells change from error.")
@click.option("--out", type=FOLDER, help="Gets compare.csv and compare.json [write nothing].")
def compare(baseline: Path, followup: Path, error: Path | None, out: Path | None) -> None:
    """Say what has changed from BASELINE to FOLLOWUP.

    Each is the folder of a segmented knee, a measures.csv, or a folder of such folders; knees of several are matched by
    name. With --error, a change is held against the smallest detectable change (SDC): beyond error is larger than it,
    and narrowly means within its 95 % interval. Of some 90 measures a few are beyond error by chance: 1 in 20 where
    nothing has changed, more if the SDC is from few pairs. Name the ones that count before you look. Knees of different
    sides or schemes are refused. The exit code is 0 if all knees can be compared, 1 if some can, 2 if none can.

    \b
    knee3d compare labels/9001-00 labels/9001-12 --error repeatability/repeatability.json
    knee3d compare baseline month12 --error repeatability.json --out change
    """
    from knee3d import api

    found = api.compare(baseline, followup, error=error, out=out)
    knees = len(found.knees)
    if knees:
        show(found.table())
        if error is None:
            click.echo("change cannot be told from error: give --error, which knee3d repeatability makes of retests")
        if out is not None:
            click.echo(f"{out}/compare.csv  compare.json")
    leave(found.failures, knees)
