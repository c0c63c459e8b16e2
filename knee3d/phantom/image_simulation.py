"""Render an MR image from a label map: with the contrast of DESS, or with any contrast.

Water-excited sagittal 3D DESS: marrow dark, cortical bone, menisci and tendons black, muscle grey, fat dark grey,
cartilage bright and fluid brightest. What the label map does not hold, the leg around the joint, is made up from smooth
fields in millimetres about the bones; all of it varies by seed.

A network that is to know cartilage in scans of any sequence is shown each tissue with an intensity drawn by itself from
a wide range, as SynthSeg does for the brain (Billot et al., Medical Image Analysis 86, 102789, 2023).
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from knee3d.choices import APPEARANCES, check_choice
from knee3d.geometry.volume import Volume
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

_VALUE = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}
_CARTILAGE = tuple(_VALUE[name] for name in (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR))
_BONE = tuple(_VALUE[name] for name in (FEMUR, TIBIA, PATELLA, FIBULA))
_MENISCUS = tuple(_VALUE[name] for name in (MEDIAL_MENISCUS, LATERAL_MENISCUS))
# What is painted besides the labels.
_AIR, _MUSCLE, _FAT, _PAD, _FLUID, _TENDON, _SKIN, _CORTEX = range(100, 108)
# Mean intensity and relative strength of the texture. After OAI DESS, in its order of brightness.
_LOOK = {
    _AIR: (0, 0), _CORTEX: (40, 0.2), _TENDON: (45, 0.2), _FAT: (120, 0.12), _PAD: (150, 0.2), _MUSCLE: (235, 0.10),
    _SKIN: (260, 0.1), _FLUID: (640, 0.05), **dict.fromkeys(_BONE, (105, 0.16)), **dict.fromkeys(_MENISCUS, (75, 0.15)),
    **dict.fromkeys(_CARTILAGE, (420, 0.07)),
}  # fmt: skip
_COARSE_MM = 1.5
_MEAN_SPREAD = 0.10
_DESS_SHARE = 0.3
"""The share of images of any contrast that have that of DESS all the same."""
_RANGES = {_CORTEX: (10, 110), _TENDON: (10, 160), _SKIN: (40, 640), _MUSCLE: (60, 560), _FAT: (40, 640)}
"""Intensities of any contrast. Cortex and tendons are dark in every sequence: their signal decays within some ms."""
_CARTILAGE_RANGE, _MENISCUS_RANGE = (150, 600), (20, 200)


def simulate_image(labels: Volume, seed: int, appearance: str = APPEARANCES[0]) -> Volume:
    """An MR image of a labelled knee.

    Args:
        labels: Integers in pymskt numbering, canonical axes. Fibula, menisci and any cartilage may be absent.
        seed: Of intensities, leg, texture, coil and noise.
        appearance: "dess": the contrast of water-excited DESS, which varies a little. "any": in seven images of ten the
            intensity of each tissue is drawn by itself, so that marrow, fat and muscle may be brighter or darker than
            cartilage; fluid is at least as bright as cartilage in half of them.

    Returns:
        int16 on the same grid, arbitrary units; with the contrast of DESS about 100 in marrow and 420 in cartilage.

    Raises:
        ValueError: The labels have no femur, or a value without a name, or there is no such appearance.
    """
    check_choice("appearance", appearance, APPEARANCES)
    _check(labels)
    rng = np.random.default_rng(seed)
    leg = _leg(*_coarse(labels), rng)
    joint = _joint(labels, rng)
    means = _dess_means(rng) if appearance == APPEARANCES[0] else _any_means(np.random.default_rng([seed, 1]), rng)
    image = _painted(joint, leg, means, labels.spacing_mm, rng)
    blur = np.clip(rng.uniform(0.5, 0.7, 3) * np.min(labels.spacing_mm) / labels.spacing_mm, 0.35, 0.7)
    image = ndimage.gaussian_filter(image, blur)
    image *= np.exp(0.12 * _smooth_noise(image.shape, labels.spacing_mm, 60, rng))
    sigma = np.float32(_LOOK[_CARTILAGE[0]][0] / rng.uniform(16, 30))
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return labels.with_array(np.rint(np.hypot(real, imaginary)).astype(np.int16))


def _check(labels: Volume) -> None:
    unknown = sorted(set(np.unique(labels.array).tolist()) - {0, *_VALUE.values()})
    if unknown:
        raise ValueError(f"label values {unknown[:10]} are not pymskt's: {dict(LABEL_NAMES['pymskt'].names)}")
    if not (labels.array == _VALUE[FEMUR]).any():
        raise ValueError("there is no femur (5) in the label map: an image cannot be made up around nothing")


def _coarse(labels: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Every few labels, and their distances in mm: fine enough for a leg, which is drawn again at full size later."""
    stride = np.maximum(1, np.floor(_COARSE_MM / labels.spacing_mm)).astype(int)
    return labels.array[tuple(slice(step // 2, None, step) for step in stride)], labels.spacing_mm * stride


def _joint(labels: Volume, rng: np.random.Generator) -> np.ndarray:
    """uint8 tissue of every voxel that the labels tell of: themselves, cortex and the fluid between; 0 elsewhere."""
    spacing = labels.spacing_mm
    tissue = np.where(_film(labels.array, spacing), np.uint8(_FLUID), labels.array.astype(np.uint8))
    bone = np.isin(labels.array, _BONE)
    reach = np.maximum(1, np.rint(0.8 / spacing)).astype(int)
    rim = bone & ~ndimage.minimum_filter(bone, 1 + 2 * reach)
    thin = rim & (_smooth_noise(labels.shape, spacing, 8, rng) > -0.3)
    tissue[thin] = _CORTEX
    return tissue


def _film(labels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Bool: the slit between two plates of cartilage, which holds fluid."""
    reach = np.maximum(1, np.rint(2.2 / spacing)).astype(int)
    size = 1 + 2 * reach
    plates = [np.isin(labels, values) for values in ((_VALUE[FEMORAL],), _CARTILAGE[1:])]
    near = [ndimage.maximum_filter(plate, size) for plate in plates]
    return near[0] & near[1] & (labels == 0)


def _leg(labels: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 tissue around the bones on a coarse grid."""
    down, back, left = np.meshgrid(
        *[np.arange(n) * mm for n, mm in zip(labels.shape, spacing, strict=True)], indexing="ij", sparse=True
    )
    bone = np.isin(labels, _BONE)
    box = [
        [edge * mm for edge in (np.flatnonzero(bone.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]])]
        for axis, mm in enumerate(spacing)
    ]
    (_, _), (front, rear), (right, far_left) = box
    joint = _joint_line(labels, spacing)
    noise = {mm: _smooth_noise(labels.shape, spacing, mm, rng) for mm in (6, 14, 30)}

    above = (joint - down) / 60
    start, end = front - rng.uniform(7, 11), rear + rng.uniform(26, 34)
    middle, half = (start + end) / 2, (end - start) / 2
    centre, width = (right + far_left) / 2, (far_left - right) / 2 + rng.uniform(12, 20)
    width = width * (1 + 0.10 * above)
    ratio = (np.abs((back - middle) / half) ** 2.3 + np.abs((left - centre) / width) ** 2.3) ** (1 / 2.3)
    depth = (1 - ratio - 0.02 * noise[30]) * np.minimum(half, width)

    away = ndimage.distance_transform_edt(~bone, sampling=spacing)
    fat_mm = rng.uniform(5, 9) + 3 * noise[30]
    tissue = np.full(labels.shape, _MUSCLE, dtype=np.uint8)
    bundles = np.sin((back + 4 * noise[14]) / 6.5) * np.sin((left + 4 * noise[30]) / 8)
    tissue[(np.abs(bundles) < 0.12) | (noise[14] > 1.3)] = _FAT
    place = (down, back, left)
    tissue[_blob(place, (joint - 12, rear + 6, centre), (36, 17, 26), 0.25 * noise[14])] = _FAT
    capsule = (away < 6 + 2 * noise[14]) & _blob(
        place, (joint - 10, (front + rear) / 2, centre), (42, 60, 60), 0.1 * noise[14]
    )
    tissue[capsule] = _PAD
    patella = np.argwhere(labels == _VALUE[PATELLA]) * spacing
    if len(patella):
        tissue = _front(tissue, patella, place, joint, noise)
    tissue[capsule & (away < 4.5) & (noise[14] > 0.9)] = _FLUID
    tissue[depth < fat_mm] = _FAT
    tissue[depth < 2] = _SKIN
    tissue[depth < 0] = _AIR
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
    tissue[_blob(place, ((bottom + joint) / 2 + 6, depth, centre), (24, 16, 27), 0.15 * noise[14])] = _PAD
    behind = np.abs(back - rear - 3 - 2 * noise[14]) < 2.2
    pouch = behind & _blob(place, (top - 11, rear + 3, centre), (15, 60, 20), 0.2 * noise[14])
    tissue[pouch] = _FLUID
    lean = np.clip((down - bottom) / 40, 0, 1)
    line = front + 4 + 3 * lean
    below = (down > bottom - 4) & (down < joint + 34) & (np.abs(back - line) < 2.8) & (np.abs(left - centre - 4) < 13)
    above = (down < top + 4) & (np.abs(back - front - 6 - 0.12 * (top - down)) < 3.2) & (np.abs(left - centre) < 16)
    tissue[below | above] = _TENDON
    return tissue


def _blob(
    place: tuple[np.ndarray, ...], centre: tuple[float, ...], radii: tuple[float, ...], wobble: np.ndarray
) -> np.ndarray:
    """Bool: an ellipsoid with an uneven surface."""
    return np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(place, centre, radii, strict=True))) + wobble < 1


def _joint_line(labels: np.ndarray, spacing: np.ndarray) -> float:
    """Depth in mm of the lower end of the femur."""
    return float(np.flatnonzero((labels == _VALUE[FEMUR]).any(axis=(1, 2)))[-1] * spacing[0])


def _dess_means(rng: np.random.Generator) -> np.ndarray:
    """(256,) float32: the mean of each tissue in a DESS image."""
    means = np.zeros(256, dtype=np.float32)
    drawn = {
        value: 1 + _MEAN_SPREAD * rng.uniform(-1, 1) for value in (_MUSCLE, _FAT, _PAD, _FLUID, _BONE[0], _CARTILAGE[0])
    }
    for value, (mean, _) in _LOOK.items():
        kin = _BONE[0] if value in _BONE else _CARTILAGE[0] if value in _CARTILAGE else value
        means[value] = mean * drawn.get(kin, 1.0)
    return means


def _any_means(rng: np.random.Generator, dess: np.random.Generator) -> np.ndarray:
    """(256,) float32: the mean of each tissue in an image of any contrast.

    Args:
        rng: Of the contrast.
        dess: Of images that have the contrast of DESS all the same.
    """
    means = _dess_means(dess)
    if rng.random() < _DESS_SHARE:
        return means
    for value, (low, high) in _RANGES.items():
        means[value] = rng.uniform(low, high)
    means[list(_CARTILAGE)] = cartilage = rng.uniform(*_CARTILAGE_RANGE)
    means[list(_MENISCUS)] = rng.uniform(*_MENISCUS_RANGE)
    means[_PAD] = means[_FAT] * rng.uniform(0.8, 1.3)
    # Marrow is mostly fat, but iron and red marrow darken it, and fat suppression is uneven.
    means[list(_BONE)] = means[_FAT] * rng.uniform(0.6, 1.2) if rng.random() < 0.6 else rng.uniform(30, 600)
    means[_FLUID] = cartilage * rng.uniform(1, 2) if rng.random() < 0.5 else rng.uniform(40, 640)
    return means


def _painted(
    joint: np.ndarray, leg: np.ndarray, means: np.ndarray, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """float32 intensities with texture: `joint` where it is not 0, and elsewhere `leg`, magnified to its size."""
    texture = np.zeros(256, dtype=np.float32)
    for value, (_, strength) in _LOOK.items():
        texture[value] = strength
    fine, coarse = (_smooth_noise(joint.shape, spacing, mm, rng) for mm in (2, 9))
    fine *= np.float32(0.8)
    coarse *= np.float32(0.6)
    fine += coarse
    outside = joint == 0
    fine *= np.where(outside, _magnified(texture[leg], joint.shape), texture[joint])
    fine += 1
    fine *= np.where(outside, _magnified(means[leg], joint.shape), means[joint])
    return fine


def _magnified(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation between the centres of voxels that fill the same space, the outermost repeated."""
    for axis, (n, m) in enumerate(zip(shape, coarse.shape, strict=True)):
        if n != m:
            position = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
            coarse = _between(coarse, position, axis)
    return coarse


def _between(knots: np.ndarray, position: np.ndarray, axis: int, smooth: bool = False) -> np.ndarray:
    """Values at `position` along an axis, between the knots on either side; `smooth` leaves no kinks at the knots."""
    low = position.astype(int)
    part = (position - low).astype(np.float32)
    if smooth:
        part = part * part * (3 - 2 * part)
    part = part.reshape([-1 if other == axis else 1 for other in range(knots.ndim)])
    high = np.minimum(low + 1, knots.shape[axis] - 1)
    return np.take(knots, low, axis) * (1 - part) + np.take(knots, high, axis) * part


def _smooth_noise(
    shape: tuple[int, ...], spacing: np.ndarray, length_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """float32 field of about zero mean and unit deviation that varies over `length_mm`."""
    knots = [max(2, int(np.ceil(n * mm / length_mm)) + 3) for n, mm in zip(shape, spacing, strict=True)]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, mm) in enumerate(zip(shape, spacing, strict=True)):
        field = _between(field, np.minimum(np.arange(n) * mm / length_mm, knots[axis] - 2), axis, smooth=True)
    return field / max(float(field.std()), 1e-6)
