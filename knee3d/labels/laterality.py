"""Find the side of a knee from what the user, the file and the mask say, and check that they agree."""

import numpy as np

from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import LATERAL_MENISCUS, LATERAL_TIBIAL, MEDIAL_MENISCUS, MEDIAL_TIBIAL, LabelScheme

_PAIRS = ((MEDIAL_TIBIAL, LATERAL_TIBIAL), (MEDIAL_MENISCUS, LATERAL_MENISCUS))


def side_from_labels(labels: Volume, label_names: LabelNames) -> Side:
    """The side that a mask's medial and lateral tissues tell: medial is towards the other leg.

    Args:
        labels: Integers in any axis order, not mirrored.
        label_names: What they mean.

    Returns:
        Unknown where the mask has no medial and lateral part of the same tissue.

    Raises:
        ValueError: Tibial cartilage and menisci contradict each other.
    """
    canonical = to_canonical(labels).array
    shown = {}
    for medial, lateral in _PAIRS:
        inner, outer = _leftness(canonical, label_names, medial), _leftness(canonical, label_names, lateral)
        if inner is not None and outer is not None:
            shown[medial] = Side.RIGHT if inner > outer else Side.LEFT
    if len(set(shown.values())) > 1:
        told = ", ".join(f"{name} that of a {_WORD[side]} knee" for name, side in shown.items())
        raise ValueError(f"the mask contradicts itself about the side: {told}; correct its medial and lateral labels")
    return next(iter(shown.values()), Side.UNKNOWN)


def agreed_side(told: Side, tagged: Side, shown: Side = Side.UNKNOWN) -> Side:
    """The side of a knee from all who have a say; unknown if none says.

    Args:
        told: By the user.
        tagged: By DICOM.
        shown: By the mask, see `side_from_labels`.

    Raises:
        ValueError: Two contradict each other.
    """
    if told and tagged and told is not tagged:
        raise ValueError(f"the side is given as {told} but the DICOM laterality says {tagged}; correct one of them")
    side = told or tagged
    if side and shown and side is not shown:
        raise ValueError(
            f"the side is {side}, but the mask's medial and lateral labels lie as in a {_WORD[shown]} knee; correct "
            "the side, or the names of the labels (--labels)"
        )
    return side or shown


def check_side(side: Side, scheme: LabelScheme, reason: str = "") -> None:
    """Refuse a knee of unknown side where medial and lateral tissues are told apart: they could be swapped.

    Args:
        side: The side.
        scheme: The scheme.
        reason: What was tried to find the side, for the message.

    Raises:
        ValueError: The scheme needs a side, and it is unknown.
    """
    if scheme.sided and side is Side.UNKNOWN:
        raise ValueError(
            f"the side of the knee is not known{reason}, and the scheme {scheme.name} tells medial from lateral; say "
            "it by --side R or --side L, or in the column side of a table"
        )


_WORD = {Side.RIGHT: "right", Side.LEFT: "left"}


def _leftness(canonical: np.ndarray, label_names: LabelNames, name: str) -> float | None:
    """Mean index along Left of a tissue; None where it is absent."""
    values = [value for value, named in label_names.names.items() if named == name]
    counts = sum((canonical == value).sum(axis=(0, 1)) for value in values)
    return float(np.average(np.arange(len(counts)), weights=counts)) if np.any(counts) else None
