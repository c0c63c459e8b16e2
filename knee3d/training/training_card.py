"""Make the model card of a training, and compare two cards."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from knee3d import __version__
from knee3d.dataset.case_collection import Case, CaseCollection, Split
from knee3d.labels.scheme_files import scheme_to_json
from knee3d.models.model_card import ALL_PLANES, FORM
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import VERSION
from knee3d.training.config import PARTS, TrainConfig
from knee3d.training.sampler import PatchSampler
from knee3d.training.view_setup import ViewSetup

IDENTITY = ("scheme", "data")
"""What makes two trainings the same, beside their settings and the directions of their slices."""


def new_model_card(dataset: CaseCollection, view: ViewSetup, settings: Mapping[str, Any]) -> dict[str, Any]:
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
        "scheme": scheme_to_json(dataset.scheme),
        "classes": ["background", *dataset.scheme.names],
        "input": view.sampler.input_description,
        "output": "float32 (n, height, width, classes), softmax",
        "patch": list(view.sampler.patch) if isinstance(view.sampler, PatchSampler) else None,
        "whole_slices_only": view.whole,
        "turns": [turn.tolist() for turn in view.turns],
        "settings": dict(settings),
        "cases": {split.value: [case.name for case in cases] for split, cases in used.items()},
        "patients": {split.value: sorted({case.patient for case in cases}) for split, cases in used.items()},
        "data": hashlib.sha256(json.dumps(prints).encode()).hexdigest(),
        "window_rule": dataset.window_rule,
        "spacing_mm": view.spacing_mm.round(4).tolist(),
    }


def card_differences(there: Mapping[str, Any], wanted: Mapping[str, Any], default: TrainConfig) -> str:
    """What two cards disagree about.

    Args:
        there: The card of a training that was begun or finished, perhaps by an earlier version of knee3d.
        wanted: The card of the training that is asked for.
        default: The settings that a card may lack, see `recorded_settings.old_defaults`.

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
    names = changed_settings(
        settings,
        wanted["settings"],
        old_defaults(default.settings, default, *(getattr(default, part) for part in PARTS)),
    )
    return " and ".join([*found, *([f"settings ({', '.join(names)})"] if names else [])])
