"""Quality control: predictive entropy, inter-view Dice, and flags in words. It needs no truth.

Each rule compares with what is known of the models: volumes in the masks of training and validation, and how the
networks did on validation. No rule needs the truth.

    missing      a tissue has less than `MISSING` of its smallest volume there; where nothing is known, none at all
    implausible  its volume is more than `VOLUME_FACTOR` times outside the range there
    blind        a view finds less than `MISSING` of the tissue that all views together find
    cut off      it covers more of a border of the image than there, and more than `BORDER_MM2`
    disagree     the views agree less than `DICE_FACTOR` times as well as on the worst validation case
    uncertain    the networks are unsure of the tissue they find, `ENTROPY_FACTOR` times more than on the worst one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.postprocess.blend import as_probabilities
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice, nan_mean
from knee3d.postprocess.decision import decide_array

MISSING = 0.05
VOLUME_FACTOR = 1.5
BORDER_MM2 = 10.0
DICE_FACTOR = 0.9
ENTROPY_FACTOR = 1.25
THICK_MM = 2.5
"""Slices further apart than this limit what can be measured, see `scan_limits`."""


@dataclass(frozen=True, eq=False)
class ViewPrediction:
    """What is kept of one view.

    Attributes:
        labels: The most probable class of each voxel, uint8.
        predictive_entropy: Mean entropy (0 to 1) of the voxels that it calls tissue; NaN where it finds none.
    """

    labels: Volume
    predictive_entropy: float


@dataclass(frozen=True)
class QualityReference:
    """What is known of the models.

    Attributes:
        volumes_mm3: Tissue to its smallest and largest volume in masks.
        border_mm2: Tissue to the largest area of a border of an image that it covers in masks.
        inter_view_dice: The lowest of a validation case.
        predictive_entropy: The highest of a validation case.
    """

    volumes_mm3: Mapping[str, tuple[float, float]]
    border_mm2: Mapping[str, float]
    inter_view_dice: float
    predictive_entropy: float


@dataclass(frozen=True)
class QualityReport:
    """How believable a segmentation is.

    Attributes:
        volumes_mm3: Tissue to volume.
        border_mm2: Tissue to the largest area of a border of the image that it covers.
        inter_view_dice: Mean foreground Dice of pairs of views; NaN with one view, or where none finds tissue.
        predictive_entropy: Mean over the views of `ViewPrediction.predictive_entropy`.
        flags: What looks wrong, in words; empty for a case that looks right.
        unchecked: What could not be looked at, in words; empty where all was.
        limits: What the image does not allow to measure well, in words; empty where there is no limit.
    """

    volumes_mm3: Mapping[str, float]
    border_mm2: Mapping[str, float]
    inter_view_dice: float
    predictive_entropy: float
    flags: tuple[str, ...]
    unchecked: str = ""
    limits: tuple[str, ...] = ()


class ViewAccumulator:
    """Collects the prediction of one view, part by part."""

    def __init__(self, grid: Volume, region: np.ndarray | None = None) -> None:
        """Nothing seen yet.

        Args:
            grid: Where the voxels lie; its values do not matter.
            region: bool, of the voxels that count; the others are background. None is all.
        """
        self._grid, self._region = grid, region
        self._labels = np.zeros(grid.shape, dtype=np.uint8)
        self._entropy, self._count = 0.0, 0

    def add(self, index: Any, part: np.ndarray) -> None:
        """Take in probabilities (..., classes) of some voxels, as numpy indexes them."""
        labels = decide_array(part)
        if self._region is not None:
            labels *= self._region[index]
        tissue = labels > 0
        self._labels[index] = labels
        self._entropy += float(predictive_entropy(part[tissue]).sum(dtype=np.float64))
        self._count += int(np.count_nonzero(tissue))

    def result(self) -> ViewPrediction:
        """What was seen."""
        return ViewPrediction(
            self._grid.with_array(self._labels), self._entropy / self._count if self._count else float("nan")
        )


def predictive_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Shannon's entropy, as a share of the largest there can be, log(classes).

    Args:
        probabilities: (..., classes) adding up to 1: floats, or uint8, where 255 is 1.

    Returns:
        (...) float32 in [0, 1]: 0 where one class is certain, 1 where all are equally likely.
    """
    values = as_probabilities(probabilities)
    logarithms = np.log(np.maximum(values, np.float32(1e-12)))
    most = np.float32(np.log(values.shape[-1]))
    return np.clip(np.einsum("...c,...c->...", values, logarithms) / -most, 0, 1)


def inter_view_dice(predictions: Sequence[ViewPrediction]) -> float:
    """Mean foreground Dice of all pairs of views; NaN with one view, or where none finds tissue."""
    found = []
    for first, second in combinations(predictions, 2):
        matrix = confusion_matrix(first.labels.array > 0, second.labels.array > 0, 2)
        found.append(float(dice(matrix)[1]))
    return nan_mean(found)


def mean_predictive_entropy(predictions: Sequence[ViewPrediction]) -> float:
    """Mean predictive entropy of the views that find tissue; NaN where none does."""
    return nan_mean([one.predictive_entropy for one in predictions])


