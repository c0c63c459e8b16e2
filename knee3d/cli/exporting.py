"""Commands from trained networks to their cards, and to ONNX."""

from pathlib import Path

import click

from knee3d.cli.frame import FOLDER, Command


@click.command(cls=Command)
@click.argument("models", type=FOLDER, default="models")
def card(models: Path) -> None:
    """Write the model cards of MODELS as a page, CARD.md, with curves.

    \b
    knee3d card models
    """
    from knee3d import workflow

    click.echo(f"{workflow.card(models)}")


@click.command(cls=Command)
@click.argument("models", type=FOLDER, default="models")
@click.option("--out", type=FOLDER, default="exported", show_default=True)
def export(models: Path, out: Path) -> None:
    """Write the trained planes as ONNX, and check that ONNX Runtime computes what the networks compute.

    The files take and give what the SavedModels do, see models/README.md. The packages needed are an extra: pip install
    'knee3d[onnx]'.

    \b
    knee3d export models --out for_dotnet
    """
    from knee3d import workflow

    failed = []
    for folder, difference in workflow.export(models, out):
        if isinstance(difference, Exception):
            failed.append(str(difference))
        else:
            click.echo(f"{folder}   differs from the network by {difference:.1e}")
    if failed:
        raise click.ClickException("; ".join(dict.fromkeys(failed)))
