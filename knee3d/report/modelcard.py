"""The model cards of a models folder as one page of Markdown with curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from knee3d.atomic import whole_file

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
    FigureCanvasAgg(figure)
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


def model_cards(cards: Mapping[str, Mapping[str, Any]], fusions: Sequence[Mapping[str, Any]], curves: str) -> str:
    """One page about all networks of a folder.

    Args:
        cards: Plane name -> what card.json holds.
        fusions: What each fusion.json holds.
        curves: Name of the picture of the curves in each plane's folder.

    Returns:
        Markdown. It names no patient and no case: a page is shown to people who should not know them.
    """
    first = next(iter(cards.values()))
    lines = [
        "# Knee cartilage networks",
        "",
        f"One {_network(first['settings'])} per plane, made with knee3d {first['knee3d']}. Not a medical device.",
        "",
        f"- Scheme `{first['scheme']}`: {', '.join(first['classes'][1:])}",
        f"- Input: {first['input']}",
        f"- Output: {first['output']}",
        f"- Voxels of the training knees (median), Inferior x Posterior x Left: "
        f"{' x '.join(f'{mm:.2f}' for mm in first['spacing_mm'])} mm",
        "",
        "| plane | best epoch | validation Dice | of foreground | training patients, cases, slices | validation |",
        "|---|---|---|---|---|---|",
    ]
    for plane, card in cards.items():
        scores, counts = (
            card["scores"],
            [
                f"{len(card['patients'][split])}, {len(card['cases'][split])}, {card['slices'][split]}"
                for split in ("train", "val")
            ],
        )
        lines.append(
            f"| {plane} | {scores['best_epoch']} of {card['settings']['epochs']} | {scores['val_dice']:.4f} "
            f"| {scores['val_foreground_dice']:.4f} | {counts[0]} | {counts[1]} |"
        )
    lines += ["", "Validation chose the epoch, so these scores flatter; `knee3d evaluate` scores patients unseen.", ""]
    for fusion in fusions:
        weights = ", ".join(f"{name} {_weight(weight)}" for name, weight in fusion["weights"].items())
        lines += [
            f"Fusion ({fusion['rule']}): {weights}; {fusion['objective']} Dice {fusion['dice']['fused']:.4f} on "
            "validation.",
            "",
        ]
    for plane, card in cards.items():
        settings = ", ".join(f"{name} {value}" for name, value in card["settings"].items() if value is not None)
        machine = card["environment"]
        commit = f", commit {machine['commit'][:12]}" if machine["commit"] else ""
        versions = ", ".join(f"{name} {machine[name]}" for name in ("tensorflow", "keras", "python"))
        lines += [
            f"## {plane}",
            "",
            f"![Loss, Dice and learning rate]({plane}/{curves})",
            "",
            f"- Settings: {settings}",
            f"- Trained on: {', '.join(machine['devices'])}; {versions}{commit}",
            f"- SavedModel differs from the network by at most {card['saved_model_differs_by']:.1e}",
            f"- Fingerprint of the training data: {card['data'][:16]}",
            "",
        ]
    return "\n".join(lines)


def _network(settings: Mapping[str, Any]) -> str:
    """Of knee3d before it had others, it was the paper's."""
    return f"{settings.get('network', 'unet')} on {settings.get('encoder', 'vgg16')}"


def _weight(weight: float | list[float]) -> str:
    """One number, or one for each class."""
    return f"{weight:.4f}" if isinstance(weight, float) else "/".join(f"{each:.4f}" for each in weight)
