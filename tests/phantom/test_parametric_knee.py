"""A made-up knee is a knee: every part in its place, every layer as thick as was asked."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from knee3d.geometry.orientation import CANONICAL, axis_codes
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import (
    FEMORAL,
    FEMUR,
    LATERAL_MENISCUS,
    LATERAL_TIBIAL,
    MEDIAL_MENISCUS,
    MEDIAL_TIBIAL,
    PATELLA,
    PATELLAR,
    TIBIA,
)
from knee3d.phantom.parametric_knee import FEMORAL_MM, PATELLAR_MM, TIBIAL_MM, parametric_knee

pytestmark = pytest.mark.slow

VALUE = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}
SMALL = (48, 44, 36)
PLATES = {FEMORAL: (FEMUR, FEMORAL_MM), MEDIAL_TIBIAL: (TIBIA, TIBIAL_MM), LATERAL_TIBIAL: (TIBIA, TIBIAL_MM),
          PATELLAR: (PATELLA, PATELLAR_MM)}  # fmt: skip


@functools.cache
def small(seed):
    return parametric_knee(SMALL, seed)


def middle(labels, name):
    """Mean index of a tissue along (Inferior, Posterior, Left)."""
    return np.argwhere(labels.array == VALUE[name]).mean(axis=0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(more, marks=pytest.mark.nightly) for more in range(1, 4))])
def test_every_part_is_there_and_in_its_place(seed):
    knee = small(seed)
    assert knee.array.dtype == np.uint8
    assert axis_codes(knee.affine) == CANONICAL
    assert set(np.unique(knee.array)) == {0, *VALUE.values()}
    assert middle(knee, FEMUR)[0] < middle(knee, FEMORAL)[0] < middle(knee, MEDIAL_TIBIAL)[0] < middle(knee, TIBIA)[0]
    assert middle(knee, PATELLA)[1] < middle(knee, PATELLAR)[1] < middle(knee, FEMUR)[1]
    assert middle(knee, LATERAL_TIBIAL)[2] < middle(knee, TIBIA)[2] < middle(knee, MEDIAL_TIBIAL)[2]
    assert middle(knee, LATERAL_MENISCUS)[2] < middle(knee, MEDIAL_MENISCUS)[2]


def test_the_same_seed_is_the_same_knee_and_another_is_another():
    first, again, other = small(0), parametric_knee(SMALL, 0), parametric_knee(SMALL, 6)
    np.testing.assert_array_equal(first.array, again.array)
    assert (first.array != other.array).mean() > 0.01


def test_thinner_cartilage_lies_on_the_same_bones():
    thick, thin = small(0), parametric_knee(SMALL, 0, 0.8)
    for bone in (FEMUR, TIBIA, PATELLA):
        assert np.count_nonzero(thin.array == VALUE[bone]) >= np.count_nonzero(thick.array == VALUE[bone])
    for plate in PLATES:
        before, after = (np.count_nonzero(knee.array == VALUE[plate]) for knee in (thick, thin))
        assert 0.6 < after / before < 0.95


@pytest.fixture(scope="module")
def fine():
    return parametric_knee((150, 150, 120), 1, field_of_view_mm=(90, 90, 72))


@pytest.mark.parametrize("plate", PLATES)
def test_layers_are_as_thick_as_they_should_be(plate, fine):
    """Measured on a fine grid by a distance transform that knows nothing of the phantom's own distances.

    The rim of a plate is thinner, so its face is looked for in the upper half of what lies outermost.
    """
    bone, mm = PLATES[plate]
    to_bone = ndimage.distance_transform_edt(fine.array != VALUE[bone], sampling=fine.spacing_mm)
    inside = fine.array == VALUE[plate]
    outside = ~(inside | (fine.array == VALUE[bone]))
    outermost = to_bone[inside & ndimage.binary_dilation(outside)]
    assert np.percentile(outermost, 75) == pytest.approx(mm, abs=0.3)
    assert np.percentile(outermost, 99) < mm + 0.8


def test_the_grid_is_what_was_asked_for():
    knee = parametric_knee((20, 30, 40), 0, field_of_view_mm=(100, 90, 80))
    np.testing.assert_allclose(knee.spacing_mm, [5, 3, 2])
    centre = knee.affine @ [9.5, 14.5, 19.5, 1]
    np.testing.assert_allclose(centre[:3], 0, atol=1e-9)
