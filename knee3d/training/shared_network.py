"""One network for the slices of all planes (`--plane shared`), exported to the folder of each plane."""

import shutil
from dataclasses import replace
from pathlib import Path

from knee3d.atomic import whole_folder
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import SHARED
from knee3d.models.model_card import (
    CARD,
    ModelCard,
    keras_file_fingerprint,
    load_card,
    saved_model_description,
    training_folder_of,
    view_folder,
)
from knee3d.models.saved_model import export_saved_model
from knee3d.training.build_network import untrained_network
from knee3d.training.config import RunOptions, TrainConfig
from knee3d.training.training_card import card_differences
from knee3d.training.training_folder import TrainingFolder


def card_of_plane(card: ModelCard, plane: Plane, network: str = "") -> ModelCard:
    """Make the model card of a plane from the card and the fingerprint of the network that all planes share."""
    return replace(card, plane=plane.value, one_network_for_all_planes=True, shared_network=network)


def check_plane_folders(models: Path, card: ModelCard, config: TrainConfig, options: RunOptions) -> None:
    """Refuse to train for all planes where a plane has a network of its own.

    Raises:
        ValueError: Names the folder.
    """
    for plane in Plane:
        folder = view_folder(models, plane)
        TrainingFolder(folder).check_only_training_files()
        there = TrainingFolder(folder).load_card()
        if options.overwrite:
            continue
        if TrainingFolder(training_folder_of(models, plane)).checkpoints:
            raise ValueError(
                f"{training_folder_of(models, plane)} holds an interrupted training of a network of its own; finish it "
                "with --resume, move it away, or choose another --models"
            )
        if there is None or there.one_network_for_all_planes:
            continue
        differ = card_differences(there, card_of_plane(card, plane), type(config)())
        raise ValueError(f"{folder} holds a model with other {differ}; choose another --models or give --overwrite")


def export_planes(models: Path, config: TrainConfig) -> None:
    """Write the SavedModel and the card of each plane from the finished network; what is there already is kept."""
    card = load_card(models, SHARED)
    source = view_folder(models, SHARED)
    network, fingerprint = None, keras_file_fingerprint(source)
    for plane in Plane:
        mine, folder = card_of_plane(card, plane, fingerprint), view_folder(models, plane)
        there = TrainingFolder(folder).load_card()
        whole = all((folder / name).is_file() for name in ("saved_model/saved_model.pb", "model.keras"))
        if whole and there is not None and _without_difference(there) == _without_difference(mine):
            continue
        if network is None:
            network = untrained_network(len(card.class_names), config)
            network.load_weights(source / "model.keras")
        with whole_folder(folder) as partial:
            differs = export_saved_model(network, partial / "saved_model", saved_model_description(mine))
            for name in ("model.keras", "metrics.csv"):
                shutil.copyfile(source / name, partial / name)
            replace(mine, result=replace(mine.training_result, saved_model_differs_by=differs)).write(partial / CARD)


def _without_difference(card: ModelCard) -> str:
    """A card but for how far its SavedModel is from the network."""
    result = card.result and replace(card.result, saved_model_differs_by=None)
    return replace(card, result=result).to_json()
