"""Render an MR image from a label map: with the contrast of DESS, or with any contrast.

Water-excited sagittal 3D DESS: marrow dark, cortical bone, menisci and tendons black, muscle grey, fat dark grey,
cartilage bright and fluid brightest. What the label map does not hold is made up by `leg`. `image_variation` says what
differs in images of any appearance.
"""

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import FEMUR
from knee3d.phantom.image_variation import (
    VARIATIONS,
    ImageVariation,
    Scanner,
    any_means,
    vary_artefacts,
    vary_scanner,
    vary_signal,
    vary_surroundings,
)
from knee3d.phantom.leg import (
    AIR,
    BONE,
    CARTILAGE,
    CORTEX,
    FAT,
    FIRST_SHAPE,
    FLUID,
    MENISCUS,
    MUSCLE,
    PAD,
    SKIN,
    SYNOVIUM,
    TENDON,
    VALUES,
    leg_tissues,
)
from knee3d.phantom.smooth_noise import magnified, smooth_noise

# Mean intensity and relative strength of the texture. After OAI DESS, in its order of brightness.
_LOOK = {
    AIR: (0, 0), CORTEX: (40, 0.2), TENDON: (45, 0.2), FAT: (120, 0.12), PAD: (150, 0.2), MUSCLE: (235, 0.10),
    SKIN: (260, 0.1), FLUID: (640, 0.05), **dict.fromkeys(BONE, (105, 0.16)), **dict.fromkeys(MENISCUS, (75, 0.15)),
    **dict.fromkeys(CARTILAGE, (420, 0.07)), SYNOVIUM: (380, 0.1),
    **{value: (mean, 0.12) for value, mean in enumerate((60, 120, 150, 200, 240, 300, 380, 450, 550), FIRST_SHAPE)},
}  # fmt: skip
_COARSE_MM = 1.5
_MEAN_SPREAD = 0.10
_FILM_MM = 2.2


def simulate_image(labels: Volume, seed: int, variation: ImageVariation = VARIATIONS["dess"]) -> Volume:
    """An MR image of a labelled knee.

    Args:
        labels: Integers in pymskt numbering, canonical axes. Fibula, menisci and any cartilage may be absent.
        seed: Of intensities, leg, texture, coil and noise.
        variation: In which share of the images something differs from a scan with the contrast of water-excited DESS.

    Returns:
        int16 on the same grid, arbitrary units; with the contrast of DESS about 100 in marrow and 420 in cartilage.

    Raises:
        ValueError: The labels have no femur, or a value without a name.
    """
    _check(labels)
    rng = np.random.default_rng(seed)
    coarse, coarse_mm = _coarse(labels)
    leg = vary_surroundings(leg_tissues(coarse, coarse_mm, rng), coarse, coarse_mm, seed, variation)
    joint = _joint(labels, seed, variation, rng)
    means = _dess_means(rng)
    if contrast := variation.random("contrast", seed):
        means = any_means(contrast, means)
    image = _painted(joint, leg, means, labels.spacing_mm, rng)
    vary_signal(image, labels, seed, variation)
    blur = np.clip(rng.uniform(0.5, 0.7, 3) * np.min(labels.spacing_mm) / labels.spacing_mm, 0.35, 0.7)
    image = ndimage.gaussian_filter(image, blur)
    sensitivity = smooth_noise(image.shape, labels.spacing_mm, 60, rng)
    scanner = vary_scanner(Scanner(0.12, rng.uniform(16, 30)), seed, variation)
    image *= np.exp(np.float32(scanner.coil) * sensitivity)
    vary_artefacts(image, seed, variation)
    sigma = np.float32(_LOOK[CARTILAGE[0]][0] / scanner.signal_to_noise)
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return labels.with_array(np.rint(np.hypot(real, imaginary)).astype(np.int16))


def _check(labels: Volume) -> None:
    unknown = sorted(set(np.unique(labels.array).tolist()) - {0, *VALUES.values()})
    if unknown:
        raise ValueError(f"label values {unknown[:10]} are not pymskt's: {dict(LABEL_NAMES['pymskt'].names)}")
    if not (labels.array == VALUES[FEMUR]).any():
        raise ValueError("there is no femur (5) in the label map: an image cannot be made up around nothing")


def _coarse(labels: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Every few labels, and their distances in mm: fine enough for a leg, which is drawn again at full size later."""
    stride = np.maximum(1, np.floor(_COARSE_MM / labels.spacing_mm)).astype(int)
    return labels.array[tuple(slice(step // 2, None, step) for step in stride)], labels.spacing_mm * stride


def _joint(labels: Volume, seed: int, variation: ImageVariation, rng: np.random.Generator) -> np.ndarray:
    """uint8 tissue of every voxel that the labels tell of: themselves, cortex and the fluid between; 0 elsewhere."""
    spacing = labels.spacing_mm
    fluid = variation.random("fluid", seed)
    film = _film(labels.array, spacing, _FILM_MM if fluid is None else fluid.uniform(0.5, 3.5))
    tissue = np.where(film, np.uint8(FLUID), labels.array.astype(np.uint8))
    bone = np.isin(labels.array, BONE)
    reach = np.maximum(1, np.rint(0.8 / spacing)).astype(int)
    rim = bone & ~ndimage.minimum_filter(bone, 1 + 2 * reach)
    thin = rim & (smooth_noise(labels.shape, spacing, 8, rng) > -0.3)
    tissue[thin] = CORTEX
    return tissue


def _film(labels: np.ndarray, spacing: np.ndarray, reach_mm: float) -> np.ndarray:
    """Bool: the slit between two plates of cartilage, which holds fluid, as far as both are within a distance."""
    reach = np.maximum(1, np.rint(reach_mm / spacing)).astype(int)
    size = 1 + 2 * reach
    plates = [np.isin(labels, values) for values in (CARTILAGE[:1], CARTILAGE[1:])]
    near = [ndimage.maximum_filter(plate, size) for plate in plates]
    return near[0] & near[1] & (labels == 0)


def _dess_means(rng: np.random.Generator) -> np.ndarray:
    """(256,) float32: the mean of each tissue in a DESS image."""
    means = np.zeros(256, dtype=np.float32)
    drawn = {value: 1 + _MEAN_SPREAD * rng.uniform(-1, 1) for value in (MUSCLE, FAT, PAD, FLUID, BONE[0], CARTILAGE[0])}
    for value, (mean, _) in _LOOK.items():
        kin = BONE[0] if value in BONE else CARTILAGE[0] if value in CARTILAGE else value
        means[value] = mean * drawn.get(kin, 1.0)
    return means


def _painted(
    joint: np.ndarray, leg: np.ndarray, means: np.ndarray, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """float32 intensities with texture: `joint` where it is not 0, and elsewhere `leg`, magnified to its size."""
    texture = np.zeros(256, dtype=np.float32)
    for value, (_, strength) in _LOOK.items():
        texture[value] = strength
    fine, coarse = (smooth_noise(joint.shape, spacing, mm, rng) for mm in (2, 9))
    fine *= np.float32(0.8)
    coarse *= np.float32(0.6)
    fine += coarse
    outside = joint == 0
    fine *= np.where(outside, magnified(texture[leg], joint.shape), texture[joint])
    fine += 1
    fine *= np.where(outside, magnified(means[leg], joint.shape), means[joint])
    return fine
