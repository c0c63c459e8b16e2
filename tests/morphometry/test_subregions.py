"""Cartilage is cut where a reader would cut it, in right and left knees alike."""

from functools import cache

import numpy as np
import pytest
from made_up_knees import made_up_knee
from real_knees import each_label_map
from turned import cartilage, turned

from knee3d.geometry.orientation import Side, mirror_left_right, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import FEMORAL, LATERAL_TIBIAL, MEDIAL_TIBIAL, TIBIAL
from knee3d.morphometry.femoral_axes import IntercondylarNotch
from knee3d.morphometry.subregions import REGIONS, FemoralLandmarks, find_femoral_landmarks
from knee3d.phantom.parametric_knee import parametric_knee

pytestmark = pytest.mark.slow

VALUES = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}
IPL = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1]])


def a_knee() -> Volume:
    return made_up_knee(seed=3)


@cache
def a_roomy_knee() -> Volume:
    return cartilage(parametric_knee((120, 124, 120), seed=3, field_of_view_mm=(120.0, 124.0, 120.0)))


def mask(labels: Volume, name: str) -> Volume:
    return labels.with_array(labels.array == VALUES[name])


def points(inside: Volume) -> np.ndarray:
    return np.argwhere(inside.array) @ inside.affine[:3, :3].T + inside.affine[:3, 3]


@pytest.mark.parametrize("seed", range(4))
def test_medial_is_where_the_medial_plateau_is(seed):
    labels = made_up_knee(seed)
    landmarks = find_femoral_landmarks(mask(labels, FEMORAL))
    for name, number in ((MEDIAL_TIBIAL, 0), (LATERAL_TIBIAL, 1)):
        numbers = landmarks.region(TIBIAL, points(mask(labels, name)))
        assert (numbers == number).mean() > 0.97


def test_femoral_parts_lie_as_they_are_called():
    cartilage = points(mask(a_knee(), FEMORAL))
    numbers = find_femoral_landmarks(mask(a_knee(), FEMORAL)).region(FEMORAL, cartilage)
    middles = dict(zip(REGIONS[FEMORAL], (cartilage[numbers == n].mean(axis=0) for n in range(5)), strict=True))
    for side in ("medial", "lateral"):
        anterior = middles["trochlea"][1], middles[f"central {side}"][1], middles[f"posterior {side}"][1]
        assert anterior[0] > anterior[1] > anterior[2]
        assert middles[f"central {side}"][2] < middles["trochlea"][2]  # it bears the weight, so it is lowest
    assert middles["central medial"][0] < middles["central lateral"][0]  # in a right knee medial is to the left
    assert np.bincount(numbers).min() > 0.05 * len(cartilage)


def test_landmarks_of_a_mirror_image_serve_the_left_knee():
    right = find_femoral_landmarks(mask(a_knee(), FEMORAL))
    numbers = right.region(FEMORAL, points(mask(a_knee(), FEMORAL)))
    there = points(mask(a_knee(), FEMORAL)) * [-1, 1, 1]
    np.testing.assert_array_equal(right.mirrored().region(FEMORAL, there), numbers)


def test_specks_move_no_landmark():
    array = mask(a_knee(), FEMORAL).array.copy()
    expected = find_femoral_landmarks(a_knee().with_array(array))
    array[50, -1, 20] = array[50:52, -3:-1, 42:44] = True
    assert find_femoral_landmarks(a_knee().with_array(array)).notch == expected.notch


def test_the_central_part_ends_at_sixty_percent():
    landmarks = FemoralLandmarks(np.eye(4), IntercondylarNotch(10.0, 20.0, (40.0, 30.0)))
    medial = landmarks.region(FEMORAL, np.array([[0, 19.9, 11], [0, 20.1, 11], [0, 31.9, 11], [0, 32.1, 11]]))
    lateral = landmarks.region(FEMORAL, np.array([[0, 19.9, 9], [0, 20.1, 9], [0, 25.9, 9], [0, 26.1, 9]]))
    assert [REGIONS[FEMORAL][n] for n in medial] == ["trochlea", "central medial", "central medial", "posterior medial"]
    assert [REGIONS[FEMORAL][n] for n in lateral] == [
        "trochlea",
        "central lateral",
        "central lateral",
        "posterior lateral",
    ]


def sizes(labels: Volume) -> np.ndarray:
    """Voxels of each part, femoral ones first."""
    landmarks = find_femoral_landmarks(labels.with_array(labels.array == 1))
    assert landmarks.own_axes
    found = []
    for number, (tissue, regions) in enumerate(REGIONS.items(), start=1):
        there = points(labels.with_array(labels.array == number))
        found.append(np.bincount(landmarks.region(tissue, there), minlength=len(regions)))
    return np.concatenate(found)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("degrees", [-20, 10])
def test_a_knee_that_lies_turned_has_the_same_parts(axis, degrees):
    """Of voxels of 1 mm, turned to the nearest ones. Along the axes of the image they change by up to 24 %."""
    there = turned(a_roomy_knee(), axis, degrees)
    np.testing.assert_allclose(sizes(there), sizes(a_roomy_knee()), rtol=0.03)
    left = to_canonical(mirror_left_right(there), Side.LEFT)
    np.testing.assert_array_equal(sizes(left), sizes(there))


@each_label_map
def test_a_real_knee_that_lies_turned_has_the_same_parts(path):
    labels = cartilage(to_canonical(read_volume(path)))
    for axis in range(3):
        np.testing.assert_allclose(sizes(turned(labels, axis, 20)), sizes(labels), rtol=0.02)


def test_condyles_that_tell_no_axes_are_cut_along_those_of_the_image():
    """The central medial part is bare."""
    mask = a_roomy_knee().with_array(a_roomy_knee().array == 1)
    landmarks = find_femoral_landmarks(mask)
    numbers = landmarks.region(FEMORAL, points(mask))
    array = mask.array.copy()
    array[tuple(np.argwhere(array)[numbers == 1].T)] = False
    worn = find_femoral_landmarks(mask.with_array(array))
    assert not worn.own_axes
    np.testing.assert_allclose(worn.along(points(mask)), np.argwhere(mask.array) * mask.spacing_mm, atol=1e-6)


@pytest.mark.parametrize("array", [np.zeros((20, 20, 20), bool), np.ones((20, 20, 20), bool)])
def test_without_condyles_there_are_no_parts(array):
    with pytest.raises(ValueError, match="femoral cartilage"):
        find_femoral_landmarks(Volume(array, IPL))
