"""What a network begins with that was trained before: its weights, and whom it has seen."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from knee3d.dataset.cases import Dataset, Split
from knee3d.learn.card import fingerprint_of, load_card, model_folder
from knee3d.learn.kerasfile import load_network

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Beginning:
    """A finished network, from which another one goes on.

    Attributes:
        folder: Where it lies.
        card: Its model card.
    """

    folder: Path
    card: Mapping[str, Any]

    @property
    def patients(self) -> dict[str, list[str]]:
        """Whom it was trained and validated on, and those before it."""
        known = self.card.get("patients") or {}
        return {split.value: list(known.get(split.value, [])) for split in (Split.TRAIN, Split.VAL)}

    @property
    def record(self) -> dict[str, Any]:
        """What the card of the network that goes on says of it."""
        mine = fingerprint_of(self.folder)
        return {"plane": self.card["plane"], "classes": self.card["classes"], "model.keras": mine}


def beginning_of(folder: str | Path, view: str) -> Beginning:
    """The network that a view begins with.

    Args:
        folder: Of a models folder, in which the view's network is taken, or of one network, which every view takes.
        view: Which.

    Raises:
        FileNotFoundError: There is no finished network.
        ValueError: Its card cannot be read.
    """
    given = Path(folder)
    home = given if (given / "card.json").is_file() else model_folder(given, view)
    folds = sorted(given.glob(f"fold-*-of-*/{view}/card.json"))
    if folds and not (home / "card.json").is_file():
        raise FileNotFoundError(f"{given} holds the folds of a cross-validation; name one: {folds[0].parents[1]}")
    if not (home / "card.json").is_file():
        raise FileNotFoundError(
            f"{given} holds no {view} network to begin with; give a models folder that has it, or the folder of one "
            "network"
        )
    return Beginning(home, load_card(home.parent, home.name))


def inherited(card: Mapping[str, Any], beginning: Beginning, dataset: Dataset) -> dict[str, Any]:
    """A card that counts whom the first network was trained on as its own, so that leak checks stay true.

    Args:
        card: Of the training that is to begin.
        beginning: The first network.
        dataset: What is trained on.

    Raises:
        ValueError: Validation patients were trained on before, so that validation would flatter.
    """
    before = beginning.patients
    if not any(before.values()):
        log.warning("%s does not say whom it was trained on: nobody can tell whether tests are fair", beginning.folder)
    seen = set(before[Split.TRAIN.value])
    for split in (Split.VAL, Split.TEST):
        leaks = sorted({case.patient for case in dataset.of_split(split)} & seen)
        told = f"patients {', '.join(leaks[:5])} of the {split} split were trained on by the network in "
        told += f"{beginning.folder}: their scores would flatter"
        if leaks and split is Split.VAL:
            raise ValueError(f"{told}; move them to the train split, or rename them if they are other people")
        if leaks:
            log.warning("%s, and evaluate will refuse them", told)
    patients = {
        split: sorted({*card["patients"][split], *before[split]}) for split in (Split.TRAIN.value, Split.VAL.value)
    }
    return {**card, "patients": patients, "begins_with": beginning.record}


def take_weights(model: keras.Model, beginning: Beginning, classes: Sequence[str]) -> None:
    """Give a network every layer of the first one whose weights have the same shapes; others stay as they are.

    Where the classes have other names, the layers that tell them apart, of as many channels, stay as they are, too.

    Layers are paired in their order if both networks are built alike, and else by the names that their builders gave
    them; Keras' own names are numbers.

    Args:
        model: The network; its weights change.
        beginning: The first network.
        classes: Names of the network's classes, background included.

    Raises:
        ValueError: The first network cannot be read, or no layer fits.
    """
    first = load_network(beginning.folder / "model.keras")
    mine, theirs = (_weighted(one) for one in (model, first))
    alike = [type(layer) for layer in mine] == [type(layer) for layer in theirs]
    by_name = {layer.name: layer for layer in theirs if not _is_numbered(layer)}
    partners = theirs if alike else [by_name.get(layer.name) for layer in mine]
    told = len(beginning.card["classes"]) if list(beginning.card["classes"]) != list(classes) else 0
    anew = []
    for layer, partner in zip(mine, partners, strict=True):
        shapes = _shapes(layer)
        if partner is None or _shapes(partner) != shapes or any(shape[-1:] == (told,) for shape in shapes):
            anew.append(layer.name)
        else:
            layer.set_weights(partner.get_weights())
    if len(anew) == len(mine):
        raise ValueError(f"no layer of the network in {beginning.folder} fits this one; is it of another --network?")
    log.info(
        "%d of %d layers begin as those of %s%s",
        len(mine) - len(anew), len(mine), beginning.folder, f"; anew: {', '.join(anew[:5])}" if anew else "",
    )  # fmt: skip


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers that hold weights themselves, in order."""
    inner = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    return [layer for layer in inner if layer.weights]


def _is_numbered(layer: keras.layers.Layer) -> bool:
    """Whether Keras named it: conv2d, conv2d_1, ..., in the order in which a process makes layers."""
    return re.sub(r"_\d+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weights.shape) for weights in layer.get_weights()]
