"""Commands that fuse planes and score them: fuse, evaluate."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from knee3d.choices import FUSION_OBJECTIVES, FUSION_RULES, SPLITS
from knee3d.cli.options import (
    FOLDER,
    Command,
    fill_option,
    models_option,
    remove_option,
    seed_option,
    show,
    views_option,
)


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@models_option
@click.option(
    "--objective",
    type=click.Choice(FUSION_OBJECTIVES),
    default="foreground",
    help="What to maximise: Dice of any tissue against background, as in the paper, or the tissues' mean Dice.",
)
@click.option(
    "--rule",
    type=click.Choice(FUSION_RULES),
    default="linear",
    help="Weighted mean of probabilities, as in the paper, or of their logarithms, or votes.",
)
@click.option(
    "--weight",
    type=(str, float),
    multiple=True,
    metavar="VIEW VALUE",
    help="Of all views, adding up to 1 [fitted].",
)
@click.option("--per-tissue", is_flag=True, help="Weights for each tissue, where Dice gains.")
@click.option("--thresholds", is_flag=True, help="A threshold for each tissue, where Dice gains.")
@views_option
@seed_option
def fuse(
    dataset: Path, models: Path, weight: tuple[tuple[str, float], ...], oblique_views: int, **options: Any
) -> None:
    """Fit the weights of F = wc*C + wa*A + ws*S on the validation patients.

    A grid over all weights and a finer search around the best of it find them. The 95 % intervals are a bootstrap over
    patients. What the networks say is kept in MODELS/fusion.evidence: a killed run goes on, and another way of fusion
    needs no networks. Oblique views have weights of their own, in MODELS/fusion-oblique-6.json.

    \b
    knee3d fuse data/oai --models models
    knee3d fuse data/oai --models models --objective tissues --rule log --per-tissue --thresholds
    knee3d fuse data/oai --views oblique:6
    knee3d fuse data/oai --weight sagittal 0.5077 --weight axial 0.4012 --weight coronal 0.0911
    """
    from knee3d import api

    twice = [view for view, count in Counter(view for view, _ in weight).items() if count > 1]
    if twice:
        raise click.BadParameter(f"{', '.join(twice)} is given more than once", param_hint="--weight")
    data = api.Dataset.load(dataset)
    model = api.KneeModel(models, api.SegmentConfig(oblique_views=oblique_views))
    fusion = model.fit_fusion(data, weights=dict(weight) or None, **options)
    for view, given in fusion.weights.items():
        each = " ".join(f"{value:.4f}" for value in (given if isinstance(given, tuple) else (given,)))
        low, high = fusion.intervals.get(view, (None, None))
        interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
        click.echo(f"{view:<10} weight {each}{interval}   Dice alone {fusion.alone[view]:.4f}")
    if fusion.thresholds is not None:
        click.echo(f"thresholds {' '.join(f'{limit:.2f}' for limit in fusion.thresholds)}")
    click.echo(f"fused {fusion.objective} Dice on validation {fusion.dice:.4f}; equal weights {fusion.equal:.4f}")


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@models_option
@click.option("--split", type=click.Choice(SPLITS), default="test")
@click.option("--out", type=FOLDER, default="evaluation")
@remove_option
@fill_option
@click.option("--compare", is_flag=True, help="Score other ways of fusion too: plain mean, log pool, votes, STAPLE.")
@views_option
@click.option("--surfaces/--no-surfaces", default=True, help="Measure distances of surfaces.")
@click.option("--pictures/--no-pictures", default=True, help="Draw each case.")
def evaluate(dataset: Path, models: Path, split: str, out: Path, oblique_views: int, **options: Any) -> None:
    """Score each plane and their fusion: overlap, volume, distances of surfaces, for each tissue and all.

    Pooled over cases, and as means over cases with 95 % intervals over patients. With --remove-below or --fill-below
    the cleaned fusion is a column of its own; try them on --split val.

    \b
    knee3d evaluate data/oai --models models --split test --out results
    knee3d evaluate data/oai --split val --remove-below 50 --fill-below 5 --compare --out validation
    """
    from knee3d import api

    cleaning = {name: options.pop(name) for name in ("remove_below_mm3", "fill_below_mm3")}
    data = getattr(api.Dataset.load(dataset), split)
    model = api.KneeModel(models, api.SegmentConfig(oblique_views=oblique_views, **cleaning))
    show(*model.evaluate(data, out, **options).tables())
    click.echo(f"{out}/scores.json  scores.csv  confusion.png{'  overview/' if options['pictures'] else ''}")
