"""Load the networks of a models folder with their fusion weights. Check that scores would be fair."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knee3d.dataset.case_collection import Case, CaseCollection, Split
from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.geometry.directions import oblique_view_rotations
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import OBLIQUE, SOLID
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.oblique_view import ObliqueView
from knee3d.inference.patch_view import PatchView
from knee3d.inference.prediction import PlaneView, View
from knee3d.inference.resampled_view import ResampledView, SurveyedView, is_of_plane
from knee3d.labels.label_scheme import LabelScheme
from knee3d.models.fusion_file import FusionRecord, fusion_path, load_fusion
from knee3d.models.known_patients import KnownPatients
from knee3d.models.model_card import CARD, ModelCard, Spacing, load_card
from knee3d.models.model_folder import (
    is_trained,
    missing_folds,
    network_fingerprint,
    network_folders,
    trained_networks,
    trained_views,
)
from knee3d.postprocess.blend import Weights, select_weights
from knee3d.postprocess.quality import QualityReference

if TYPE_CHECKING:
    from knee3d.models.backend import Backend, LoadedModel

log = logging.getLogger(__name__)

SPACING_FACTOR = 1.25
COARSE_FACTOR = 2.0
ISOTROPIC_MM = 1e-3
"""Cards round voxel sizes to less than this."""


@dataclass(frozen=True)
class TrainedModels:
    """What a models folder holds.

    Attributes:
        ensemble: The networks and their fusion weights: equal ones until `fuse` has fitted some.
        scheme: The classes they tell apart.
        patients: The patients whom they, and the networks that they started from, were trained and validated on.
        spacing_mm: (planes, 3) voxel sizes along Inferior, Posterior, Left that each was trained on, the median.
            Networks with voxels of their own are not among them, nor oblique views.
        model_spacing_mm: Name of each view with voxels of its own to their size along Inferior, Posterior, Left.
        fingerprints: Name of each network's folder to a fingerprint of its weights.
        reference: What `fuse` saw, for flags of quality; None before.
        window_rule: The name of the way in which the windows of their training images were found.
        whole_only: Folders of networks that must see whole slices, see `networks.Architecture`.
        computed_by: What computes the networks, in words, such as "tensorflow, float32".
    """

    ensemble: Ensemble
    scheme: LabelScheme
    patients: Mapping[Split, KnownPatients]
    spacing_mm: np.ndarray
    fingerprints: Mapping[str, str]
    reference: QualityReference | None
    window_rule: str = WINDOW_RULE
    whole_only: tuple[str, ...] = ()
    computed_by: str = ""
    model_spacing_mm: Mapping[str, Spacing] = field(default_factory=dict)

    @property
    def planes(self) -> dict[str, SurveyedView]:
        """Those of the views that are planes."""
        return {name: view for name, view in self.ensemble.views.items() if is_of_plane(view)}

    def fingerprint_with(self, text: str) -> str:
        """A fingerprint of all networks and the text."""
        return hashlib.sha256(json.dumps([sorted(self.fingerprints.items()), text]).encode()).hexdigest()[:16]

    def spacing_problem(self, spacing_mm: np.ndarray) -> str:
        """What is wrong with the voxels of an image, in words; empty if nothing is.

        Networks see pixels, not millimetres: anatomy of another size in pixels is new to them. Those that see images as
        they were scanned take voxels that differ from those of training by `SPACING_FACTOR` at most. For those with
        voxels of their own, an image is resampled; it must not be coarser than `COARSE_FACTOR` times these in two
        directions, as nothing brings back what a scan does not show.

        Args:
            spacing_mm: (3,) voxel size along Inferior, Posterior, Left.
        """
        for name, own in self.model_spacing_mm.items():
            if np.count_nonzero(spacing_mm > COARSE_FACTOR * np.array(own)) >= 2:
                mine, theirs = (" x ".join(f"{mm:.2f}" for mm in size) for size in (spacing_mm, own))
                return (
                    f"voxels of {mine} mm are more than {COARSE_FACTOR:g} times as long, in two directions, as "
                    f"those of the {name} network, {theirs} mm: it would see tissue more blurred than it knows"
                )
        if not len(self.spacing_mm):
            return ""
        factors = spacing_mm / self.spacing_mm
        worst = np.maximum(factors, 1 / factors).max(axis=1)
        if worst.max() <= SPACING_FACTOR:
            return ""
        sizes = (spacing_mm, self.spacing_mm[worst.argmax()])
        mine, theirs = (" x ".join(f"{mm:.2f}" for mm in size) for size in sizes)
        return f"voxels of {mine} mm, while the networks know {theirs} mm: they would see anatomy of another size"


def load_models(
    models: Path,
    fused: bool = True,
    planes: Sequence[str] = (),
    engine: "Backend | None" = None,
    oblique: int = 0,
) -> TrainedModels:
    """The networks of planes that were trained to the end, and perhaps the one for oblique slices.

    The networks of folds are averaged, see `network_folders`.

    Args:
        models: Their folder.
        fused: Whether to take the weights of their `fusion_path`; otherwise views count equally, as before any fit.
        planes: Which of `trained_views`; none is every one. What the others weigh is shared out among them.
        engine: What computes them; TensorFlow in float32 by default.
        oblique: How many oblique views to add: oblique-1, oblique-2, ...

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
        ValueError: They were trained on different schemes, fusion.json is for other views, or the network for oblique
            slices was trained on more than one spacing.
    """
    names = trained_networks(models, planes, oblique)
    cards = _cards(models, names)
    every = [card for ones in cards.values() for card in ones.values()]
    schemes = {card.scheme for card in every}
    if len(schemes) > 1:
        told = ", ".join(sorted(scheme.name for scheme in schemes))
        raise ValueError(f"the planes in {models} were trained on different schemes: {told}")
    rules = {card.window_rule for card in every}
    if len(rules) > 1:
        told = ", ".join(map(repr, sorted(rules)))
        raise ValueError(f"the planes in {models} were trained on images windowed by different rules: {told}")
    _check_shared(models, cards)
    patients = {
        split: reduce(or_, (card.known_patients(split) for card in every)) for split in (Split.TRAIN, Split.VAL)
    }
    views = _views(cards, engine, oblique)
    ensemble = Ensemble(views, dict.fromkeys(views, 1 / len(views)))
    fingerprints = {name: network_fingerprint(models, name) for name in names}
    fitted = fusion_path(models, oblique)
    fusion = load_fusion(fitted) if fused else None
    if fusion is not None:
        partly = len([name for name in names if name != OBLIQUE]) < len(trained_views(models))
        ensemble = apply_fusion(ensemble, fusion, fitted.name, fingerprints, partly)
    elif fused:
        log.warning(
            "%s is missing: all views count equally, and flags know no usual volumes; fit weights with "
            "knee3d fuse DATASET --models %s%s",
            fitted, models, f" --views {OBLIQUE}:{oblique}" if oblique else "",
        )  # fmt: skip
    every_card = [(name, card) for name, ones in cards.items() if name != OBLIQUE for card in ones.values()]
    spacing = np.array([card.spacing_mm for _, card in every_card if card.resampled_to is None])
    own = {name: card.resampled_to for name, card in every_card if card.resampled_to is not None}
    reference = fusion.quality_reference if fusion else None
    whole_only = tuple(name for name, ones in cards.items() if any(card.whole_slices_only for card in ones.values()))
    return TrainedModels(
        ensemble, schemes.pop(), patients, spacing, fingerprints, reference, rules.pop(), whole_only, str(engine or ""),
        own,
    )  # fmt: skip


def _check_shared(models: Path, cards: "Mapping[str, Cards]") -> None:
    """Refuse planes of two trainings of one network for all planes, as a kill leaves them.

    Raises:
        ValueError: There are such.
    """
    of_homes: dict[Path, set[str]] = {}
    for home, card in (pair for ones in cards.values() for pair in ones.items()):
        if card.shared_network:
            of_homes.setdefault(home, set()).add(card.shared_network)
    for home, networks in of_homes.items():
        if len(networks) > 1:
            raise ValueError(
                f"the planes in {home} are of two trainings of one network for all planes, as one was interrupted; run "
                "knee3d-train --plane shared again with --resume"
            )


Cards = Mapping[Path, ModelCard]
"""The cards of one network, or of that of each fold, by the folder that has the network's folder."""
ALIKE = ("class_names", "patch", "rotations", "context", "resampled_to")
"""What the networks of folds must have in common to be averaged, beside the spacing of oblique slices."""


