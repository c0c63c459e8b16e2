"""Make the model card of a training, and compare two cards."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from knee3d import __version__
from knee3d.dataset.case_collection import Case, CaseCollection, Split
from knee3d.models.model_card import ModelCard, NamesBySplit, Rotation
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import Settings
from knee3d.training.config import PARTS, TrainConfig
from knee3d.training.sampler import PatchSampler
from knee3d.training.view_setup import ViewSetup


def new_model_card(
    dataset: CaseCollection, view: ViewSetup, settings: Settings, licence: str = "", population: str = ""
) -> ModelCard:
    """The card of a training before it begins.

    Args:
        dataset: With train and val cases.
        view: How the network sees knees.
        settings: How it is trained.
        licence: What may be done with the network; empty where nobody said.
        population: Whose knees it is trained on, in words; empty where nobody said.

    Raises:
        ValueError: A split is empty.
    """
    used: dict[Split, tuple[Case, ...]] = {split: dataset.of_split(split) for split in (Split.TRAIN, Split.VAL)}
    prints = sorted((case.name, split, case.fingerprint) for split, cases in used.items() for case in cases)
    first, second, third = view.spacing_mm.round(4).tolist()
    return ModelCard(
        knee3d=__version__,
        plane=view.name,
        scheme=dataset.scheme,
        class_names=("background", *dataset.scheme.names),
        input=view.sampler.input_description,
        output="float32 (n, height, width, classes), softmax",
        settings=settings,
        cases=NamesBySplit(*(tuple(case.name for case in cases) for cases in used.values())),
        patients=NamesBySplit(*(tuple(sorted({case.patient for case in cases})) for cases in used.values())),
        data_fingerprint=hashlib.sha256(json.dumps(prints).encode()).hexdigest(),
        window_rule=dataset.window_rule,
        spacing_mm=(first, second, third),
        patch=view.sampler.patch if isinstance(view.sampler, PatchSampler) else None,
        whole_slices_only=view.whole_slices_only,
        rotations=tuple(_rows(rotation) for rotation in view.rotations),
        licence=licence,
        population=population,
    )


def _rows(rotation: np.ndarray) -> Rotation:
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    return (a, b, c), (d, e, f), (g, h, i)


def card_differences(there: ModelCard | None, wanted: ModelCard, default: TrainConfig) -> str:
    """What two cards disagree about.

    Args:
        there: The card of a training that was begun or finished, perhaps by an earlier version of knee3d; None where
            there is none that can be read.
        wanted: The card of the training that is asked for.
        default: The settings that a card may lack, see `recorded_settings.old_defaults`.

    Returns:
        The differences in words; empty if the cards are of the same training.
    """
    if there is None:
        return "settings"
    of_each = {
        "scheme": there.scheme == wanted.scheme,
        "data": there.data_fingerprint == wanted.data_fingerprint,
        "directions of its slices": there.rotations == wanted.rotations,
        "planes that share a network": there.one_network_for_all_planes == wanted.one_network_for_all_planes,
        "weights to begin with (--init)": there.pretrained == wanted.pretrained,
        "layers of the network, whose function has changed":
            there.structure_fingerprint == wanted.structure_fingerprint,
    }  # fmt: skip
    found = [words for words, same in of_each.items() if not same]
    names = changed_settings(
        there.settings,
        wanted.settings,
        old_defaults(default.settings, default, *(getattr(default, part) for part in PARTS)),
    )
    return " and ".join([*found, *([f"settings ({', '.join(names)})"] if names else [])])


def with_epochs(card: ModelCard, epochs: int) -> ModelCard:
    """The card of the same training with another number of epochs."""
    return replace(card, settings={**card.settings, "epochs": epochs})
