"""Parts of an anatomy change against each other: bones stay rigid and in contact, cartilage keeps to its bone."""

import numpy as np
import pytest
from scipy import ndimage

from knee3d.geometry.volume import Volume
from knee3d.phantom.anatomy_variation import PLATES, VALUES, flex_knee, flexion_axis, vary_cartilage
from knee3d.phantom.parametric_knee import parametric_knee

KNEE = parametric_knee((140, 140, 60), 3, field_of_view_mm=(170.0, 170.0, 100.0))


def count(labels: Volume, name: str) -> int:
    return int(np.count_nonzero(labels.array == VALUES[name]))


def middle(labels: Volume, name: str) -> np.ndarray:
    return np.argwhere(labels.array == VALUES[name]).mean(axis=0) * labels.spacing_mm


def test_no_flexion_and_no_change_are_the_same_anatomy():
    assert flex_knee(KNEE, 0) is KNEE
    np.testing.assert_array_equal(vary_cartilage(KNEE, 1, (1e6, 1e6)).array[KNEE.array > 0], KNEE.array[KNEE.array > 0])


@pytest.mark.parametrize("degrees", [-15, 15])
def test_bones_stay_rigid_and_in_contact(degrees):
    bent = flex_knee(KNEE, degrees)
    assert bent.array.dtype == KNEE.array.dtype
    for name in ("femur", "femoral cartilage"):
        np.testing.assert_array_equal(bent.array == VALUES[name], KNEE.array == VALUES[name])
    for name in ("patella", "patellar cartilage", "medial tibial cartilage", "lateral tibial cartilage"):
        assert count(bent, name) == pytest.approx(count(KNEE, name), rel=0.1)
    tibial = np.isin(bent.array, [VALUES["medial tibial cartilage"], VALUES["lateral tibial cartilage"]])
    away = ndimage.distance_transform_edt(bent.array != VALUES["femoral cartilage"], sampling=bent.spacing_mm)
    before = ndimage.distance_transform_edt(KNEE.array != VALUES["femoral cartilage"], sampling=KNEE.spacing_mm)
    tibial_before = np.isin(KNEE.array, [VALUES["medial tibial cartilage"], VALUES["lateral tibial cartilage"]])
    assert away[tibial].min() < before[tibial_before].min() + 1.5


def test_bending_takes_the_tibia_backwards_and_the_patella_down():
    straight, bent = flex_knee(KNEE, -12), flex_knee(KNEE, 12)
    lowest = slice(-20, None)
    shafts = [Volume(one.array[lowest], one.affine) for one in (straight, bent)]
    assert middle(shafts[1], "tibia")[1] > middle(shafts[0], "tibia")[1] + 5
    assert middle(bent, "patella")[0] > middle(straight, "patella")[0] + 5


def test_the_axis_is_that_of_the_round_condyles():
    """A made-up cylinder of cartilage, whose axis is known."""
    down, back, _ = np.indices((100, 100, 20)) * 1.0
    away = np.hypot(down - 52, back - 47)
    array = np.where((away > 25) & (away < 28) & (down > 45), VALUES["femoral cartilage"], 0)
    axis = flexion_axis(Volume(array, np.diag([1.0, 1, 1, 1])))
    assert (axis.down, axis.back) == pytest.approx((52, 47), abs=1)
    with pytest.raises(ValueError, match="too little femoral cartilage"):
        flex_knee(Volume(np.zeros((9, 9, 9), int), np.eye(4)), 5)


def test_thinner_cartilage_stays_on_its_bone_and_thicker_one_takes_nothing_else():
    volumes = {}
    for factor in (0.4, 0.7, 1.5):
        found = vary_cartilage(KNEE, 2, (factor, factor))
        volumes[factor] = {name: count(found, name) / count(KNEE, name) for name in PLATES}
        others = (KNEE.array > 0) & ~np.isin(KNEE.array, [VALUES[name] for name in PLATES])
        np.testing.assert_array_equal(found.array[others], KNEE.array[others])
    for name in PLATES:
        assert volumes[0.4][name] < volumes[0.7][name] < 1 < volumes[1.5][name]
        assert volumes[0.4][name] == pytest.approx(0.4, abs=0.15)


def test_defects_take_a_share_of_a_plate():
    shares = [
        count(vary_cartilage(KNEE, seed, (1, 1), 0.6), "femoral cartilage")
        / count(vary_cartilage(KNEE, seed, (1, 1)), "femoral cartilage")
        for seed in range(5)
    ]
    assert 0.3 < min(shares) < 0.8
    assert max(shares) <= 1


def test_a_plate_without_its_bone_is_refused():
    with pytest.raises(ValueError, match="patellar cartilage is there without its patella"):
        vary_cartilage(KNEE.with_array(np.where(KNEE.array == VALUES["patella"], 0, KNEE.array)), 1, (1, 2))