def _cards(models: Path, names: Sequence[str]) -> dict[str, Cards]:
    """The cards of some networks.

    Raises:
        ValueError: One cannot be read, or folds do not go together.
    """
    cards: dict[str, Cards] = {}
    for name in names:
        cards[name] = {home: load_card(home, name) for home in network_folders(models) if is_trained(home, name)}
        first, *others = cards[name].values()
        for card in others:
            differ = [key for key in ALIKE if getattr(card, key) != getattr(first, key)]
            apart = np.abs(np.subtract(card.spacing_mm, first.spacing_mm)).max()
            differ += ["spacing_mm"] if name == OBLIQUE and apart > ISOTROPIC_MM else []
            if differ:
                raise ValueError(f"the folds of {models / name} differ in {', '.join(differ)} and cannot be averaged")
        missing = missing_folds(models, name)
        if missing:
            log.warning("%s: %s is not trained in folds %s; the others are averaged", models, name, missing)
    return cards


def _views(cards: Mapping[str, Cards], engine: "Backend | None", oblique: int) -> dict[str, View]:
    """The views of some networks, those of planes first."""
    from knee3d.models.backend import load_model

    views: dict[str, View] = {}
    predictors = {
        name: average_models([load_model(home, name, engine) for home in ones]) for name, ones in cards.items()
    }
    for name, ones in cards.items():
        if name == OBLIQUE:
            continue
        own = next(iter(ones.values())).resampled_to
        if name == SOLID:
            patches = PatchView(predictors[name])
            views[name] = patches if own is None else ResampledView(patches, own)
        else:
            slices = PlaneView(Plane(name), predictors[name])
            views[name] = slices if own is None else ResampledView(slices, own)
    if oblique:
        home, card = next(iter(cards[OBLIQUE].items()))
        path, spacing = home / OBLIQUE / CARD, np.array(card.spacing_mm)
        if np.ptp(spacing) > ISOTROPIC_MM:
            raise ValueError(
                f"{path} says voxels of {spacing.tolist()} mm; oblique slices need a network "
                "that was trained on voxels of one length, three times the same"
            )
        for number, rotation in enumerate(_view_rotations(path, card, oblique), start=1):
            views[f"{OBLIQUE}-{number}"] = ObliqueView(
                rotation, float(spacing.mean()), predictors[OBLIQUE], card.whole_slices_only
            )
    return views


