"""Fit the fusion weights of trained networks, and score networks and fusion."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.api.dataset import Dataset
from knee3d.atomic import whole_file
from knee3d.dataset.case_collection import Case, Split
from knee3d.geometry.view_names import FUSED
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import EnsemblePrediction, ProbabilityWriter
from knee3d.inference.trained_models import (
    TrainedModels,
    check_dataset_matches,
    check_not_former_test_patients,
    load_models,
)
from knee3d.labels.label_scheme import LabelScheme
from knee3d.models.fusion_file import fusion_path, save_fusion
from knee3d.models.model_folder import missing_folds, network_fingerprint, network_folders, trained_networks
from knee3d.postprocess.assessment import CaseAssessment, assess_case
from knee3d.postprocess.candidate_voxels import find_candidates
from knee3d.postprocess.cleaning import NOTHING, CleaningConfig, clean_labels
from knee3d.postprocess.decision import fused_labels, staple_labels
from knee3d.postprocess.fusion_fit import Fusion, FusionConfig, fit_fusion
from knee3d.postprocess.quality import (
    QualityReport,
    check_quality,
    inter_view_dice,
    label_extents,
    mean_predictive_entropy,
    quality_reference,
)
from knee3d.progress import progress
from knee3d.report.evaluation_scores import Evaluation, QualityRecord, summarise_cases, write_scores_csv

log = logging.getLogger(__name__)


def fit_fusion_of_models(data: Dataset, models: Path, config: FusionConfig, oblique: int = 0) -> Fusion:
    """Fit fusion weights on validation knees and write them beside the models.

    Of the folds of a cross-validation each knee is predicted by the fold that was validated on it, as nnU-Net fits its
    ensembles, and all knees of training and validation count.

    What the networks say of each knee is kept in a folder beside the weights, fusion.evidence, as far as fusion depends
    on it, so that a killed run goes on, and other rules of fusion need no networks.

    Args:
        data: The knees; those of the validation split are taken.
        models: The models folder; it gets its `fusion_path`.
        config: How the weights are fitted.
        oblique: Number of oblique views beside the planes.

    Returns:
        The weights and the Dice that they reach.

    Raises:
        ValueError: A validation patient was trained on, or tested on, or there is no tissue to fit on.
    """
    dataset, fitted = Dataset.load(data.folder), fusion_path(models, oblique)
    wanted = {case.name for case in data.cases}
    evidence = fitted.with_suffix(".evidence")
    if evidence.exists() and not evidence.is_dir():
        raise ValueError(f"{evidence} is a file, where fuse keeps a folder; move it away")
    homes = network_folders(models)
    for name in trained_networks(models, oblique=oblique):
        if missing := missing_folds(models, name):
            raise ValueError(f"{name} is not trained in folds {missing} of {models}; train them first")
    cases: list[Case] = []
    paths: list[Path] = []
    for home in homes:
        trained = load_models(home, fused=False, oblique=oblique)
        mine = _validated(dataset, trained) if len(homes) > 1 else list(dataset.of_split(Split.VAL))
        mine = [case for case in mine if case.name in wanted]
        if mine:
            check_dataset_matches(dataset, trained, mine, (Split.TRAIN,))
            check_not_former_test_patients(dataset, trained, mine)
        _of_other_voxels(dataset, trained, mine)
        cases += mine
        paths += [_observed(dataset, case, trained, evidence) for case in mine]
    if not cases:
        raise ValueError(
            f"no knee that was given of {data.folder} is a validation knee of {models}; there is nothing to fit on"
        )
    for old in set(evidence.glob(f"*-{'[0-9a-f]' * 16}.npz")) - set(paths):  # others are not ours
        old.unlink()
        _seen(old).unlink(missing_ok=True)
    fusion = fit_fusion(paths, config)
    known = [case for case in dataset.cases if case.labelled and case.split in (Split.TRAIN, Split.VAL)]
    masks = _mask_extents(dataset, known, evidence / "masks.json")
    reference = quality_reference(masks, [_kept(_seen(path), _are_numbers) for path in paths])
    fingerprints = {name: network_fingerprint(models, name) for name in trained.fingerprints}
    save_fusion(fusion, cases, reference, fingerprints, fitted)
    return fusion


def _validated(dataset: Dataset, trained: TrainedModels) -> list[Case]:
    """The knees that the networks of a fold were validated on."""
    known = [case for case in dataset.cases if case.labelled and case.split in (Split.TRAIN, Split.VAL)]
    train, val = trained.patients[Split.TRAIN], trained.patients[Split.VAL]
    return [case for case in known if case.patient in val and case.patient not in train]


def _observed(dataset: Dataset, case: Case, trained: TrainedModels, evidence: Path) -> Path:
    """The file of what networks say of a knee, as far as fusion depends on it; made unless it is there."""
    path = evidence / f"{case.name}-{trained.fingerprint_with(case.fingerprint)}.npz"
    if not (path.is_file() and _seen(path).is_file()):
        views: dict[str, Volume] = {}
        keep = ProbabilityWriter(np.float32, views.__setitem__)
        looks = trained.ensemble.predict(dataset.image(case), f"fusing {case.name}", keep=keep).view_predictions
        path.parent.mkdir(exist_ok=True)
        _keep([inter_view_dice([*looks.values()]), mean_predictive_entropy([*looks.values()])], _seen(path))
        find_candidates(dataset.mask(case), views, case.patient).save(path)
    return path


def _seen(evidence: Path) -> Path:
    return evidence.with_suffix(".json")


def _mask_extents(dataset: Dataset, cases: Sequence[Case], cache: Path) -> list[dict[str, tuple[float, float]]]:
    """`label_extents` of each mask; masks that were measured before are not read again."""
    known: dict[str, dict[str, tuple[float, float]]] = _kept(cache, _are_extents) if cache.is_file() else {}
    with progress("measuring masks", len(cases)) as advance:
        found = {}
        for case in cases:
            mark = f"{dataset.scheme.name} {case.fingerprint}"
            found[mark] = known.get(mark) or label_extents(dataset.mask(case), dataset.scheme.names)
            advance(1)
    _keep(found, cache)
    return list(found.values())


def _keep(content: Any, path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content))


def _are_extents(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(mask, dict) and all(_are_numbers(pair) and np.isfinite(pair).all() for pair in mask.values())
        for mask in content.values()
    )


def _are_numbers(pair: Any) -> bool:
    return isinstance(pair, list) and [type(value) for value in pair] == [float, float]


def _kept(path: Path, is_right: Callable[[Any], bool]) -> Any:
    try:
        content = json.loads(path.read_text())
        if not is_right(content):
            raise ValueError("it holds something else")
        return content
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run the command again") from error


@dataclass(frozen=True)
class EvaluationConfig:
    """What an evaluation scores beside the planes and their fusion.

    Attributes:
        compare: Whether to score other ways of fusion too: the plain mean, the logarithmic pool, votes and STAPLE.
        cleaning: Pieces and holes that are removed from the fusion, which is then scored in a row of its own.
        surfaces: Whether to measure distances between surfaces.
        pictures: Whether to draw each case.
    """

    compare: bool = False
    cleaning: CleaningConfig = NOTHING
    surfaces: bool = True
    pictures: bool = True


def evaluate_models(
    data: Dataset, models: Path, out: Path | None, config: EvaluationConfig, oblique: int = 0
) -> Evaluation:
    """Score each view and the fusion against the masks of knees of one split.

    Args:
        data: The knees; where they are of several splits, those of the test split are taken.
        models: The models folder, with its `fusion_path`.
        out: The folder that gets scores.json, scores.csv, confusion.png, and overview/<case>.png with prediction and
            truth. None writes nothing.
        config: What else is scored. Comparing keeps the probabilities of all planes in memory.
        oblique: Number of oblique views beside the planes.

    Returns:
        The scores.

    Raises:
        ValueError: A patient of the val or test split was trained on, or one of the test split validated on.
    """
    from knee3d.report.overview_figure import overview_figure

    dataset, trained = Dataset.load(data.folder), load_models(models, oblique=oblique)
    splits = {case.split for case in data.cases if case.labelled}
    split = splits.pop() if len(splits) == 1 else Split.TEST
    cases = data.of_split(split)
    unseen = {Split.TEST: (Split.TRAIN, Split.VAL), Split.VAL: (Split.TRAIN,)}.get(split, ())
    check_dataset_matches(dataset, trained, cases, unseen)
    others = _of_other_voxels(dataset, trained, cases)
    if split is Split.TRAIN:
        log.warning("these are the training knees: the networks know them, and scores are better than of other knees")
    assessed: dict[str, dict[str, CaseAssessment]] = {}
    qualities: dict[str, QualityReport] = {}
    names = dataset.scheme.names
    for case in cases:
        image, truth = dataset.image(case), dataset.mask(case)
        kept: dict[str, Volume] = {}
        keep = ProbabilityWriter(np.float32, kept.__setitem__) if config.compare else None
        found = trained.ensemble.predict(image, f"evaluating {case.name}", keep=keep)
        ways = _ways(found, kept, config, dataset.scheme)
        qualities[case.name] = check_quality(found.labels, found.view_predictions, names, trained.reference)
        mine = {way: assess_case(truth, labels, names, config.surfaces) for way, labels in ways.items()}
        assessed[case.name] = mine
        if config.pictures and out is not None:
            picture = out / "overview" / f"{case.name}.png"
            overview_figure(image, ways[FUSED], dataset.scheme, picture, case.name, truth)
        flags = "".join(f"; {flag}" for flag in qualities[case.name].flags)
        log.info("%s: fused foreground Dice %.4f%s", case.name, mine[FUSED].scores.foreground_dice, flags)
    weights = trained.ensemble.weights
    evaluation = replace(
        summarise_cases(assessed, {case.name: case.patient for case in cases}),
        split=split.value,
        weights={view: one if isinstance(one, float | int) else tuple(one) for view, one in weights.items()},
        cleaning=config.cleaning,
        other_voxels=others,
        quality={name: QualityRecord.of(one) for name, one in qualities.items()},
    )
    if out is not None:
        _write(evaluation, assessed, out)
    return evaluation


def _write(evaluation: Evaluation, assessed: Mapping[str, Mapping[str, CaseAssessment]], out: Path) -> None:
    from knee3d.report.confusion_figure import confusion_figure

    pooled = {way: [mine[way].scores for mine in assessed.values()] for way in next(iter(assessed.values()))}
    confusion_figure({way: reduce(add, scores) for way, scores in pooled.items()}, out / "confusion.png")
    write_scores_csv(evaluation, out / "scores.csv")
    evaluation.write(out / "scores.json")


def _of_other_voxels(dataset: Dataset, trained: TrainedModels, cases: Sequence[Case]) -> dict[str, str]:
    """Cases whose voxels the networks do not know, and what is wrong with them, which is also warned of."""
    said = {case.name: trained.spacing_problem(case.spacing_mm) for case in cases}
    found = {name: words for name, words in said.items() if words}
    for name, words in found.items():
        log.warning("%s: %s; segment refuses such a knee", name, words)
    return found


def _ways(
    prediction: EnsemblePrediction, views: Mapping[str, Volume], config: EvaluationConfig, scheme: LabelScheme
) -> dict[str, Volume]:
    """Labels of each plane by itself, of the fusion, and of the other ways that are to be scored."""
    alone = {name: one.labels for name, one in prediction.view_predictions.items()}
    found = alone | {FUSED: prediction.labels}
    if config.cleaning:
        found["fused, cleaned"] = clean_labels(prediction.labels, config.cleaning, scheme.pieces)
    if config.compare:
        equal = dict.fromkeys(views, 1 / len(views))
        others = {"mean": "linear", "logarithmic": "log", "vote": "vote"}
        found |= {way: fused_labels(views, equal, rule) for way, rule in others.items()}
        found["STAPLE"] = staple_labels(list(alone.values()))
    return found
