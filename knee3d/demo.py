"""The demo: all steps on a small made-up cohort. It calls the public functions of knee3d only."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knee3d import api

log = logging.getLogger(__name__)

# Sized for two processor cores and twelve minutes.
KNEES = 14
SHAPE = (64, 64, 64)
SPLIT = (0.7, 0.15, 0.15)
SCHEME = "compartments"
TISSUE = "femoral cartilage"
FOLLOWED = 3
"""New patients who are scanned twice at once, the first of them once more after a loss of cartilage."""
NEW = "N"
"""First letter of their names: they are none of those that the networks know."""
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "augment": "none",  # in so few epochs it only slows learning
    "limit_slices": 384,
}


def demo(out: Path, encoder_weights: str, seed: int, jobs: int) -> tuple[api.Evaluation, str]:
    """Make knees up, prepare, train three planes, fuse, evaluate on unseen patients; then follow new patients.

    Args:
        out: Gets cohort/, dataset/, models/, evaluation/, followed/ (the new patients), segmentation/ (their labels and
            reports), repeatability/ and change/; finished stages are not done again.
        encoder_weights: As for training, but where "imagenet" cannot be had, training starts from random weights.
        seed: Seed of everything.
        jobs: Knees at a time.

    Returns:
        The scores of the test patients, and what was found of the loss, in words.
    """
    if encoder_weights == "imagenet" and (problem := api.encoder_weights_problem(encoder_weights)):
        log.warning("training starts from random weights: those of ImageNet cannot be had here (%s)", problem)
        encoder_weights = "none"
    log.info("making up %d knees of %s voxels", KNEES + 1, " x ".join(map(str, SHAPE)))
    table = api.make_phantom(out / "cohort", knees=KNEES, shape=SHAPE, seed=seed, jobs=jobs)
    log.info("cutting them into slices of three planes")
    data = api.prepare(table, out / "dataset", scheme=SCHEME, split=SPLIT, seed=seed, jobs=jobs)
    config = api.TrainConfig().with_options(encoder_weights=encoder_weights, seed=seed, **TRAINING)
    model = api.train(data, out / "models", config=config, resume=True)
    fusion = model.fit_fusion(data.val)
    log.info("fusion weights: %s", "  ".join(f"{view} {weight:.3f}" for view, weight in fusion.weights.items()))
    scores = model.evaluate(data.test, out / "evaluation")
    return scores, follow(out, seed + FOLLOWED, jobs)


def follow(out: Path, seed: int, jobs: int) -> str:
    """Segment, measure and report new patients: how well that repeats, and what the first of them has lost.

    Args:
        out: As of `demo`, with models/.
        seed: Seed of the patients.
        jobs: Knees at a time.

    Returns:
        What was taken away, and what was found of it, in words.

    Raises:
        ValueError: One of them could not be segmented or reported.
    """
    log.info("making up %d new patients, and scanning them again", FOLLOWED)
    table = api.make_phantom(
        out / "followed", knees=FOLLOWED, shape=SHAPE, seed=seed, retests=FOLLOWED, letter=NEW, jobs=jobs
    )
    results = out / "segmentation"
    made = [*api.segment(table, out / "models", results), *api.make_reports(results, table)]
    for one in made:
        if one.message:
            raise ValueError(f"{one.case}: {one.message}")
    pairs = out / "repeatability" / "pairs.csv"
    pairs.parent.mkdir(exist_ok=True)
    names = [f"{NEW}{number:03d}" for number in range(1, FOLLOWED + 1)]
    rows = [f"../segmentation/{name}-baseline,../segmentation/{name}-retest,{name}" for name in names]
    pairs.write_text("\n".join(["first,second,patient", *rows]) + "\n")
    api.repeatability(pairs, pairs.parent)
    visits = [f"{names[0]}-{visit}" for visit in ("baseline", "follow-up")]
    error = pairs.with_name("repeatability.json")
    found = api.compare(results / visits[0], results / visits[1], error=error, out=out / "change")
    before, after = (_femoral_mm3(out / "followed" / visit / "mask.nii.gz") for visit in visits)
    return _loss(before - after, found.knees[0].changes)


def _femoral_mm3(mask: Path) -> float:
    """How much femoral cartilage a made-up knee really has."""
    labels = api.read(mask)
    return float(np.count_nonzero(labels.array == 1) * labels.voxel_mm3)  # 1 is femoral cartilage, as pymskt numbers


def _loss(planted: float, changes: Sequence[api.ChangeRow]) -> str:
    """What was taken away of the femoral cartilage, what was found of it, and whether that can be told from error."""
    wanted = (TISSUE, "whole", "volume")
    (row,) = (row for row in changes if row.quantity == wanted)
    change, smallest = row.change, row.smallest_detectable_change
    found = f"{abs(change):,.0f} mm3 {'less' if change < 0 else 'more'} are found"
    words = f"{planted:,.0f} mm3 of {TISSUE} were taken away, {found}"
    if row.verdict == "cannot tell":
        return f"{words}, and the error of measurement is not known"
    interval = f"{smallest:,.0f} mm3 (95 %: {row.smallest_low:,.0f} to {row.smallest_high:,.0f})"
    told = "is told from error" if abs(change) > smallest else "cannot be told from error"
    return f"{words}; the smallest detectable change is {interval}: the change {told} ({row.verdict})"
