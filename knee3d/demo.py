"""The whole journey on a small made-up cohort: what `make demo` runs."""

import logging
from pathlib import Path
from typing import Any

from knee3d import workflow
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES
from knee3d.dataset.cases import Split
from knee3d.dataset.phantom.cohort import Cohort
from knee3d.dataset.prepare import Preparation

log = logging.getLogger(__name__)

# Sized for two processor cores and twelve minutes.
KNEES = 14
SHAPE = (64, 64, 64)
SPLIT = (0.7, 0.15, 0.15)
SCHEME = "compartments"
FOLLOWED = 3
"""New patients who are scanned twice at once, the first of them once more after a loss of cartilage."""
TRAINING: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "augment": "none",  # in so few epochs it only slows learning
    "limit_slices": 384,
}


def demo(out: Path, encoder_weights: str, seed: int, jobs: int) -> dict[str, Any]:
    """Make knees up, prepare, train three planes, fuse, evaluate on unseen patients; then follow new patients.

    Args:
        out: Gets cohort/, dataset/, models/, evaluation/, followed/ (the new patients), segmentation/ (their labels and
            reports), reproducibility/ and change/; finished stages are not done again.
        encoder_weights: As for training, but where "imagenet" cannot be had, training starts from random weights.
        seed: Of everything.
        jobs: Knees at a time.

    Returns:
        The summary of the evaluation, see `workflow.evaluate`.
    """
    from knee3d.learn.config import Going, TrainConfig
    from knee3d.learn.networks.encoder import EncoderWeightsError, find_encoder_weights

    try:
        find_encoder_weights(encoder_weights)
    except EncoderWeightsError as error:
        if encoder_weights != "imagenet":
            raise
        log.warning("%s; the demo goes on from random weights", error)
        encoder_weights = "none"
    table = workflow.phantom(Cohort(KNEES, SHAPE, seed), out / "cohort", jobs)
    preparation = Preparation(SCHEMES[SCHEME], None, SPLIT, seed)
    dataset = workflow.prepare(table, out / "dataset", preparation, None, jobs)
    config = TrainConfig(encoder_weights=encoder_weights, seed=seed, **TRAINING)
    workflow.train(dataset.folder, list(Plane), out / "models", config, workflow.Launcher(going=Going(resume=True)))
    fusion = workflow.fuse(dataset.folder, out / "models")
    log.info("fusion weights: %s", "  ".join(f"{view} {weight:.3f}" for view, weight in fusion.weights.items()))
    summary = workflow.evaluate(dataset.folder, out / "models", Split.TEST, out / "evaluation")
    follow(out, seed + FOLLOWED, jobs)
    return summary


def follow(out: Path, seed: int, jobs: int) -> None:
    """Segment, measure and report new patients: how well that repeats, and what the first of them has lost.

    Args:
        out: As of `demo`, with models/.
        seed: Of the patients.
        jobs: Knees at a time.

    Raises:
        ValueError: One of them could not be segmented or reported.
    """
    table = workflow.phantom(Cohort(FOLLOWED, SHAPE, seed, retests=FOLLOWED), out / "followed", jobs)
    results, wish = out / "segmentation", workflow.Wish(out / "models")
    made = workflow.segment(workflow.knees_at(table), wish, results)
    made += workflow.report(results, workflow.knees_of(table), workflow.ReportWish())
    for one in made:
        if one.message:
            raise ValueError(f"{one.case}: {one.message}")
    pairs = out / "reproducibility" / "pairs.csv"
    pairs.parent.mkdir(exist_ok=True)
    rows = [f"../segmentation/P{n:03d}-baseline,../segmentation/P{n:03d}-retest" for n in range(1, FOLLOWED + 1)]
    pairs.write_text("\n".join(["first,second", *rows]) + "\n")
    workflow.reproducibility(pairs, pairs.parent)
    workflow.compare(
        results / "P001-baseline", results / "P001-follow-up", pairs.with_name("reproducibility.json"), out / "change"
    )
