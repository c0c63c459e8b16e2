"""Read model cards: where a network comes from, how it was trained, and how well it does."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import is_rotation
from knee3d.geometry.view_names import COARSEST_MM, FINEST_MM
from knee3d.labels.scheme_files import scheme_from_json
from knee3d.records import check_version

FORM = 1
"""Version of the form of card.json."""
ALL_PLANES = "one_network_for_all_planes"
"""Key of the card of a plane whose network was trained on the slices of all planes."""
SHARED_NETWORK = "shared_network"
"""Key of such a card for the fingerprint of that network."""
NEEDED = ("knee3d", "plane", "scheme", "classes", "settings", "spacing_mm", "window_rule", "input", "output")
"""What a network cannot be used without."""


def view_folder(models: Path, view: Plane | str) -> Path:
    """Where the model, the card and the logs of a plane lie, or those of another view."""
    return models / (view if isinstance(view, str) else view.value)


def training_folder_of(models: Path, view: Plane | str) -> Path:
    """Where a view is trained; it is renamed to `view_folder` when that is done."""
    return models / f"{view_folder(models, view).name}.training"


def keras_file_fingerprint(folder: Path) -> str:
    """Of the network that lies in a folder, for Keras."""
    with (folder / "model.keras").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def saved_model_description(card: Mapping[str, Any]) -> dict[str, Any]:
    """What travels inside a SavedModel and an ONNX file: how to make slices and read the answer; no case, no patient.

    Args:
        card: A model card; of one whose training has not ended, what is not known yet is left out.

    Returns:
        Ready for JSON; the keys are explained in `docs/reference/saved_model.md`.
    """
    plane, context = card["plane"], card["settings"]["context"]
    colours = {one.name: "#{:02x}{:02x}{:02x}".format(*one.colour) for one in scheme_from_json(card["scheme"]).tissues}
    trained_on = {name: {split: len(one) for split, one in card[name].items()} for name in ("cases", "patients")
                  if name in card}  # fmt: skip
    return {
        "knee3d": card["knee3d"],
        "plane": plane,
        "scheme": card["scheme"],
        "classes": card["classes"],
        "colours": [colours.get(name, "#000000") for name in card["classes"]],
        "context": context,
        "channels": [] if card.get("patch") else list(range(-context, context + 1)),
        "slice_axes": _slice_axes(plane),
        "axes": "the knee's voxels run Inferior, Posterior, Left; a left knee is mirrored to a right one first",
        "window": f"8 bit, one window for the whole volume: {card['window_rule']}",
        "window_rule": card["window_rule"],
        "spacing_mm": card["spacing_mm"],
        "patch": card.get("patch"),
        "turns": card.get("turns", []),
        "input": card["input"],
        "output": card["output"],
        "trained_on": trained_on,
        "scores": card.get("scores", {}),
        "licence": card.get("licence", ""),
    }


def _slice_axes(plane: str) -> dict[str, str]:
    """Where in the body the index of slices, and the rows and columns of a slice, increase to."""
    directions = ["inferior", "posterior", "left"]
    if plane not in [one.value for one in Plane]:
        return {}
    first = directions.pop(Plane(plane).axis)
    return {"slices": first, "height": directions[0], "width": directions[1]}


def load_card(models: Path, view: Plane | str) -> dict[str, Any]:
    """The model card of a plane, or of another view, see `view_folder`.

    Raises:
        FileNotFoundError: There is none: the plane was not trained to the end.
        ValueError: It cannot be read.
    """
    path = view_folder(models, view) / "card.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; train this plane first: knee3d-train DATASET --models {models}")
    try:
        card = json.loads(path.read_text())
        missing = [key for key in NEEDED if key not in card]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        _check(card)
        return card
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable model card ({error}); train this plane again") from error


def _check(card: Mapping[str, Any]) -> None:
    """Look at what is used of a card.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError: It is of another kind than it should be.
    """
    check_version(card, FORM)
    scheme_from_json(card["scheme"])
    if not all(isinstance(name, str) for name in card["classes"]):
        raise ValueError("classes without names")
    if int(card["settings"]["context"]) < 0:
        raise ValueError("a context below 0")
    for split in ("train", "val") if "patients" in card else ():
        patients = card["patients"][split]
        if not isinstance(patients, list) or not all(isinstance(patient, str) for patient in patients):
            raise ValueError("patients are no lists of names")
    spacing = np.asarray(card["spacing_mm"], dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm is no three distances above 0: {card['spacing_mm']}")
    if card.get("patch") is not None and not (len(card["patch"]) == 3 and min(map(int, card["patch"])) > 0):
        raise ValueError(f"patch is no three sides above 0: {card['patch']}")
    if card.get("turns"):
        _check_oblique(card, spacing)


def _check_oblique(card: Mapping[str, Any], spacing: np.ndarray) -> None:
    turns = np.asarray(card["turns"], dtype=np.float64)
    if turns.shape[1:] != (3, 3) or not all(is_rotation(turn) for turn in turns):
        raise ValueError("turns are no rotations")
    if not FINEST_MM <= spacing.min() <= spacing.max() <= COARSEST_MM:
        raise ValueError(f"oblique slices have spacings of {FINEST_MM} to {COARSEST_MM} mm, not {spacing.tolist()}")
    if not isinstance(card["settings"].get("spread", ""), str):
        raise ValueError("its spread has no name")
