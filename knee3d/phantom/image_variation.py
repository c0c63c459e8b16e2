"""Vary how a knee may look in a scan: the contrast of tissues, what lies around the joint, cartilage, bones, scanners.

A network that is to know cartilage in scans of any sequence must not know it by its brightness. As in SynthSeg, which
does this for the brain, each tissue has an intensity drawn by itself from a wide range, and the images have the faults
of scanners (Billot et al., Medical Image Analysis 86, 102789, 2023). Shapes of no tissue in particular stand for what
no model of a leg has (Hoffmann et al., SynthMorph, IEEE Transactions on Medical Imaging 41, 543, 2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from knee3d.geometry.box import bounding_box
from knee3d.geometry.volume import Volume
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
)
from knee3d.phantom.smooth_noise import magnified, smooth_noise

RANGES = {CORTEX: (10, 110), TENDON: (10, 160), SKIN: (40, 640), MUSCLE: (60, 560), FAT: (40, 640)}
"""Intensities of any contrast. Cortex and tendons are dark in every sequence: their signal decays within some ms."""
CARTILAGE_RANGE, MENISCUS_RANGE, SHAPE_RANGE = (150, 600), (20, 200), (10, 640)
SHAPES = 9
"""The largest number of kinds of shapes in an image."""
WORKING_MM = 0.7
"""The distance of the samples of depths in cartilage."""


@dataclass(frozen=True)
class ImageVariation:
    """In which share of the images, from 0 to 1, something differs from a scan of the leg with the contrast of DESS.

    Attributes:
        contrast: Each tissue has an intensity drawn by itself.
        fluid: The film between plates of cartilage is thinner or thicker, there is an effusion and synovium beside
            cartilage, and a joint whose labels have no menisci gets some tissue in their place.
        shapes: Random shapes of a few kinds take the place of the leg, in parts or everywhere.
        bare: The image is black beyond some distance from the labels.
        layers: Cartilage has layers by its depth, and brighter and darker places.
        lesions: Bones have brighter or darker lesions.
        scanner: The coil is less even than in DESS, and noise is weaker or stronger.
        artefacts: There are ghosts of motion, or one end of the image is folded over the other.
    """

    contrast: float = 0.0
    fluid: float = 0.0
    shapes: float = 0.0
    bare: float = 0.0
    layers: float = 0.0
    lesions: float = 0.0
    scanner: float = 0.0
    artefacts: float = 0.0

    def random(self, part: str, seed: int) -> np.random.Generator | None:
        """The random numbers of a part of an image; None where this part of this image is as in DESS.

        Args:
            part: The name of the attribute.
            seed: The seed of the image.
        """
        rng = np.random.default_rng([seed, *part.encode()])
        return rng if rng.random() < getattr(self, part) else None


VARIATIONS: Mapping[str, ImageVariation] = MappingProxyType({
    "dess": ImageVariation(),
    "any": ImageVariation(
        contrast=0.7, fluid=0.7, shapes=0.25, bare=0.06, layers=0.8, lesions=0.4, scanner=0.7, artefacts=0.2
    ),
})  # fmt: skip
"""The variation of each of `choices.APPEARANCES`."""


def any_means(rng: np.random.Generator, means: np.ndarray) -> np.ndarray:
    """(256,) float32: the mean of each tissue in an image of any contrast.

    Args:
        rng: Of the contrast.
        means: Those with the contrast of DESS.
    """
    means = means.copy()
    for value, (low, high) in RANGES.items():
        means[value] = rng.uniform(low, high)
    means[list(CARTILAGE)] = cartilage = rng.uniform(*CARTILAGE_RANGE)
    means[list(MENISCUS)] = rng.uniform(*MENISCUS_RANGE)
    means[PAD] = means[FAT] * rng.uniform(0.8, 1.3)
    # Marrow is mostly fat, but iron and red marrow darken it, and fat suppression is uneven.
    means[list(BONE)] = means[FAT] * rng.uniform(0.6, 1.2) if rng.random() < 0.6 else rng.uniform(30, 600)
    means[FLUID] = cartilage * rng.uniform(1, 2) if rng.random() < 0.5 else rng.uniform(40, 640)
    means[SYNOVIUM] = cartilage * rng.uniform(0.5, 1.3)
    means[FIRST_SHAPE : FIRST_SHAPE + SHAPES] = rng.uniform(*SHAPE_RANGE, SHAPES)
    return means


def vary_surroundings(
    tissue: np.ndarray, labels: np.ndarray, spacing: np.ndarray, seed: int, variation: ImageVariation
) -> np.ndarray:
    """uint8 tissue around the bones: shapes, fluid and synovium, and black beyond some distance.

    Args:
        tissue: The tissue of a leg, on a coarse grid.
        labels: Labels in pymskt numbering on the same grid.
        spacing: (3,) its voxel size in mm.
        seed: The seed of the image.
        variation: In which share of the images something differs.
    """
    if rng := variation.random("shapes", seed):
        tissue = _with_shapes(tissue, spacing, rng)
    if rng := variation.random("fluid", seed):
        tissue = _with_fluid(tissue, labels, spacing, rng)
    if rng := variation.random("bare", seed):
        away = ndimage.distance_transform_edt(labels == 0, sampling=spacing)
        tissue = np.where(away > rng.uniform(1, 25), np.uint8(AIR), tissue)
    return tissue


def _with_shapes(tissue: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kinds = rng.integers(3, SHAPES + 1)
    best, found = np.full(tissue.shape, -np.inf, np.float32), np.zeros(tissue.shape, np.uint8)
    for kind in range(kinds):
        field = smooth_noise(tissue.shape, spacing, np.exp(rng.uniform(np.log(6), np.log(30))), rng)
        found[field > best], best = FIRST_SHAPE + kind, np.maximum(field, best)
    where = np.ones(tissue.shape, bool)
    if rng.random() < 0.5:
        where &= smooth_noise(tissue.shape, spacing, 25, rng) > rng.uniform(-0.7, 0.7)
    if rng.random() < 0.5:
        where &= tissue != AIR
    return np.where(where, found, tissue)


def _with_fluid(tissue: np.ndarray, labels: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An effusion, synovium near cartilage; where labels have no menisci, some tissue between femur and tibia."""
    tissue = tissue.copy()
    away = ndimage.distance_transform_edt(~np.isin(labels, CARTILAGE), sampling=spacing)
    for kind, reach in ((SYNOVIUM, rng.uniform(2, 7)), (FLUID, rng.uniform(1, 9))):
        pockets = smooth_noise(tissue.shape, spacing, rng.uniform(5, 14), rng)
        tissue[(away < reach) & (pockets > rng.uniform(0.1, 1.6))] = kind
    if not np.isin(labels, MENISCUS).any():
        femur, tibia = (
            ndimage.distance_transform_edt(~np.isin(labels, values), sampling=spacing)
            for values in ((CARTILAGE[0], BONE[0]), (*CARTILAGE[1:3], BONE[1]))
        )
        between = (femur + tibia < rng.uniform(7, 13)) & (tissue != FLUID)
        where = between & (smooth_noise(tissue.shape, spacing, 8, rng) > rng.uniform(-1, 0.5))
        tissue[where] = rng.choice([MENISCUS[0], MENISCUS[0], PAD])
    return tissue


