"""A models folder: one network per view of a knee, and the weights of their fusion.

MODELS/<plane>/         see `learn.savedmodel`
MODELS/volume/          the same, of a network that sees patches of the volume
MODELS/oblique/         the same, of a network that was trained on oblique slices of several directions,
MODELS/oblique-2-of-6/  or of one direction of so many
MODELS/fusion.json      weights keyed by view, and what they were fitted on
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.resample import spread_turns
from knee3d.anatomy.tissue import SCHEMES, Scheme
from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.postprocess.blend import only
from knee3d.postprocess.ensemble import Ensemble
from knee3d.postprocess.oblique import OBLIQUE, ObliqueView, is_oblique, one_direction
from knee3d.postprocess.patches import SOLID, PatchView
from knee3d.postprocess.predict import PlaneView, View
from knee3d.postprocess.quality import Reference
from knee3d.postprocess.weights import Fusion

if TYPE_CHECKING:
    from knee3d.learn.engines import Engine

log = logging.getLogger(__name__)

FUSION_FILE = "fusion.json"
SPACING_FACTOR = 1.25
ISOTROPIC_MM = 1e-3
"""Cards round voxel sizes to less than this."""


@dataclass(frozen=True)
class Trained:
    """What a models folder holds.

    Attributes:
        ensemble: The networks and their fusion weights: equal ones until `fuse` has fitted some.
        scheme: The classes they tell apart.
        patients: Whom they were trained and validated on.
        spacing_mm: (planes, 3) voxel sizes along Inferior, Posterior, Left that each was trained on, the median.
            Oblique views are not among them: they resample to a spacing of their own.
        marks: Name of each network's folder to a fingerprint of its weights.
        reference: What `fuse` saw, for flags of quality; None before.
        whole_only: Folders of networks that must see whole slices, see `networks.Architecture`.
    """

    ensemble: Ensemble
    scheme: Scheme
    patients: Mapping[Split, frozenset[str]]
    spacing_mm: np.ndarray
    marks: Mapping[str, str]
    reference: Reference | None
    whole_only: tuple[str, ...] = ()

    @property
    def planes(self) -> dict[str, PlaneView]:
        """Those of the views that are planes."""
        return {name: view for name, view in self.ensemble.views.items() if isinstance(view, PlaneView)}

    def mark_with(self, text: str) -> str:
        """A fingerprint of all networks and the text."""
        return hashlib.sha256(json.dumps([sorted(self.marks.items()), text]).encode()).hexdigest()[:16]

    def of_other_voxels(self, image: Volume) -> str:
        """What is wrong where voxels differ from those of training by more than `SPACING_FACTOR`; empty if nothing is.

        The networks see pixels, not millimetres: anatomy of another size in pixels is new to them.
        """
        if not len(self.spacing_mm):
            return ""
        factors = image.spacing_mm / self.spacing_mm
        worst = np.maximum(factors, 1 / factors).max(axis=1)
        if worst.max() <= SPACING_FACTOR:
            return ""
        sizes = (image.spacing_mm, self.spacing_mm[worst.argmax()])
        mine, theirs = (" x ".join(f"{mm:.2f}" for mm in size) for size in sizes)
        return f"voxels of {mine} mm, while the networks know {theirs} mm: they would see anatomy of another size"


def is_trained(models: Path, view: str) -> bool:
    """Whether a view's network was trained to the end."""
    return (models / view / "card.json").is_file()


def trained_views(models: Path) -> list[str]:
    """The planes, and the volume, of a models folder that were trained to the end."""
    return [view for view in (*(plane.value for plane in Plane), SOLID) if is_trained(models, view)]


def all_trained(models: Path) -> list[str]:
    """`trained_views`, and the networks of oblique slices.

    Raises:
        FileNotFoundError: There is none.
    """
    oblique = [path.parent.name for path in sorted(models.glob(f"{OBLIQUE}*/card.json"))]
    found = [*trained_views(models), *(name for name in oblique if not name.endswith(".training"))]
    if not found:
        raise _nothing_trained(models)
    return found


def _nothing_trained(models: Path) -> FileNotFoundError:
    """What to say of a folder without networks."""
    return FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")


