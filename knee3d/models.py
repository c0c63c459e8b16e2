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
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES, Scheme
from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Case, Dataset, Split
from knee3d.postprocess.blend import only
from knee3d.postprocess.ensemble import Ensemble
from knee3d.postprocess.predict import PlaneView
from knee3d.postprocess.quality import Reference
from knee3d.postprocess.weights import Fusion

if TYPE_CHECKING:
    from knee3d.learn.engines import Engine

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
        factors = image.spacing_mm / self.spacing_mm
        worst = np.maximum(factors, 1 / factors).max(axis=1)
        if worst.max() <= SPACING_FACTOR:
            return ""
        sizes = (image.spacing_mm, self.spacing_mm[worst.argmax()])
        mine, theirs = (" x ".join(f"{mm:.2f}" for mm in size) for size in sizes)
        return f"voxels of {mine} mm, while the networks know {theirs} mm: they would see anatomy of another size"


def trained_planes(models: Path) -> list[Plane]:
    """The planes of a models folder that were trained to the end.

    Raises:
        FileNotFoundError: There is none.
    """
    planes = [plane for plane in Plane if (models / plane.value / "card.json").is_file()]
    if not planes:
        raise FileNotFoundError(f"{models} holds no trained plane; train first: knee3d-train DATASET --models {models}")
    return planes


def load_models(
    models: Path, fused: bool = True, planes: Sequence[Plane] = (), engine: "Engine | None" = None
) -> Trained:
    """The networks of planes that were trained to the end.

    Args:
        models: Their folder.
        fused: Whether to take the weights of fusion.json; otherwise planes count equally, as before any fit.
        planes: Which; none is every one. What the others weigh is shared out among them.
        engine: What computes them; TensorFlow in float32 by default.

    Raises:
        FileNotFoundError: There is none, or one that is asked for is not there.
        ValueError: They were trained on different schemes, or fusion.json is for other planes.
    """
    there = trained_planes(models)
    missing = [plane.value for plane in planes if plane not in there]
    if missing:
        names = ", ".join(plane.value for plane in there)
        raise FileNotFoundError(f"{models} holds no {' and no '.join(missing)} plane, only {names}")
    from knee3d.learn.card import load_card
    from knee3d.learn.engines import load_predictor

    cards = {plane: load_card(models, plane) for plane in there if not planes or plane in planes}
    schemes = {card["scheme"] for card in cards.values()}
    if len(schemes) > 1:
        raise ValueError(f"the planes in {models} were trained on different schemes: {', '.join(sorted(schemes))}")
    patients = {
        split: frozenset(patient for card in cards.values() for patient in card["patients"][split.value])
        for split in (Split.TRAIN, Split.VAL)
    }
    views = {plane.value: PlaneView(plane, load_predictor(models, plane, engine)) for plane in cards}
    ensemble = Ensemble(views, dict.fromkeys(views, 1 / len(views)))
    marks = {plane.value: mark(models, plane) for plane in cards}
    fusion = load_fusion(models) if fused else None
    if fusion is not None:
        ensemble = _with_fusion(ensemble, fusion, marks, partly=len(cards) < len(there))
    elif fused:
        log.warning("%s is missing: planes count equally; fit weights with knee3d fuse", models / FUSION_FILE)
    spacing = np.array([card["spacing_mm"] for card in cards.values()])
    reference = fusion and fusion["reference"]
    return Trained(ensemble, SCHEMES[schemes.pop()], patients, spacing, marks, reference)


def mark(models: Path, plane: Plane) -> str:
    """A fingerprint of a plane's weights: of the index that holds a checksum of each tensor.

    Raises:
        ValueError: There is no such index.
    """
    path = models / plane.value / "saved_model" / "variables" / "variables.index"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); train this plane again") from error


def fusion_mark(models: Path, planes: Sequence[Plane] = ()) -> str:
    """A fingerprint of the networks of some planes (none is every one) and of what fuses them.

    Raises:
        FileNotFoundError: There is no trained plane.
        ValueError: Weights cannot be read.
    """
    there = [plane for plane in trained_planes(models) if not planes or plane in planes]
    fusion = load_fusion(models)
    rule = fusion and [fusion[key] for key in ("weights", "rule", "thresholds")]
    content = [[plane.value, mark(models, plane)] for plane in there]
    return hashlib.sha256(json.dumps([content, rule]).encode()).hexdigest()[:16]


def model_files(models: Path, planes: Sequence[Plane] = ()) -> tuple[str, ...]:
    """Names of the files that `load_models` reads for some planes (none is every one), with those of their folders."""
    wanted = [plane for plane in trained_planes(models) if not planes or plane in planes]
    files = [path for plane in wanted for path in (models / plane.value / "saved_model").rglob("*") if path.is_file()]
    files += [models / plane.value / "card.json" for plane in wanted]
    files += [path for path in (models / FUSION_FILE,) if path.is_file()]
    return tuple(str(path.relative_to(models)) for path in files)


def save_fusion(fusion: Fusion, cases: Sequence[Case], reference: Reference, models: Path) -> None:
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


def _with_fusion(equal: Ensemble, fusion: Mapping[str, Any], marks: Mapping[str, str], partly: bool) -> Ensemble:
    stale = [view for view, one in marks.items() if fusion["networks"].get(view, one) != one]
    if stale:
        log.warning("%s is older than the networks of %s: run knee3d fuse again", FUSION_FILE, ", ".join(stale))
    weights = fusion["weights"]
    if partly and set(equal.views) < set(weights):
        weights = only(weights, equal.views)
    return Ensemble(equal.views, weights, fusion["rule"], fusion["thresholds"])
