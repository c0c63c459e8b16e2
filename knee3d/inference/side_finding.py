"""Find the side of a knee from what a network says of a few sagittal slices.

A sagittal slice looks the same in a right knee and in the mirror image of a left one, so its network knows the medial
from the lateral plateau by shape. Where these then lie tells the side: medial is towards the other leg. The knee is
looked at twice, as it is and mirrored, because a network sees neighbouring slices too, whose order it may know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from knee3d.geometry.orientation import Side, mirror_left_right
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.resampled_view import ResampledView, SurveyedView
from knee3d.inference.roi import localizer_slices
from knee3d.labels.label_scheme import LATERAL_TIBIAL, MEDIAL_TIBIAL, LabelScheme

SURE = 0.5
"""The smallest difference of the two looks that tells a side; the largest there can be is 1."""
FEWEST_MM3 = 100.0
"""Less cartilage of a plateau than this, in one of the looks, tells nothing."""


@dataclass(frozen=True)
class FoundSide:
    """The side of a knee as its network sees it.

    Attributes:
        side: The side; unknown where the looks do not differ enough.
        evidence: From -1 (a left knee) to 1 (a right knee).
    """

    side: Side
    evidence: float


def find_side_by_network(
    image: Volume, view: SurveyedView, scheme: LabelScheme, advance: Callable[[int], object] = lambda slices: None
) -> FoundSide:
    """Find the side of a knee.

    Args:
        image: uint8, canonical axes, not mirrored.
        view: The sagittal view.
        scheme: Its classes, which tell medial from lateral tibial cartilage.
        advance: Told how many slices were just done, of twice `roi.survey_length`.

    Raises:
        ValueError: The view is of another plane, or the classes have no medial and lateral tibial cartilage.
    """
    plane = (view.view if isinstance(view, ResampledView) else view).plane
    if plane is not Plane.SAGITTAL or not {MEDIAL_TIBIAL, LATERAL_TIBIAL} <= set(scheme.names):
        raise ValueError(
            f"a side is found by the {Plane.SAGITTAL.value} network, and by a scheme with medial and lateral tibial "
            "cartilage"
        )
    right, left = (_medial_is_left(one, view, scheme, advance) for one in (image, mirror_left_right(image)))
    if right is None or left is None:
        return FoundSide(Side.UNKNOWN, 0.0)
    evidence = right - left
    side = Side.UNKNOWN if abs(evidence) < SURE else Side.RIGHT if evidence > 0 else Side.LEFT
    return FoundSide(side, evidence)


def _medial_is_left(
    image: Volume, view: SurveyedView, scheme: LabelScheme, advance: Callable[[int], object]
) -> float | None:
    """The share of pairs of medial and lateral voxels of which the medial one is further left, from 0 to 1.

    None where there is too little of one of them.
    """
    seen = view.resampled(image)
    inner = view.view if isinstance(view, ResampledView) else view
    positions = localizer_slices(seen, Plane.SAGITTAL.axis)
    height, width = np.delete(seen.shape, Plane.SAGITTAL.axis).tolist()
    labels = [scheme.names.index(name) + 1 for name in (MEDIAL_TIBIAL, LATERAL_TIBIAL)]
    counts = np.zeros((2, seen.shape[Plane.SAGITTAL.axis]))
    for position, probabilities in inner.sample(seen, positions, (slice(0, height), slice(0, width))):
        classes = probabilities.argmax(axis=-1)
        counts[:, position] = [np.count_nonzero(classes == label) for label in labels]
        advance(1)
    if (counts.sum(axis=1) * seen.voxel_mm3 * positions.step < FEWEST_MM3).any():
        return None
    medial, lateral = counts / counts.sum(axis=1, keepdims=True)
    beyond = np.concatenate([[0], np.cumsum(lateral)[:-1]])  # what lies less far left than each slice
    return float((medial * (beyond + lateral / 2)).sum())