def vary_signal(image: np.ndarray, labels: Volume, seed: int, variation: ImageVariation) -> None:
    """Give cartilage layers, and bones lesions, in place.

    Args:
        image: (i, j, k) float32, an image before the faults of the scanner.
        labels: Labels in pymskt numbering on its grid.
        seed: The seed of the image.
        variation: In which share of the images something differs.
    """
    if rng := variation.random("layers", seed):
        inside = np.isin(labels.array, CARTILAGE)
        box = bounding_box(inside, np.ceil(8 / labels.spacing_mm).astype(int))
        if box is not None:
            part = labels.part(box)
            factors = _layers(part, rng) * (1 + 0.12 * smooth_noise(part.shape, part.spacing_mm, 5, rng))
            image[box][inside[box]] *= factors[inside[box]].clip(0.3, 2)
    if rng := variation.random("lesions", seed):
        field = smooth_noise(image.shape, labels.spacing_mm, rng.uniform(6, 16), rng)
        strength = rng.uniform(0.3, 2.0) * rng.choice([1, 1, -0.5])
        share = np.clip((field - rng.uniform(1.3, 2.2)) * 3, 0, 1) * np.isin(labels.array, BONE)
        image *= np.maximum(1 + strength * share, 0.2).astype(np.float32)


def _layers(labels: Volume, rng: np.random.Generator) -> np.ndarray:
    """(i, j, k) float32 factors by the distance from bone, which mean 1 about 1.2 mm above it."""
    steps = np.maximum(1, np.rint(WORKING_MM / labels.spacing_mm)).astype(int)
    bone = np.isin(labels.array[:: steps[0], :: steps[1], :: steps[2]], BONE)
    if not bone.any():
        return np.ones(labels.shape, np.float32)
    depth = ndimage.distance_transform_edt(~bone, sampling=labels.spacing_mm * steps)
    factors = np.interp(depth, [0.4, 1.2, 2.2, 3.5], [rng.uniform(0.55, 1.1), 1, *rng.uniform(0.8, 1.25, 2)])
    return magnified(factors.astype(np.float32), labels.shape)


@dataclass(frozen=True)
class Scanner:
    """The faults of a scanner.

    Attributes:
        coil: The standard deviation of the natural logarithm of the sensitivity.
        signal_to_noise: The mean of cartilage in DESS over the standard deviation of noise in each channel.
    """

    coil: float
    signal_to_noise: float


def vary_scanner(scanner: Scanner, seed: int, variation: ImageVariation) -> Scanner:
    """The scanner of an image, from the one that it has with the appearance of DESS."""
    rng = variation.random("scanner", seed)
    return scanner if rng is None else Scanner(rng.uniform(0.05, 0.35), scanner.signal_to_noise * rng.uniform(0.4, 2.5))


def vary_artefacts(image: np.ndarray, seed: int, variation: ImageVariation) -> None:
    """Add ghosts of motion along an axis, or fold one end of the image over the other, in place."""
    rng = variation.random("artefacts", seed)
    if rng is None:
        return
    ahead = np.moveaxis(image, int(rng.integers(3)), 0)
    if rng.random() < 0.5:
        shift = int(len(ahead) * rng.uniform(0.1, 0.5))
        ahead += np.float32(rng.uniform(0.02, 0.1)) * (np.roll(ahead, shift, 0) + np.roll(ahead, -shift, 0))
    else:
        width = max(1, int(len(ahead) * rng.uniform(0.03, 0.15)))
        share = np.linspace(rng.uniform(0.3, 1), 0, width, dtype=np.float32)[:, None, None]
        ahead[:width] += share * ahead[-width:]