def average_models(networks: "Sequence[LoadedModel]") -> "LoadedModel":
    """One network whose probabilities are the mean of those of some, which look at slices in the same way."""
    first, *others = networks

    def run(slices: np.ndarray) -> np.ndarray:
        total = first.run(slices).copy()
        for network in others:
            total += network.run(slices)
        return total / np.float32(len(networks))

    return replace(first, run=run) if others else first


def _view_rotations(path: Path, card: ModelCard, count: int) -> np.ndarray:
    """(count, 3, 3) rotations of so many oblique views: those of the network's training, as its card has them.

    The network can be asked for another number of directions, as in MultiPlanarUNet; a warning says so.
    """
    known = np.array(card.rotations)
    if not len(known):
        raise ValueError(f"{path} lacks rotations; train this network again")
    if len(known) == count:
        return known
    log.warning(
        "%s was trained on %d directions, which are others than the %d of --views %s:%d; say %s:%d for its own",
        path.parent, len(known), count, OBLIQUE, count, OBLIQUE, len(known),
    )  # fmt: skip
    try:
        return np.array(oblique_view_rotations(card.directions_spread, count))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def models_fingerprint(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> str:
    """A fingerprint of the networks of `trained_networks` and of what fuses them.

    Raises:
        FileNotFoundError: There is no trained plane, or a network that is asked for is not there.
        ValueError: Weights cannot be read.
    """
    names = trained_networks(models, planes, oblique)
    fusion = load_fusion(fusion_path(models, oblique))
    rule = fusion and fusion.what_labels_depend_on
    content = [[name, network_fingerprint(models, name)] for name in names]
    return hashlib.sha256(json.dumps([content, rule]).encode()).hexdigest()[:16]


def check_dataset_matches(
    dataset: CaseCollection, trained: TrainedModels, cases: Sequence[Case], unseen: Sequence[Split]
) -> None:
    """Refuse a dataset of another scheme or window, and patients that the networks have seen.

    Raises:
        ValueError: Names them.
    """
    if dataset.scheme != trained.scheme:
        raise ValueError(
            f"{dataset.folder} has scheme {dataset.scheme.name}, the models {trained.scheme.name}; prepare it again"
        )
    if dataset.window_rule != trained.window_rule:
        raise ValueError(
            f"images in {dataset.folder} are windowed by the rule {dataset.window_rule!r}, those that the models were "
            f"trained on by {trained.window_rule!r}; prepare it again, or train again"
        )
    for split in unseen:
        leaks = sorted({case.patient for case in cases if case.patient in trained.patients[split]})
        if leaks:
            raise ValueError(
                f"patients {', '.join(leaks[:5])} of the {cases[0].split} split were in the {split} split when the "
                "models, or those that they began with, were trained: the scores would flatter; keep the split, or "
                "train again"
            )


def check_not_former_test_patients(dataset: CaseCollection, trained: TrainedModels, cases: Sequence[Case]) -> None:
    """Refuse to fit on patients who were test patients when the networks were trained on this dataset.

    Raises:
        ValueError: Some of the dataset's patients were trained or validated on, and these were not.
    """
    seen = trained.patients[Split.TRAIN] | trained.patients[Split.VAL]
    new = sorted({case.patient for case in cases if case.patient not in seen})
    if new and any(case.patient in seen for case in dataset.cases):
        raise ValueError(
            f"patients {', '.join(new[:5])} of the {cases[0].split} split were not when the networks were trained on "
            "this dataset, so they may have been tested on; keep the split, or train again"
        )


def apply_fusion(
    equal: Ensemble, fusion: FusionRecord, name: str, fingerprints: Mapping[str, str], partly: bool
) -> Ensemble:
    """The same views, weighted as their `fusion_path` says.

    Args:
        equal: Views that count equally.
        fusion: From `load_fusion`,
        name: of the file of this name.
        fingerprints: Of the networks at hand; those that it was not fitted on are named in a warning.
        partly: Whether they are some of the folder's views only, which then share what the others weigh.

    Raises:
        ValueError: The weights are for other views, or for another number of classes.
    """
    views: set[str] = set(equal.views)
    weights: Weights = fusion.weights
    stale = [view for view, one in fingerprints.items() if fusion.networks.get(view) != one]
    if stale:
        log.warning("%s is older than the networks of %s: run knee3d fuse again", name, ", ".join(stale))
    if partly and views < set(weights):
        weights = select_weights(weights, equal.views)
    try:
        classes = {len(weight) for weight in weights.values() if not isinstance(weight, float | int)}
        if classes - {equal.classes}:
            raise ValueError(f"it has weights for {classes} classes, the networks {equal.classes}")
        return Ensemble(equal.views, weights, fusion.rule, fusion.thresholds)
    except ValueError as error:
        raise ValueError(f"{name} does not fit the networks: {error}") from error
