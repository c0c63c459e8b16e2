"""Measure one knee: volumes, thickness and areas of each tissue and its subregions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import BONE_OF, FEMORAL, LabelScheme
from knee3d.morphometry.level_set import crop_around_tissue, tissue_level_set
from knee3d.morphometry.measurement import WHOLE, Measurement
from knee3d.morphometry.subregions import REGIONS, FemoralLandmarks, find_femoral_landmarks
from knee3d.morphometry.thickness import REACH_MM, BoneCartilageInterface, interface_on_bone, interface_without_bone
from knee3d.morphometry.volumes import partial_volumes, tissue_volumes

UNKNOWN_SHARE = 0.02
"""Of the covered area: beyond it a note says so."""
PERCENTILES = {"thickness_p5": 5, "thickness_p25": 25, "thickness_median": 50, "thickness_p75": 75, "thickness_p95": 95}


@dataclass(frozen=True, eq=False)
class KneeMeasurements:
    """What was measured.

    Attributes:
        measures: Of each tissue of the scheme and its parts.
        interfaces: Cartilage to its bone-cartilage interface with thickness.
        landmarks: Where femoral cartilage is cut into parts; None where that was not possible.
        notes: What could not be measured, or only so, in words.
    """

    measures: tuple[Measurement, ...]
    interfaces: Mapping[str, BoneCartilageInterface]
    landmarks: FemoralLandmarks | None
    notes: tuple[str, ...]


def measure_knee(
    labels: Volume, scheme: LabelScheme, side: Side, probabilities: Volume | None = None
) -> KneeMeasurements:
    """Measure a knee.

    Args:
        labels: Integer classes of the scheme, three axes in any order, on the side that the knee is of.
        scheme: What they mean.
        side: Which knee; unknown is taken as right, and a note says so.
        probabilities: (*shape, classes) of all views together, floats, or uint8, where 255 is 1; on a part of the
            labels' grid that holds all tissue. None measures labels alone.

    Raises:
        ValueError: The labels are not of the scheme, or the probabilities are not on a part of their grid.
    """
    notes: list[str] = []
    labels = to_canonical(labels, side)  # so that the order of axes and the side change no number
    probabilities = probabilities and to_canonical(probabilities, side)
    present = [name for number, name in enumerate(scheme.names, start=1) if (labels.array == number).any()]
    landmarks = _landmarks(labels, scheme, side, notes) if FEMORAL in present else None
    interfaces: dict[str, BoneCartilageInterface] = {}
    for name in present:
        if name in BONE_OF:
            interface = _interface(labels, scheme, name, probabilities)
            if interface is not None and interface.has_cartilage:
                interfaces[name] = interface
                notes += _unknown(name, interface)
            else:
                notes.append(f"there is too little {name}, or it lies too far from its bone, to measure its thickness")
    if any(interface.inferred for interface in interfaces.values()):
        notes.append("bones are not segmented: the bone-cartilage interface is inferred, and bare bone is not seen")
    if any("cartilage" in name for name in present) and not any(name in BONE_OF for name in present):
        notes.append("thickness needs plates of cartilage told apart; this scheme does not")
    measures = [*_volumes(labels, scheme, landmarks, probabilities)]
    for name, interface in interfaces.items():
        measures += _thickness(name, WHOLE, interface, np.ones(len(interface.points), dtype=bool))
        if landmarks is not None:
            numbers = landmarks.region(name, interface.points) if name in REGIONS else np.empty(0)
            for number, region in enumerate(REGIONS.get(name, ())):
                measures += _thickness(name, region, interface, numbers == number)
    if side is Side.LEFT:
        interfaces = {name: interface.mirrored() for name, interface in interfaces.items()}
        landmarks = landmarks and landmarks.mirrored()
    return KneeMeasurements(tuple(measures), interfaces, landmarks, tuple(notes))


def thickness_map(labels: Volume, scheme: LabelScheme, interfaces: Mapping[str, BoneCartilageInterface]) -> Volume:
    """Thickness as an overlay: each voxel of cartilage has that of the nearest covered place of its interface.

    Returns:
        float32 in mm on the labels' grid; 0 elsewhere.
    """
    array = np.zeros(labels.shape, dtype=np.float32)
    for name, interface in interfaces.items():
        covered = interface.thickness_mm > 0
        index = np.nonzero(labels.array == scheme.names.index(name) + 1)
        if covered.any():
            _, nearest = KDTree(interface.points[covered]).query(_points(labels, index), workers=-1)
            array[index] = interface.thickness_mm[covered][nearest]
    return labels.with_array(array)


def _landmarks(labels: Volume, scheme: LabelScheme, side: Side, notes: list[str]) -> FemoralLandmarks | None:
    if side is Side.UNKNOWN:
        notes.append(
            "the side is not known and taken as right: medial and lateral are the other way round in a left knee"
        )
    try:
        landmarks = find_femoral_landmarks(labels.with_array(labels.array == scheme.names.index(FEMORAL) + 1))
    except ValueError as error:
        notes.append(f"no parts of cartilage: {error}")
        return None
    if not landmarks.own_axes:
        notes.append(
            "parts of cartilage are cut along the axes of the image: femoral cartilage does not tell those of the knee"
        )
    return landmarks


def _interface(
    labels: Volume, scheme: LabelScheme, name: str, probabilities: Volume | None
) -> BoneCartilageInterface | None:
    """Of a plate; None where it is so small that its field is nowhere 0.5."""
    tissue, bone = (scheme.names.index(one) + 1 if one in scheme.names else 0 for one in (name, BONE_OF[name]))
    part, known = crop_around_tissue(labels, tissue, probabilities)
    cartilage = tissue_level_set(part, tissue, known)
    if not (cartilage.array >= 0.5).any():
        return None
    if bone and (part.array == bone).any():
        return interface_on_bone(cartilage, tissue_level_set(part, bone, known))
    return interface_without_bone(cartilage, name)


def _unknown(name: str, interface: BoneCartilageInterface) -> list[str]:
    """A note where the thickness of much cartilage is not known."""
    areas, values = interface.areas_mm2, interface.thickness_mm
    covered = float(areas[values != 0].sum())
    share = float(areas[np.isnan(values)].sum()) / covered if covered else 0.0
    if share <= UNKNOWN_SHARE:
        return []
    return [
        f"{name}: of {share:.0%} of its area the thickness is not known, as it is thicker than {REACH_MM:g} mm or bent"
    ]


def _points(labels: Volume, index: tuple[np.ndarray, ...]) -> np.ndarray:
    """(n, 3) RAS mm of voxels."""
    return np.stack(index, axis=-1) @ labels.affine[:3, :3].T + labels.affine[:3, 3]


def _volumes(
    labels: Volume, scheme: LabelScheme, landmarks: FemoralLandmarks | None, probabilities: Volume | None
) -> Iterator[Measurement]:
    hard = tissue_volumes(labels, scheme)
    soft = np.full(len(hard), np.nan) if probabilities is None else partial_volumes(labels, probabilities)
    for number, name in enumerate(scheme.names, start=1):
        yield Measurement(name, WHOLE, "volume", float(hard[number - 1]))
        if probabilities is not None:
            yield Measurement(name, WHOLE, "partial_volume", float(soft[number - 1]))
        if landmarks is not None and name in REGIONS:
            numbers = landmarks.region(name, _points(labels, np.nonzero(labels.array == number)))
            counts = np.bincount(numbers, minlength=len(REGIONS[name]))
            for region, count in zip(REGIONS[name], counts.tolist(), strict=True):
                yield Measurement(name, region, "volume", count * labels.voxel_mm3)


def _thickness(tissue: str, region: str, interface: BoneCartilageInterface, some: np.ndarray) -> Iterator[Measurement]:
    """Of the part of an interface that some corners make."""
    values, areas = interface.thickness_mm, interface.areas_mm2
    known, unknown = some & (values > 0), some & np.isnan(values)
    area, covered = float(areas[known].sum()), float(areas[known | unknown].sum())
    bone = float(areas[some & interface.within].sum())
    mean = float(np.average(values[known], weights=areas[known])) if area else np.nan
    spread = float(np.sqrt(np.average((values[known] - mean) ** 2, weights=areas[known]))) if area else np.nan
    found = {"thickness_mean": mean, "thickness_sd": spread, "covered_area": covered}
    found |= {name: _percentile(values[known], areas[known], share) for name, share in PERCENTILES.items()}
    if not interface.inferred:
        found["thickness_mean_tab"] = mean * covered / bone if area else np.nan
        found |= {"subchondral_area": bone, "denuded_share": 100 * (1 - covered / bone) if bone else np.nan}
    for name, value in found.items():
        yield Measurement(tissue, region, name, value)


def _percentile(values: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """Of values weighted by area; NaN of none."""
    if not values.size:
        return float("nan")
    order = np.argsort(values)
    middles = np.cumsum(areas[order]) - areas[order] / 2
    return float(np.interp(percent / 100 * areas.sum(), middles, values[order]))
