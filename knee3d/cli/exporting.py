"""Commands from trained networks to their cards, and to other runtimes."""

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
@click.option("--format", "name", type=click.Choice(["onnx", "openvino", "litert"]), required=True)
@click.option("--out", type=FOLDER, default="exported", show_default=True)
def export(models: Path, name: str, out: Path) -> None:
    """Write the trained planes for another runtime, and check that it says what the networks say.

    They take and give what the SavedModels do, see models/README.md. The runtimes are extras: pip install
    'knee3d[onnx]', or openvino, or litert.

    \b
    knee3d export models --format onnx --out for_dotnet
    """
    from knee3d import workflow

    failed = []
    for folder, difference in workflow.export(models, name, out):
        if isinstance(difference, Exception):
            failed.append(str(difference))
        else:
            click.echo(f"{folder}   differs from the network by {difference:.1e}")
    if failed:
        raise click.ClickException("; ".join(dict.fromkeys(failed)))
