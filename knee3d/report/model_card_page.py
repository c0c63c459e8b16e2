"""The model cards of a models folder as one page of Markdown with curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from knee3d.atomic import whole_file
from knee3d.models.fusion_file import FusionRecord
from knee3d.models.model_card import ModelCard
from knee3d.report.templates import load_template

DPI = 130
_TRAIN, _VAL, _RATE = "#8d97a6", "#e64b35", "#3c5488"


def curves_figure(history: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Loss, Dice and learning rate by epoch.

    Args:
        history: Column of metrics.csv -> value of each epoch: loss, dice, val_loss, val_dice, learning_rate.
        title: Of the figure.
        path: Where to write; the ending says the format.
    """
    epochs = np.arange(1, len(history["loss"]) + 1)
    figure = Figure(figsize=(10, 2.8), dpi=DPI, layout="constrained")
    loss, dice, rate = figure.subplots(1, 3)
    for axes, name in ((loss, "loss"), (dice, "dice")):
        axes.plot(epochs, history[name], color=_TRAIN, marker=".", label="training")
        axes.plot(epochs, history[f"val_{name}"], color=_VAL, marker=".", label="validation")
        axes.set_title(name.capitalize(), fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    dice.set_ylim(0, 1)
    best = int(np.argmax(history["val_dice"]))
    dice.annotate(f"{history['val_dice'][best]:.3f}", (epochs[best], history["val_dice"][best]), fontsize=8)
    rate.step(epochs, history["learning_rate"], where="mid", color=_RATE)
    rate.set_yscale("log")
    rate.set_title("Learning rate", fontsize=10)
    for axes in (loss, dice, rate):
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    with whole_file(path) as partial:
        figure.savefig(partial)


def render_model_cards(cards: Mapping[str, ModelCard], fusions: Sequence[FusionRecord], curves: str) -> str:
    """One page about all networks of a folder.

    Args:
        cards: Name of each plane, or other view, to its model card.
        fusions: The fusion weights of these networks.
        curves: Name of the picture of the curves in each plane's folder.

    Returns:
        Markdown. It names no patient and no case: a page is shown to people who should not know them.
    """
    return load_template(
        "modelcards.md.j2", first=next(iter(cards.values())), cards=cards, fusions=fusions, curves=curves
    )
