"""Rendered knees look like DESS: bones dark, cartilage bright, fluid brightest, air black."""

from functools import cache

import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import FEMORAL, FEMUR, FIBULA, MEDIAL_MENISCUS, PATELLAR, TIBIA
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.phantom.smooth_noise import magnified

VALUE = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}


@cache
def a_knee() -> Volume:
    return parametric_knee((56, 52, 44), 0)


def mean(image, name):
    return image.array[a_knee().array == VALUE[name]].mean()


@pytest.mark.parametrize("seed", range(4))
def test_tissues_have_the_contrast_of_dess(seed):
    image = simulate_image(a_knee(), seed)
    assert image.array.dtype == np.int16
    assert image.array.min() >= 0
    assert mean(image, FEMORAL) > 2 * mean(image, FEMUR)
    assert mean(image, PATELLAR) > 2 * mean(image, TIBIA)
    assert mean(image, MEDIAL_MENISCUS) < mean(image, FEMORAL)
    air = image.array[:, 0, [0, -1]]  # in front of the leg, right and left of the patella
    assert air.mean() < 0.5 * mean(image, FEMUR)
    np.testing.assert_array_equal(image.affine, a_knee().affine)


def test_the_same_seed_is_the_same_image_and_another_is_another():
    first, again, other = (simulate_image(a_knee(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.array, again.array)
    assert np.corrcoef(first.array.ravel(), other.array.ravel())[0, 1] < 0.99
    assert abs(mean(first, FEMORAL) - mean(other, FEMORAL)) > 1


def test_intensities_do_not_tell_the_tissue():
    """Cartilage and what is not overlap: a threshold alone must not solve the task."""
    grey = simulate_image(a_knee(), 0).array.astype(float)
    cartilage = np.isin(a_knee().array, (1, 2, 3, 4))
    best = 0.0
    for threshold in np.percentile(grey, np.arange(50, 100, 1)):
        found = grey > threshold
        best = max(best, 2 * np.count_nonzero(found & cartilage) / (found.sum() + cartilage.sum()))
    assert 0.3 < best < 0.85


@pytest.mark.parametrize("absent", [(FIBULA,), (MEDIAL_MENISCUS, FIBULA), (PATELLAR, "patella")])
def test_label_maps_without_some_tissue_render_too(absent):
    labels = a_knee().with_array(np.where(np.isin(a_knee().array, [VALUE[name] for name in absent]), 0, a_knee().array))
    assert np.isfinite(simulate_image(labels, 0).array).all()


def test_what_cannot_be_rendered_is_refused():
    with pytest.raises(ValueError, match=r"\[77\] are not pymskt's"):
        simulate_image(a_knee().with_array(np.where(a_knee().array == 5, 77, a_knee().array)), 0)
    with pytest.raises(ValueError, match="no femur"):
        simulate_image(a_knee().with_array(np.where(a_knee().array == 5, 0, a_knee().array)), 0)


def test_the_leg_is_magnified_without_steps():
    """Voxel centres at 0.5, 1.5 ... of 4 go to 0.25, 0.75 ... : a ramp stays the ramp, the edges are repeated."""
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None] + 0.5, (4, 2, 3))
    fine = magnified(ramp, (8, 2, 6))
    assert fine.shape == (8, 2, 6)
    np.testing.assert_allclose(fine[:, 0, 0], [0.5, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.5])
    np.testing.assert_array_equal(magnified(ramp, ramp.shape), ramp)
