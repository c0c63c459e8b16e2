"""The model card: where a plane's network comes from, how it was trained, and how well it does."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from knee3d import __version__
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.resample import is_rotation
from knee3d.anatomy.schemes import record_of_scheme, scheme_of_record
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.learn.config import TrainConfig
from knee3d.learn.cutting import PatchCutting
from knee3d.learn.views import COARSEST_MM, FINEST_MM, LearningView
from knee3d.records import VERSION, changed, check_version, earlier

FORM = 1
"""Version of the form of card.json."""
IDENTITY = ("scheme", "data")
"""What makes two trainings the same, beside their settings and the directions of their slices."""
ALL_PLANES = "one_network_for_all_planes"
"""Key of the card of a plane whose network was trained on the slices of all planes."""
SHARED_NETWORK = "shared_network"
"""Key of such a card for the fingerprint of that network."""
NEEDED = ("knee3d", "plane", "scheme", "classes", "settings", "spacing_mm", "window_rule", "input", "output")
"""What a network cannot be used without."""


def model_folder(models: Path, view: Plane | str) -> Path:
    """Where the model, the card and the logs of a plane lie, or those of another view."""
    return models / (view if isinstance(view, str) else view.value)


def run_folder(models: Path, view: Plane | str) -> Path:
    """Where a view is trained; it is renamed to `model_folder` when that is done."""
    return models / f"{model_folder(models, view).name}.training"


def fingerprint_of(folder: Path) -> str:
    """Of the network that lies in a folder, for Keras."""
    with (folder / "model.keras").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def describe(dataset: Dataset, view: LearningView, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a training before it begins.

    Args:
        dataset: With train and val cases.
        view: How the network sees knees.
        settings: How it is trained, ready for JSON.

    Raises:
        ValueError: A split is empty.
    """
    used: dict[Split, tuple[Case, ...]] = {split: dataset.of_split(split) for split in (Split.TRAIN, Split.VAL)}
    prints = sorted((case.name, split, case.fingerprint) for split, cases in used.items() for case in cases)
    return {
        VERSION: FORM,
        "knee3d": __version__,
        "plane": view.name,
        "scheme": record_of_scheme(dataset.scheme),
        "classes": ["background", *dataset.scheme.names],
        "input": view.cutting.says,
        "output": "float32 (n, height, width, classes), softmax",
        "patch": list(view.cutting.patch) if isinstance(view.cutting, PatchCutting) else None,
        "whole_slices_only": view.whole,
        "turns": [turn.tolist() for turn in view.turns],
        "settings": dict(settings),
        "cases": {split.value: [case.name for case in cases] for split, cases in used.items()},
        "patients": {split.value: sorted({case.patient for case in cases}) for split, cases in used.items()},
        "data": hashlib.sha256(json.dumps(prints).encode()).hexdigest(),
        "window_rule": dataset.window_rule,
        "spacing_mm": view.spacing_mm.round(4).tolist(),
    }


def for_saved_model(card: Mapping[str, Any]) -> dict[str, Any]:
    """What travels inside a SavedModel and an ONNX file: how to make slices and read the answer; no case, no patient.

    Args:
        card: A model card; of one whose training has not ended, what is not known yet is left out.

    Returns:
        Ready for JSON; the keys are explained in `knee3d/README.md`, "What a SavedModel says of itself".
    """
    plane, context = card["plane"], card["settings"]["context"]
    colours = {one.name: "#{:02x}{:02x}{:02x}".format(*one.colour) for one in scheme_of_record(card["scheme"]).tissues}
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
    """The model card of a plane, or of another view, see `model_folder`.

    Raises:
        FileNotFoundError: There is none: the plane was not trained to the end.
        ValueError: It cannot be read.
    """
    path = model_folder(models, view) / "card.json"
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
    scheme_of_record(card["scheme"])
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


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any], default: TrainConfig) -> str:
    """What two cards disagree about.

    Args:
        there: The card of a training that was begun or finished, perhaps by an earlier version of knee3d.
        wanted: The card of the training that is asked for.
        default: The settings that a card may lack, see `records.earlier`.

    Returns:
        The differences in words; empty if the cards are of the same training.
    """
    found = [key for key in IDENTITY if there.get(key) != wanted[key]]
    if (there.get("turns") or []) != wanted["turns"]:
        found.append("the directions of its slices")
    if there.get(ALL_PLANES, False) != wanted.get(ALL_PLANES, False):
        found.append("planes that share a network")
    if there.get("begins_with") != wanted.get("begins_with"):
        found.append("weights to begin with (--init)")
    if there.get("structure") != wanted.get("structure"):
        found.append("layers of the network, whose function has changed")
    settings = there.get("settings")
    if not isinstance(settings, Mapping):
        return " and ".join([*found, "settings"])
    names = changed(settings, wanted["settings"], earlier(default.settings, default))
    return " and ".join([*found, *([f"settings ({', '.join(names)})"] if names else [])])
