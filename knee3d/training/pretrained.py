"""Start from a network that was trained before (`--init`): its weights and its patients."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import keras

from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import SHARED
from knee3d.models.keras_file import load_keras_file
from knee3d.models.known_patients import hash_patients
from knee3d.models.model_card import CARD, ModelCard, PretrainedRecord, keras_file_fingerprint, load_card, view_folder
from knee3d.models.starter import models_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A finished network whose weights another network starts with.

    Attributes:
        folder: The network's folder, with model.keras and card.json.
        card: The content of its card.json.
    """

    folder: Path
    card: ModelCard

    @property
    def record(self) -> PretrainedRecord:
        """The entry of this network in the model card of the new network."""
        return PretrainedRecord(self.card.plane, self.card.class_names, keras_file_fingerprint(self.folder))


def find_pretrained(folder: str | Path, view: str) -> PretrainedNetwork:
    """Find the network that the network of a view starts from.

    Args:
        folder: A models folder, in which the view's own network is taken; or the folder of one network; or "starter".
        view: The name of the view, such as "sagittal".

    Raises:
        FileNotFoundError: There is no finished network.
        ValueError: Its card cannot be read.
    """
    given = models_folder(folder)
    home = given if (given / CARD).is_file() else _home_of(given, view)
    folds = sorted(given.glob(f"fold-*-of-*/{view}/card.json"))
    if folds and not (home / CARD).is_file():
        raise FileNotFoundError(f"{given} holds the folds of a cross-validation; name one: {folds[0].parents[1]}")
    if not (home / CARD).is_file():
        raise FileNotFoundError(
            f"{given} holds no {view} network to begin with; give a models folder that has it, or the folder of one "
            "network"
        )
    return PretrainedNetwork(home, load_card(home.parent, home.name))


def _home_of(models: Path, view: str) -> Path:
    """The folder of a view's network; a network for all planes may lie in the folder of any plane alone."""
    if view == SHARED and not (models / view / CARD).is_file():
        for plane in Plane:
            if (models / plane.value / CARD).is_file() and load_card(models, plane).one_network_for_all_planes:
                return view_folder(models, plane)
    return view_folder(models, view)


def inherit_patients(card: ModelCard, pretrained: PretrainedNetwork, dataset: CaseCollection) -> ModelCard:
    """Add the patients of a pretrained network to a model card, as hashes, so that later checks know them.

    Args:
        card: The model card of the training that is about to start.
        pretrained: The network that the training starts from.
        dataset: The dataset of the training.

    Returns:
        The card with the pretrained network and the hashes of its patients, and of those that it has inherited.

    Raises:
        ValueError: Validation patients were trained on before, so that validation would flatter.
    """
    first, record = pretrained.card, pretrained.record
    seen = first.known_patients(Split.TRAIN)
    if not len(seen | first.known_patients(Split.VAL)):
        log.warning("%s does not say whom it was trained on: nobody can tell whether tests are fair", pretrained.folder)
    for split in (Split.VAL, Split.TEST):
        leaks = sorted({case.patient for case in dataset.cases if case.split is split and case.patient in seen})
        told = f"patients {', '.join(leaks[:5])} of the {split} split were trained on by the network in "
        told += f"{pretrained.folder}: their scores would flatter"
        if leaks and split is Split.VAL:
            raise ValueError(f"{told}; move them to the train split, or rename them if they are other people")
        if leaks:
            log.warning("%s, and evaluate will refuse them", told)
    hashes = hash_patients(record.fingerprint, first.patients.train, first.patients.val)
    return replace(card, inherited=(*first.inherited, hashes), pretrained=record)


def load_matching_layers(model: keras.Model, pretrained: PretrainedNetwork, classes: Sequence[str]) -> None:
    """Copy the weights of every layer whose weights have the same shapes; other layers keep their own.

    If the two networks have other class names, layers with one output channel for each class keep their own, too.
    Layers are paired in their order if both networks have the same types of layers, and otherwise by name. Names that
    Keras makes from numbers (conv2d_3) are not used: they depend on which layers a process has made before.

    Args:
        model: The network; its weights change.
        pretrained: The network that is copied from.
        classes: Names of the classes of `model`, background included.

    Raises:
        ValueError: The first network cannot be read, or no layer fits.
    """
    first = load_keras_file(pretrained.folder / "model.keras")
    mine, theirs = (_weighted(one) for one in (model, first))
    alike = [type(layer) for layer in mine] == [type(layer) for layer in theirs]
    by_name = {layer.name: layer for layer in theirs if not _is_numbered(layer)}
    partners = theirs if alike else [by_name.get(layer.name) for layer in mine]
    told = len(pretrained.card.class_names) if pretrained.card.class_names != tuple(classes) else 0
    anew = []
    for layer, partner in zip(mine, partners, strict=True):
        shapes = _shapes(layer)
        if partner is None or _shapes(partner) != shapes or any(shape[-1:] == (told,) for shape in shapes):
            anew.append(layer.name)
        else:
            layer.set_weights(partner.get_weights())
    if len(anew) == len(mine):
        raise ValueError(f"no layer of the network in {pretrained.folder} fits this one; is it of another --network?")
    log.info(
        "%d of %d layers begin as those of %s%s",
        len(mine) - len(anew), len(mine), pretrained.folder, f"; anew: {', '.join(anew[:5])}" if anew else "",
    )  # fmt: skip


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers that hold weights themselves, in the order of the model."""
    inner = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    return [layer for layer in inner if layer.weights]


def _is_numbered(layer: keras.layers.Layer) -> bool:
    """Whether Keras made the name: conv2d, conv2d_1, ..., in the order in which a process makes layers."""
    return re.sub(r"_\d+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weights.shape) for weights in layer.get_weights()]
