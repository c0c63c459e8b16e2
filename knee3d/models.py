"""A models folder: one network per plane, and the weights of their fusion.

MODELS/<plane>/      see `learn.savedmodel`
MODELS/fusion.json   weights keyed by plane, and what they were fitted on
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES, Scheme
from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.postprocess.ensemble import Ensemble
from knee3d.postprocess.quality import Reference
from knee3d.postprocess.weights import Fusion

log = logging.getLogger(__name__)

FUSION_FILE = "fusion.json"
SPACING_FACTOR = 1.25


@dataclass(frozen=True)
class Trained:
    """What a models folder holds.

    Attributes:
        ensemble: The networks and their fusion weights: equal ones until `fuse` has fitted some.
        scheme: The classes they tell apart.
        patients: Whom they were trained and validated on.
        spacing_mm: (planes, 3) voxel sizes along Inferior, Posterior, Left that each was trained on, the median.
        marks: Plane name to a fingerprint of its weights.
        reference: What `fuse` saw, for flags of quality; None before.
    """

    ensemble: Ensemble
    scheme: Scheme
    patients: Mapping[Split, frozenset[str]]
    spacing_mm: np.ndarray
    marks: Mapping[str, str]
    reference: Reference | None

    def mark_with(self, text: str) -> str:
        """A fingerprint of all networks and the text."""
        return hashlib.sha256(json.dumps([sorted(self.marks.items()), text]).encode()).hexdigest()[:16]

    def warn_of_other_voxels(self, image: Volume, name: str) -> None:
        """Log it where voxels differ from those of training by more than `SPACING_FACTOR`.

        The networks see pixels, not millimetres: anatomy of another size in pixels is new to them.
        """
        factors = image.spacing_mm / self.spacing_mm
        if np.max(np.maximum(factors, 1 / factors)) > SPACING_FACTOR:
            mine, theirs = (" x ".join(f"{mm:.2f}" for mm in sizes) for sizes in (image.spacing_mm, self.spacing_mm[0]))
            log.warning("%s has voxels of %s mm, the networks know %s mm: do not trust the labels", name, mine, theirs)


def load_models(models: Path, fused: bool = True) -> Trained:
    """The networks of every plane that was trained to the end.

    Args:
        models: Their folder.
        fused: Whether to take the weights of fusion.json; otherwise planes count equally, as before any fit.

    Raises:
        FileNotFoundError: There is none.
        ValueError: They were trained on different schemes, or fusion.json is for other planes.
    """
    planes = [plane for plane in Plane if (models / plane.value / "card.json").is_file()]
    if not planes:
        raise FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")
    from knee3d.learn.card import load_card
    from knee3d.learn.savedmodel import load_predictor, mark

    cards = [load_card(models, plane) for plane in planes]
    schemes = {card["scheme"] for card in cards}
    if len(schemes) > 1:
        raise ValueError(f"the planes in {models} were trained on different schemes: {', '.join(sorted(schemes))}")
    patients = {
        split: frozenset(patient for card in cards for patient in card["patients"][split.value])
        for split in (Split.TRAIN, Split.VAL)
    }
    predictors = {plane: load_predictor(models, plane) for plane in planes}
    ensemble = Ensemble(predictors, {plane.value: 1 / len(planes) for plane in planes})
    marks = {plane.value: mark(models, plane) for plane in planes}
    fusion = load_fusion(models) if fused else None
    if fusion is not None:
        ensemble = _with_fusion(ensemble, fusion, marks)
    elif fused:
        log.warning("%s is missing: planes count equally; fit weights with knee3d fuse", models / FUSION_FILE)
    spacing = np.array([card["spacing_mm"] for card in cards])
    reference = fusion and fusion["reference"]
    return Trained(ensemble, SCHEMES[schemes.pop()], patients, spacing, marks, reference)


def save_fusion(fusion: Fusion, cases: Sequence[Case], reference: Reference, models: Path) -> None:
    """Write fusion.json.

    It holds how opinions become labels, the networks and cases it was fitted on, its Dice there, and what later knees
    are compared with.
    """
    from knee3d.learn.savedmodel import mark

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
        "networks": {view: mark(models, Plane(view)) for view in fusion.weights},
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
    if not path.is_file():
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable weight file ({error!r}); run knee3d fuse again") from error


def _with_fusion(equal: Ensemble, fusion: Mapping[str, Any], marks: Mapping[str, str]) -> Ensemble:
    stale = [view for view, one in marks.items() if fusion["networks"].get(view, one) != one]
    if stale:
        log.warning("%s is older than the networks of %s: run knee3d fuse again", FUSION_FILE, ", ".join(stale))
    return Ensemble(equal.predictors, fusion["weights"], fusion["rule"], fusion["thresholds"])