def trained_networks(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> tuple[str, ...]:
    """The folders of the networks that look at a knee together.

    Args:
        models: Where they lie.
        planes: Which of `trained_views`; none is every one.
        oblique: How many oblique views there are besides. One network is behind them all, or, where there is none, one
            behind each, which was trained on its direction of so many.

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
    """
    there = trained_views(models)
    names = ", ".join(there) or "none of a plane"
    if not there and not oblique:
        raise _nothing_trained(models)
    missing = [view for view in planes if view not in there]
    if missing:
        raise FileNotFoundError(f"{models} holds no {' and no '.join(missing)} plane, only {names}")
    wanted = [view for view in there if not planes or view in planes]
    if not oblique:
        return tuple(wanted)
    if is_trained(models, OBLIQUE):
        return (*wanted, OBLIQUE)
    each = [one_direction(number, oblique) for number in range(1, oblique + 1)]
    if not all(is_trained(models, view) for view in each):
        raise FileNotFoundError(
            f"{models} holds no network that was trained on oblique slices, only {names}; train one with "
            f"knee3d-train DATASET --plane {OBLIQUE} --models {models}, or segment without oblique views"
        )
    return (*wanted, *each)


def load_models(
    models: Path,
    fused: bool = True,
    planes: Sequence[str] = (),
    engine: "Engine | None" = None,
    oblique: int = 0,
) -> Trained:
    """The networks of planes that were trained to the end, and perhaps the one for oblique slices.

    Args:
        models: Their folder.
        fused: Whether to take the weights of fusion.json; otherwise views count equally, as before any fit. With
            oblique views they also do where fusion.json is not for exactly these views.
        planes: Which of `trained_views`; none is every one. What the others weigh is shared out among them.
        engine: What computes them; TensorFlow in float32 by default.
        oblique: How many oblique views to add: oblique-1, oblique-2, ...

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
        ValueError: They were trained on different schemes, fusion.json is for other planes, or the network for oblique
            slices was trained on more than one spacing.
    """
    names = trained_networks(models, planes, oblique)
    from knee3d.learn.card import load_card

    cards = {name: load_card(models, name) for name in names}
    for name, card in cards.items():
        if not {"patients", "spacing_mm"} <= set(card):
            raise ValueError(f"the card of {models / name} lacks patients or spacing_mm; train this plane again")
    schemes = {card["scheme"] for card in cards.values()}
    if len(schemes) > 1:
        raise ValueError(f"the planes in {models} were trained on different schemes: {', '.join(sorted(schemes))}")
    patients = {
        split: frozenset(patient for card in cards.values() for patient in card["patients"][split.value])
        for split in (Split.TRAIN, Split.VAL)
    }
    views = _views(models, cards, engine, oblique)
    ensemble = Ensemble(views, dict.fromkeys(views, 1 / len(views)))
    marks = {name: mark(models, name) for name in names}
    fusion = load_fusion(models) if fused else None
    if fusion is not None:
        partly = len([name for name in names if not is_oblique(name)]) < len(trained_views(models))
        ensemble = _with_fusion(ensemble, fusion, marks, partly)
    elif fused:
        log.warning("%s is missing: planes count equally; fit weights with knee3d fuse", models / FUSION_FILE)
    spacing = np.array([card["spacing_mm"] for name, card in cards.items() if not is_oblique(name)])
    reference = fusion and fusion["reference"]
    whole_only = tuple(name for name, card in cards.items() if card.get("whole_slices_only", False))
    return Trained(ensemble, SCHEMES[schemes.pop()], patients, spacing, marks, reference, whole_only)


def _views(
    models: Path, cards: Mapping[str, Mapping[str, Any]], engine: "Engine | None", oblique: int
) -> dict[str, View]:
    """The views of some networks, those of planes first."""
    from knee3d.learn.engines import load_predictor

    views: dict[str, View] = {}
    predictors = {name: load_predictor(models, name, engine) for name in cards}
    for name in cards:
        if name == SOLID:
            views[name] = PatchView(predictors[name])
        elif not is_oblique(name):
            views[name] = PlaneView(Plane(name), predictors[name])
    for number, turn in enumerate(spread_turns(oblique) if oblique else (), start=1):
        name = OBLIQUE if OBLIQUE in cards else one_direction(number, oblique)
        spacing = np.array(cards[name]["spacing_mm"], dtype=np.float64)
        if spacing.shape != (3,) or np.ptp(spacing) > ISOTROPIC_MM:
            raise ValueError(
                f"{models / name / 'card.json'} says voxels of {spacing.tolist()} mm; oblique slices need a network "
                "that was trained on voxels of one length, three times the same"
            )
        views[f"{OBLIQUE}-{number}"] = ObliqueView(turn, float(spacing.mean()), predictors[name])
    return views


def mark(models: Path, name: str) -> str:
    """A fingerprint of the weights in a network's folder: of the index that holds a checksum of each tensor.

    Raises:
        ValueError: There is no such index.
    """
    path = models / name / "saved_model" / "variables" / "variables.index"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); train this plane again") from error


