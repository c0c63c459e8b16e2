"""Images of any appearance: each part of the variation changes what it says, in its share of the images."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from knee3d.choices import APPEARANCES
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import FEMORAL, FEMUR, MEDIAL_MENISCUS
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.image_variation import (
    SHAPES,
    VARIATIONS,
    ImageVariation,
    Scanner,
    any_means,
    vary_artefacts,
    vary_scanner,
    vary_surroundings,
)
from knee3d.phantom.leg import AIR, CARTILAGE, FIRST_SHAPE, FLUID, MENISCUS, MUSCLE, PAD, SYNOVIUM
from knee3d.phantom.parametric_knee import parametric_knee

VALUE = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}
PARTS = [one.name for one in dataclasses.fields(ImageVariation)]


@cache
def a_knee() -> Volume:
    return parametric_knee((56, 52, 44), 0)


@cache
def images(part: str) -> list[np.ndarray]:
    return [simulate_image(a_knee(), seed, ImageVariation(**{part: 1.0})).array for seed in range(8)]


@cache
def dess_images() -> list[np.ndarray]:
    return [simulate_image(a_knee(), seed).array for seed in range(8)]


def ratio(image: np.ndarray, name: str, other: str) -> float:
    return image[a_knee().array == VALUE[name]].mean() / image[a_knee().array == VALUE[other]].mean()


def test_each_appearance_has_its_variation():
    assert tuple(VARIATIONS) == APPEARANCES
    assert all(getattr(VARIATIONS["dess"], part) == 0 for part in PARTS)
    assert all(0 < getattr(VARIATIONS["any"], part) < 1 for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_changes_the_images_of_its_share_and_the_same_seed_is_the_same_image(part):
    changed = [not np.array_equal(one, other) for one, other in zip(images(part), dess_images(), strict=True)]
    assert all(changed)
    half = ImageVariation(**{part: 0.5})
    some = [np.array_equal(simulate_image(a_knee(), seed, half).array, dess_images()[seed]) for seed in range(8)]
    assert 0 < sum(some) < 8
    np.testing.assert_array_equal(simulate_image(a_knee(), 3, ImageVariation(**{part: 1.0})).array, images(part)[3])


def test_any_contrast_draws_each_tissue_by_itself():
    """Marrow may be brighter or darker than cartilage; menisci stay darker."""
    seeds = [simulate_image(a_knee(), seed, ImageVariation(contrast=1)).array for seed in range(16)]
    marrow = [ratio(one, FEMUR, FEMORAL) for one in seeds]
    assert min(marrow) < 0.4
    assert max(marrow) > 1.2
    assert np.mean([ratio(one, MEDIAL_MENISCUS, FEMORAL) < 1 for one in seeds]) > 0.8


def test_fluid_is_at_least_as_bright_as_cartilage_half_of_the_time():
    means = [any_means(np.random.default_rng(seed), np.zeros(256, np.float32)) for seed in range(200)]
    share = np.mean([one[FLUID] >= one[CARTILAGE[0]] for one in means])
    assert 0.5 < share < 0.9
    assert len({float(one[CARTILAGE[0]]) for one in means}) == 200


def surroundings(seed: int, **shares: float) -> np.ndarray:
    tissue = np.full(a_knee().shape, MUSCLE, np.uint8)
    tissue[:, :2] = AIR
    return vary_surroundings(tissue, a_knee().array, a_knee().spacing_mm, seed, ImageVariation(**shares))


def test_shapes_are_of_some_kinds_and_leave_a_part_or_nothing_of_the_leg():
    found = [surroundings(seed, shapes=1) for seed in range(12)]
    kinds = [set(np.unique(one)) - {MUSCLE, AIR} for one in found]
    assert all(len(one) >= 2 and one <= set(range(FIRST_SHAPE, FIRST_SHAPE + SHAPES)) for one in kinds)
    left = [np.mean(one == MUSCLE) for one in found]
    assert min(left) == 0
    assert max(left) > 0.2


def test_fluid_and_synovium_lie_near_cartilage_and_something_takes_the_place_of_menisci():
    found = [surroundings(seed, fluid=1) for seed in range(6)]
    assert all({FLUID, SYNOVIUM} & set(np.unique(one)) for one in found)
    without = a_knee().with_array(np.where(np.isin(a_knee().array, MENISCUS), 0, a_knee().array))
    tissue = np.full(a_knee().shape, MUSCLE, np.uint8)
    filled = [
        vary_surroundings(tissue, without.array, without.spacing_mm, seed, ImageVariation(fluid=1)) for seed in range(6)
    ]
    assert all(np.isin(one, [MENISCUS[0], PAD]).any() for one in filled)
    assert not any(np.isin(one, [MENISCUS[0], PAD]).any() for one in found)


def test_a_bare_image_is_black_beyond_some_distance():
    found = surroundings(1, bare=1)
    assert (found[a_knee().array == 0] == AIR).mean() > 0.3
    assert not (found[a_knee().array > 0] == AIR).all()


def test_the_scanner_gets_more_or_less_noise_and_a_less_even_coil():
    dess = Scanner(0.12, 20)
    found = [vary_scanner(dess, seed, ImageVariation(scanner=1)) for seed in range(30)]
    assert vary_scanner(dess, 0, ImageVariation()) == dess
    assert min(one.signal_to_noise for one in found) < 15 < 25 < max(one.signal_to_noise for one in found)
    assert 0.05 <= min(one.coil for one in found) < 0.12 < max(one.coil for one in found) <= 0.35


def test_ghosts_are_weak_copies_and_folding_adds_one_end_to_the_other():
    point = np.zeros((40, 40, 40), np.float32)
    point[20, 20, 20], point[-1, -1, -1] = 1, 1
    found = []
    for seed in range(12):
        image = point.copy()
        vary_artefacts(image, seed, ImageVariation(artefacts=1))
        np.testing.assert_array_less(point - 1e-6, image)
        found.append(float(image.max()))
    assert all(one < 1.3 for one in found)


def test_labels_without_cartilage_or_bone_but_the_femur_render():
    array = np.where(a_knee().array == VALUE[FEMUR], a_knee().array, 0)
    everything = ImageVariation(**dict.fromkeys(PARTS, 1.0))
    assert np.isfinite(simulate_image(a_knee().with_array(array), 0, everything).array).all()
