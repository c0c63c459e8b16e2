"""A models folder made in a second: networks that know tissue by its brightness, exported as trained ones are."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.geometry.plane import Plane
from knee3d.labels.label_scheme import SCHEMES

if TYPE_CHECKING:
    from knee3d.models.model_card import ModelCard


def make_models(
    folder: Path,
    spacing_mm: tuple[float, float, float],
    planes: tuple[Plane, ...] = tuple(Plane),
    scheme: str = "cartilage",
    brightness: float = 170.0,
    **more: Any,
) -> Path:
    """Write a SavedModel and a card for each plane; each network differs a little from the others.

    Args:
        folder: Of the models.
        spacing_mm: Voxel size that they are said to have been trained on.
        planes: Which.
        scheme: Its tissues are all alike to them, so that the first one is found.
        brightness: Of tissue, 0 to 255: what is brighter is tissue.
        more: What else their cards say.
    """
    for number, plane in enumerate(planes):
        make_network(folder, plane.value, spacing_mm, scheme, brightness + 2 * number, **more)
    return folder


def make_network(
    folder: Path,
    name: str,
    spacing_mm: tuple[float, float, float],
    scheme: str,
    brightness: float,
    rotations: Sequence[np.ndarray] = (),
    **more: Any,
) -> None:
    """Write one network's SavedModel and card into the folder of its name; see `make_models`.

    Args:
        rotations: Of a network of oblique slices.
        more: What else its card says.
    """
    import keras

    classes = SCHEMES[scheme].classes
    slices = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1.0)(slices)
    conv = keras.layers.Conv2D(classes, 3, padding="same")
    network = keras.Model(slices, keras.layers.Softmax()(conv(pixels)))
    kernel, bias = np.zeros((3, 3, 3, classes)), np.full(classes, -50.0)
    kernel[1, 1, 1, 1], kernel[1, 1, [0, 2], 1] = 0.1, 0.01
    bias[:2] = 0, -0.12 * brightness
    conv.set_weights([kernel, bias])
    write_network(
        network,
        folder / name,
        spacing_mm,
        scheme,
        rotations=tuple(tuple(map(tuple, rotation.tolist())) for rotation in rotations),
        **more,
    )


def make_volume_network(
    folder: Path, spacing_mm: tuple[float, float, float], scheme: str, brightness: float, patch: tuple[int, int, int]
) -> None:
    """The same of a network of patches, which looks at each voxel by itself."""
    import keras

    classes = SCHEMES[scheme].classes
    patches = keras.Input((None, None, None), dtype="uint8")
    conv = keras.layers.Conv3D(classes, 1)
    network = keras.Model(patches, keras.layers.Softmax()(conv(keras.layers.Rescaling(1.0)(patches)[..., None])))
    kernel, bias = np.zeros((1, 1, 1, 1, classes)), np.full(classes, -50.0)
    kernel[..., 1], bias[:2] = 0.1, (0, -0.1 * brightness)
    conv.set_weights([kernel, bias])
    write_network(network, folder / "volume", spacing_mm, scheme, patch=patch)


def write_network(network: Any, place: Path, spacing_mm: tuple[float, float, float], scheme: str, **more: Any) -> None:
    """Write a network's SavedModel and its card, with what else the card shall say."""
    from knee3d.models.model_card import CARD, saved_model_description
    from knee3d.models.saved_model import export_saved_model

    card = made_up_card(place.name, spacing_mm, scheme, **more)
    place.mkdir(parents=True)
    export_saved_model(network, place / "saved_model", saved_model_description(card))
    card.write(place / CARD)


def made_up_card(plane: str, spacing_mm: tuple[float, float, float], scheme: str, **more: Any) -> "ModelCard":
    """The card of a network that nobody trained."""
    from knee3d.models import model_card

    nobody = model_card.NamesBySplit((), ())
    environment = model_card.SoftwareEnvironment("test", None, "", "", "", "", "", 1, ())
    card = model_card.ModelCard(
        knee3d="test",
        plane=plane,
        scheme=SCHEMES[scheme],
        class_names=("background", *SCHEMES[scheme].names),
        input="",
        output="",
        settings={"context": 1, "network": "unet", "encoder_weights": "none"},
        cases=nobody,
        patients=nobody,
        data_fingerprint="",
        window_rule=WINDOW_RULE,
        spacing_mm=spacing_mm,
        result=model_card.TrainingResult(1, {"val_dice": 0.5}, model_card.CountBySplit(0, 0), environment),
    )
    return replace(card, **more)


def change_card(path: Path, **changes: Any) -> None:
    """Change a network's card, and what its SavedModel says of itself, as if it had been trained so."""
    from knee3d.models.model_card import ModelCard, saved_model_description
    from knee3d.models.saved_model import ASSET

    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with suppress(ValueError):  # a card that cannot be read is what some tests want
        saved_model_description(ModelCard.from_json(path.read_bytes())).write(path.parent / "saved_model" / ASSET)