def fusion_mark(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> str:
    """A fingerprint of the networks of `trained_networks` and of what fuses them.

    Raises:
        FileNotFoundError: There is no trained plane, or a network that is asked for is not there.
        ValueError: Weights cannot be read.
    """
    names = trained_networks(models, planes, oblique)
    fusion = load_fusion(models)
    rule = fusion and [*(fusion[key] for key in ("weights", "rule", "thresholds")), asdict(fusion["reference"])]
    content = [[name, mark(models, name)] for name in names]
    return hashlib.sha256(json.dumps([content, rule]).encode()).hexdigest()[:16]


def model_files(models: Path, planes: Sequence[str] = (), oblique: int = 0) -> tuple[str, ...]:
    """Names of the files that `load_models` reads for the same views, with those of their folders."""
    names = trained_networks(models, planes, oblique)
    files = [path for name in names for path in (models / name / "saved_model").rglob("*") if path.is_file()]
    files += [models / name / "card.json" for name in names]
    files += [path for path in (models / FUSION_FILE,) if path.is_file()]
    return tuple(str(path.relative_to(models)) for path in files)


def save_fusion(
    fusion: Fusion, cases: Sequence[Case], reference: Reference, marks: Mapping[str, str], models: Path
) -> None:
    """Write fusion.json.

    It holds how opinions become labels, the networks and cases it was fitted on, its Dice there, and what later knees
    are compared with.
    """
    content = {
        "weights": dict(fusion.weights),
        "rule": fusion.rule,
        "thresholds": fusion.thresholds,
        "objective": fusion.objective,
        "dice": {"fused": fusion.dice, "equal weights": fusion.equal, **fusion.alone},
        "no_weights_better_by": fusion.bound if np.isfinite(fusion.bound) else None,
        "intervals": dict(fusion.intervals),
        "fitted_on": {"split": cases[0].split.value, "cases": [case.name for case in cases]},
        "reference": {key: None if value != value else value for key, value in asdict(reference).items()},
        "networks": dict(marks),
    }
    with whole_file(models / FUSION_FILE) as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def check_match(dataset: Dataset, trained: Trained, cases: Sequence[Case], unseen: Sequence[Split]) -> None:
    """Refuse a dataset of another scheme, and patients that the networks have seen.

    Raises:
        ValueError: Names them.
    """
    if dataset.scheme is not trained.scheme:
        raise ValueError(
            f"{dataset.folder} has scheme {dataset.scheme.name}, the models {trained.scheme.name}; prepare it again"
        )
    for split in unseen:
        leaks = sorted({case.patient for case in cases} & trained.patients[split])
        if leaks:
            raise ValueError(
                f"patients {', '.join(leaks[:5])} of the {cases[0].split} split were in the {split} split when the "
                "models were trained: the scores would flatter; keep the split, or train again"
            )


def check_not_tested(dataset: Dataset, trained: Trained, cases: Sequence[Case]) -> None:
    """Refuse to fit on patients who were test patients when the networks were trained on this dataset.

    Raises:
        ValueError: Some of the dataset's patients were trained or validated on, and these were not.
    """
    seen = trained.patients[Split.TRAIN] | trained.patients[Split.VAL]
    new = sorted({case.patient for case in cases} - seen)
    if new and seen & {case.patient for case in dataset.cases}:
        raise ValueError(
            f"patients {', '.join(new[:5])} of the {cases[0].split} split were not when the networks were trained on "
            "this dataset, so they may have been tested on; keep the split, or train again"
        )


def load_fusion(models: Path) -> dict[str, Any] | None:
    """What fusion.json holds; None where there is none.

    Raises:
        ValueError: It cannot be read.
    """
    path = models / FUSION_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        weights = {str(name): np.asarray(weight, dtype=float).tolist() for name, weight in content["weights"].items()}
        thresholds = content["thresholds"] and tuple(map(float, content["thresholds"]))
        texts = {key: str(content[key]) for key in ("rule", "objective")}
        volumes = {name: (float(low), float(high)) for name, (low, high) in content["reference"]["volumes_mm3"].items()}
        borders = {name: float(area) for name, area in content["reference"]["border_mm2"].items()}
        seen = (float("nan") if content["reference"][key] is None else float(content["reference"][key])
                for key in ("agreement", "doubt"))  # fmt: skip
        reference = Reference(volumes, borders, *seen)
        checked = {"weights": weights, "thresholds": thresholds, "networks": dict(content["networks"])}
        return content | texts | checked | {"reference": reference}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable weight file ({error!r}); run knee3d fuse again") from error


def _with_fusion(equal: Ensemble, fusion: Mapping[str, Any], marks: Mapping[str, str], partly: bool) -> Ensemble:
    if any(map(is_oblique, marks)) and set(equal.views) != set(fusion["weights"]):
        log.warning("%s is not for these oblique views: all views count equally", FUSION_FILE)
        return equal
    stale = [view for view, one in marks.items() if fusion["networks"].get(view, one) != one]
    if stale:
        log.warning("%s is older than the networks of %s: run knee3d fuse again", FUSION_FILE, ", ".join(stale))
    weights = fusion["weights"]
    if partly and set(equal.views) < set(weights):
        weights = only(weights, equal.views)
    return Ensemble(equal.views, weights, fusion["rule"], fusion["thresholds"])
