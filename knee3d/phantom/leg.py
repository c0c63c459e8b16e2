"""Where the tissues of a leg lie around labelled bones: muscle, fat, tendons, fluid and skin.

They are made up from smooth fields in millimetres about the bones.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import (
    FEMORAL,
    FEMUR,
    FIBULA,
    LATERAL_MENISCUS,
    LATERAL_TIBIAL,
    MEDIAL_MENISCUS,
    MEDIAL_TIBIAL,
    PATELLA,
    PATELLAR,
    TIBIA,
)
from knee3d.phantom.smooth_noise import smooth_noise

VALUES = LABEL_NAMES["pymskt"].values
CARTILAGE = tuple(VALUES[name] for name in (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR))
BONE = tuple(VALUES[name] for name in (FEMUR, TIBIA, PATELLA, FIBULA))
MENISCUS = tuple(VALUES[name] for name in (MEDIAL_MENISCUS, LATERAL_MENISCUS))
AIR, MUSCLE, FAT, PAD, FLUID, TENDON, SKIN, CORTEX, SYNOVIUM, FIRST_SHAPE = range(100, 110)
"""Tissues beyond the labels, in one numbering with them; shapes of no tissue in particular follow."""


def leg_tissues(labels: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 tissue around the bones on a coarse grid."""
    down, back, left = np.meshgrid(
        *[np.arange(n) * mm for n, mm in zip(labels.shape, spacing, strict=True)], indexing="ij", sparse=True
    )
    bone = np.isin(labels, BONE)
    box = [
        [edge * mm for edge in (np.flatnonzero(bone.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]])]
        for axis, mm in enumerate(spacing)
    ]
    (_, _), (front, rear), (right, far_left) = box
    joint = _joint_line(labels, spacing)
    noise = {mm: smooth_noise(labels.shape, spacing, mm, rng) for mm in (6, 14, 30)}

    above = (joint - down) / 60
    start, end = front - rng.uniform(7, 11), rear + rng.uniform(26, 34)
    middle, half = (start + end) / 2, (end - start) / 2
    centre, width = (right + far_left) / 2, (far_left - right) / 2 + rng.uniform(12, 20)
    width = width * (1 + 0.10 * above)
    ratio = (np.abs((back - middle) / half) ** 2.3 + np.abs((left - centre) / width) ** 2.3) ** (1 / 2.3)
    depth = (1 - ratio - 0.02 * noise[30]) * np.minimum(half, width)

    away = ndimage.distance_transform_edt(~bone, sampling=spacing)
    fat_mm = rng.uniform(5, 9) + 3 * noise[30]
    tissue = np.full(labels.shape, MUSCLE, dtype=np.uint8)
    bundles = np.sin((back + 4 * noise[14]) / 6.5) * np.sin((left + 4 * noise[30]) / 8)
    tissue[(np.abs(bundles) < 0.12) | (noise[14] > 1.3)] = FAT
    place = (down, back, left)
    tissue[_blob(place, (joint - 12, rear + 6, centre), (36, 17, 26), 0.25 * noise[14])] = FAT
    capsule = (away < 6 + 2 * noise[14]) & _blob(
        place, (joint - 10, (front + rear) / 2, centre), (42, 60, 60), 0.1 * noise[14]
    )
    tissue[capsule] = PAD
    patella = np.argwhere(labels == VALUES[PATELLA]) * spacing
    if len(patella):
        tissue = _front(tissue, patella, place, joint, noise)
    tissue[capsule & (away < 4.5) & (noise[14] > 0.9)] = FLUID
    tissue[depth < fat_mm] = FAT
    tissue[depth < 2] = SKIN
    tissue[depth < 0] = AIR
    return tissue


def _front(
    tissue: np.ndarray,
    patella: np.ndarray,
    place: tuple[np.ndarray, ...],
    joint: float,
    noise: Mapping[int, np.ndarray],
) -> np.ndarray:
    """Hoffa's fat pad below the patella, the tendons above and below it, fluid in the pouch above."""
    down, back, left = place
    top, bottom = patella[:, 0].min(), patella[:, 0].max()
    front, rear, centre = patella[:, 1].min(), patella[:, 1].max(), patella[:, 2].mean()
    tissue = tissue.copy()
    depth = (front + rear) / 2 + 12
    tissue[_blob(place, ((bottom + joint) / 2 + 6, depth, centre), (24, 16, 27), 0.15 * noise[14])] = PAD
    behind = np.abs(back - rear - 3 - 2 * noise[14]) < 2.2
    pouch = behind & _blob(place, (top - 11, rear + 3, centre), (15, 60, 20), 0.2 * noise[14])
    tissue[pouch] = FLUID
    lean = np.clip((down - bottom) / 40, 0, 1)
    line = front + 4 + 3 * lean
    below = (down > bottom - 4) & (down < joint + 34) & (np.abs(back - line) < 2.8) & (np.abs(left - centre - 4) < 13)
    above = (down < top + 4) & (np.abs(back - front - 6 - 0.12 * (top - down)) < 3.2) & (np.abs(left - centre) < 16)
    tissue[below | above] = TENDON
    return tissue


def _blob(
    place: tuple[np.ndarray, ...], centre: tuple[float, ...], radii: tuple[float, ...], wobble: np.ndarray
) -> np.ndarray:
    """Bool: an ellipsoid with an uneven surface."""
    return np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(place, centre, radii, strict=True))) + wobble < 1


def _joint_line(labels: np.ndarray, spacing: np.ndarray) -> float:
    """Depth in mm of the lower end of the femur."""
    return float(np.flatnonzero((labels == VALUES[FEMUR]).any(axis=(1, 2)))[-1] * spacing[0])
