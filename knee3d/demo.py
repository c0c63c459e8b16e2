"""The whole journey on a small made-up cohort: what `make demo` runs."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knee3d import api
from knee3d.dataset.case_collection import Split
from knee3d.dataset.preparation import PrepareConfig
from knee3d.geometry.plane import Plane
from knee3d.io.label_map_file import LABELS_FILE, read_label_map
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_scheme import FEMORAL, SCHEMES
from knee3d.morphometry.change import ChangeVerdict
from knee3d.morphometry.measure import WHOLE
from knee3d.phantom.cohort import CohortConfig

log = logging.getLogger(__name__)

# Sized for two processor cores and twelve minutes.
KNEES = 14
SHAPE = (64, 64, 64)
SPLIT = (0.7, 0.15, 0.15)
SCHEME = "compartments"
FOLLOWED = 3
"""New patients who are scanned twice at once, the first of them once more after a loss of cartilage."""
NEW = "N"
"""Letter of their names: they are none of those that the networks know."""
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "augment": "none",  # in so few epochs it only slows learning
    "limit_slices": 384,
}


def demo(out: Path, encoder_weights: str, seed: int, jobs: int) -> tuple[dict[str, Any], str]:
    """Make knees up, prepare, train three planes, fuse, evaluate on unseen patients; then follow new patients.

    Args:
        out: Gets cohort/, dataset/, models/, evaluation/, followed/ (the new patients), segmentation/ (their labels and
            reports), reproducibility/ and change/; finished stages are not done again.
        encoder_weights: As for training, but where "imagenet" cannot be had, training starts from random weights.
        seed: Of everything.
        jobs: Knees at a time.

    Returns:
        The summary of the evaluation, see `api.evaluate`, and what was found of the loss, in words.
    """
    from knee3d.networks.encoder import EncoderWeightsError, find_encoder_weights
    from knee3d.training.config import ResumeOptions, TrainConfig

    try:
        find_encoder_weights(encoder_weights)
    except EncoderWeightsError as error:
        if encoder_weights != "imagenet":
            raise
        log.warning("training starts from random weights: those of ImageNet cannot be had here (%s)", error)
        encoder_weights = "none"
    log.info("making up %d knees of %s voxels", KNEES + 1, " x ".join(map(str, SHAPE)))
    table = api.make_phantom(CohortConfig(KNEES, SHAPE, seed), out / "cohort", jobs)
    log.info("cutting them into slices of three planes")
    preparation = PrepareConfig(SCHEMES[SCHEME], None, SPLIT, seed)
    dataset = api.prepare(table, out / "dataset", preparation, None, jobs)
    config = TrainConfig(encoder_weights=encoder_weights, seed=seed, **TRAINING)
    api.train_views(
        dataset.folder, list(Plane), out / "models", config, api.TrainingLauncher(going=ResumeOptions(resume=True))
    )
    fusion = api.fit_fusion_of_models(dataset.folder, out / "models")
    log.info("fusion weights: %s", "  ".join(f"{view} {weight:.3f}" for view, weight in fusion.weights.items()))
    summary = api.evaluate(dataset.folder, out / "models", Split.TEST, out / "evaluation")
    return summary, follow(out, seed + FOLLOWED, jobs)


def follow(out: Path, seed: int, jobs: int) -> str:
    """Segment, measure and report new patients: how well that repeats, and what the first of them has lost.

    Args:
        out: As of `demo`, with models/.
        seed: Of the patients.
        jobs: Knees at a time.

    Returns:
        What was taken away, and what was found of it, in words.

    Raises:
        ValueError: One of them could not be segmented or reported.
    """
    log.info("making up %d new patients, and scanning them again", FOLLOWED)
    table = api.make_phantom(CohortConfig(FOLLOWED, SHAPE, seed, retests=FOLLOWED, letter=NEW), out / "followed", jobs)
    results, wish = out / "segmentation", api.SegmentJob(out / "models")
    made = api.segment_cases(api.find_cases(table), wish, results)
    made += api.make_reports(results, api.find_report_inputs(table), api.ReportConfig())
    for one in made:
        if one.message:
            raise ValueError(f"{one.case}: {one.message}")
    pairs = out / "reproducibility" / "pairs.csv"
    pairs.parent.mkdir(exist_ok=True)
    names = [f"{NEW}{number:03d}" for number in range(1, FOLLOWED + 1)]
    rows = [f"../segmentation/{name}-baseline,../segmentation/{name}-retest,{name}" for name in names]
    pairs.write_text("\n".join(["first,second,patient", *rows]) + "\n")
    api.repeatability(pairs, pairs.parent)
    visits = [f"{names[0]}-{visit}" for visit in ("baseline", "follow-up")]
    error = pairs.with_name("reproducibility.json")
    found = api.compare(results / visits[0], results / visits[1], error, out / "change")
    before, after = (_femoral_mm3(out / "followed", visit) for visit in visits)
    return _loss(before - after, found.summary["knees"][0]["changes"])


def _femoral_mm3(cohort: Path, case: str) -> float:
    """How much femoral cartilage a made-up knee really has."""
    mask, names = read_volume(cohort / case / "mask.nii.gz"), read_label_map(str(cohort / LABELS_FILE)).names
    (value,) = (value for value, name in names.items() if name == FEMORAL)
    return float(np.count_nonzero(mask.array == value) * mask.spacing_mm.prod())


def _loss(planted: float, changes: Sequence[Mapping[str, Any]]) -> str:
    """What was taken away of the femoral cartilage, what was found of it, and whether that can be told from error."""
    wanted = (FEMORAL, WHOLE, "volume")
    (row,) = (row for row in changes if (row["tissue"], row["region"], row["measure"]) == wanted)
    change, smallest = row["change"], row["smallest_detectable_change"]
    found = f"{abs(change):,.0f} mm3 {'less' if change < 0 else 'more'} are found"
    words = f"{planted:,.0f} mm3 of {FEMORAL} were taken away, {found}"
    if row["verdict"] == ChangeVerdict.UNKNOWN:
        return f"{words}, and the error of measurement is not known"
    interval = f"{smallest:,.0f} mm3 (95 %: {row['smallest_low']:,.0f} to {row['smallest_high']:,.0f})"
    told = "is told from error" if abs(change) > smallest else "cannot be told from error"
    return f"{words}; the smallest detectable change is {interval}: the change {told} ({row['verdict']})"