def label_extents(labels: Volume, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Tissue to its volume in mm3, and the largest area in mm2 that it covers of one of the six borders."""
    counts = np.bincount(labels.array.reshape(-1), minlength=len(names) + 1)
    return {
        name: (float(counts[tissue] * labels.voxel_mm3), _border_mm2(labels, tissue))
        for tissue, name in enumerate(names, start=1)
    }


def _border_mm2(labels: Volume, tissue: int) -> float:
    edges = labels.affine[:3, :3].T
    areas = []
    for axis in range(3):
        voxel_mm2 = np.linalg.norm(np.cross(*np.delete(edges, axis, axis=0)))
        areas += [voxel_mm2 * np.count_nonzero(labels.array.take(end, axis) == tissue) for end in (0, -1)]
    return float(max(areas))


def quality_reference(
    masks: Sequence[Mapping[str, Sequence[float]]], validation: Sequence[Sequence[float]]
) -> QualityReference:
    """What later cases are compared with.

    Args:
        masks: The `label_extents` of each mask of training and validation.
        validation: Inter-view Dice and predictive entropy of each validation case.
    """
    present = {name: np.array([mask[name] for mask in masks if mask[name][0] > 0]) for name in masks[0]}
    dices, entropies = np.array(validation, dtype=np.float64).reshape(-1, 2).T
    return QualityReference(
        {name: (float(found[:, 0].min()), float(found[:, 0].max())) for name, found in present.items() if len(found)},
        {name: float(found[:, 1].max()) for name, found in present.items() if len(found)},
        float(np.nanmin(dices)) if np.isfinite(dices).any() else float("nan"),
        float(np.nanmax(entropies)) if np.isfinite(entropies).any() else float("nan"),
    )


def check_quality(
    labels: Volume, predictions: Mapping[str, ViewPrediction], names: Sequence[str], reference: QualityReference | None
) -> QualityReport:
    """Look a segmentation over.

    Args:
        labels: Of all views together.
        predictions: Of each view, by its name.
        names: Tissue of each class from 1 on.
        reference: What is known of the models; None where nothing is, and then only views are compared, and what is cut
            off or not there at all is flagged.

    Raises:
        ValueError: Labels are beyond the names.
    """
    found = label_extents(labels, names)
    agreed, unsure = inter_view_dice([*predictions.values()]), mean_predictive_entropy([*predictions.values()])
    flags = []
    for name, (mm3, mm2) in found.items():
        low, high = (0.0, np.inf) if reference is None else reference.volumes_mm3.get(name, (0.0, np.inf))
        masked = None if reference is None else reference.border_mm2.get(name)
        if reference is None and mm3 == 0:
            flags.append(f"{name} missing: none was found")
        elif mm3 < MISSING * low:
            flags.append(f"{name} missing: {mm3:.0f} mm3, at least {low:.0f} in masks")
        elif not low / VOLUME_FACTOR <= mm3 <= high * VOLUME_FACTOR:
            flags.append(f"{name} implausible: {mm3:.0f} mm3, {low:.0f} to {high:.0f} in masks")
        if mm2 > max(BORDER_MM2, masked or 0.0):
            compared = "" if masked is None else f", up to {masked:.0f} in masks"
            flags.append(f"{name} cut off: {mm2:.0f} mm2 on a border of the image{compared}")
    for view, one in predictions.items():
        alone = np.bincount(one.labels.array.reshape(-1), minlength=len(names) + 1) * labels.voxel_mm3
        missed = [name for (name, (mm3, _)), mine in zip(found.items(), alone[1:], strict=True) if mine < MISSING * mm3]
        flags += [f"the {view} view finds no {name}: the other views decide alone" for name in missed]
    if reference is not None:
        if agreed < DICE_FACTOR * reference.inter_view_dice:
            flags.append(
                f"views disagree: Dice {agreed:.2f} with each other; "
                f"in validation at least {reference.inter_view_dice:.2f}"
            )
        if unsure > ENTROPY_FACTOR * reference.predictive_entropy:
            flags.append(
                f"uncertain: entropy {unsure:.2f} within tissue; "
                f"in validation at most {reference.predictive_entropy:.2f}"
            )
    volumes, borders = ({name: extent[which] for name, extent in found.items()} for which in (0, 1))
    unchecked = _unchecked(names, len(predictions), reference)
    return QualityReport(volumes, borders, agreed, unsure, tuple(flags), unchecked, scan_limits(labels.spacing_mm))


def scan_limits(spacing_mm: np.ndarray) -> tuple[str, ...]:
    """What voxels of this size do not allow to measure well, in words.

    The numbers are those of two real knees whose labels were resampled to thick slices without any network
    (`benchmarks/voxels.py`): what is lost before anything is segmented.

    Args:
        spacing_mm: (3,) distances between voxels along the axes of the image.
    """
    apart = float(np.max(spacing_mm))
    if apart <= THICK_MM:
        return ()
    return (
        f"slices are {apart:.1f} mm apart: even perfect labels of such slices miss 2 to 6 % of the volume of femoral "
        "and up to 12 % of that of patellar cartilage, and mean thickness is off by up to 7 %; compare with scans of "
        "the same protocol only",
    )


def _unchecked(names: Sequence[str], views: int, reference: QualityReference | None) -> str:
    """Which rules had nothing to compare with, in words."""
    if reference is None:
        return "volumes, inter-view Dice and entropy: what is usual is not known before weights are fitted"
    unseen = [name for name in names if name not in reference.volumes_mm3]
    rules = {
        f"volumes of {', '.join(unseen)}, which no mask had": unseen,
        "inter-view Dice, as there is one view": views < 2,
        "inter-view Dice, which was not known on validation": views > 1 and np.isnan(reference.inter_view_dice),
        "entropy, which was not known on validation": np.isnan(reference.predictive_entropy),
    }
    return "; ".join(words for words, is_unchecked in rules.items() if is_unchecked)
