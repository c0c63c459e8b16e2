"""One network for the slices of all planes (`--plane shared`): it is exported to the folder of each plane."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knee3d.anatomy.plane import Plane
from knee3d.atomic import whole_folder
from knee3d.learn.building import bare
from knee3d.learn.card import (
    ALL_PLANES,
    SHARED_NETWORK,
    differences,
    fingerprint_of,
    for_saved_model,
    load_card,
    model_folder,
    run_folder,
)
from knee3d.learn.config import Going, TrainConfig
from knee3d.learn.run import Run
from knee3d.learn.savedmodel import export
from knee3d.learn.views import SHARED


def of_plane(card: Mapping[str, Any], plane: Plane, network: str = "") -> dict[str, Any]:
    """Make the model card of a plane from the card and the fingerprint of the network that all planes share."""
    return {**card, "plane": plane.value, ALL_PLANES: True, SHARED_NETWORK: network}


def check_planes(models: Path, card: Mapping[str, Any], config: TrainConfig, going: Going) -> None:
    """Refuse to train for all planes where a plane has a network of its own.

    Raises:
        ValueError: Names the folder.
    """
    for plane in Plane:
        folder = model_folder(models, plane)
        Run(folder).check_ours()
        there = Run(folder).card
        if going.overwrite:
            continue
        if Run(run_folder(models, plane)).checkpoints:
            raise ValueError(
                f"{run_folder(models, plane)} holds an interrupted training of a network of its own; finish it with "
                "--resume, move it away, or choose another --models"
            )
        if there is None or there.get(ALL_PLANES):
            continue
        differ = differences(there, of_plane(card, plane), type(config)())
        raise ValueError(f"{folder} holds a model with other {differ}; choose another --models or give --overwrite")


def export_planes(models: Path, config: TrainConfig) -> None:
    """Write the SavedModel and the card of each plane from the finished network; what is there already is kept."""
    card = load_card(models, SHARED)
    source = model_folder(models, SHARED)
    network, fingerprint = None, fingerprint_of(source)
    for plane in Plane:
        mine, folder = of_plane(card, plane, fingerprint), model_folder(models, plane)
        there = Run(folder).card or {}
        whole = all((folder / name).is_file() for name in ("saved_model/saved_model.pb", "model.keras"))
        if whole and {**there, "saved_model_differs_by": None} == {**mine, "saved_model_differs_by": None}:
            continue
        if network is None:
            network = bare(len(card["classes"]), config)
            network.load_weights(source / "model.keras")
        with whole_folder(folder) as partial:
            differs = export(network, partial / "saved_model", for_saved_model(mine))
            for name in ("model.keras", "metrics.csv"):
                shutil.copyfile(source / name, partial / name)
            Run(partial).write_json("card.json", mine | {"saved_model_differs_by": differs})
