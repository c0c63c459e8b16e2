"""Deformed knees are other people's knees; thinned ones the same person's, later."""

from functools import cache

import numpy as np
import pytest
from real_knees import each_label_map

from knee3d.geometry.orientation import reorient, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import FEMORAL, LATERAL_TIBIAL, MEDIAL_TIBIAL, PATELLAR
from knee3d.phantom.deformation import deform_labels, draw_deformation, thin_cartilage
from knee3d.phantom.parametric_knee import parametric_knee

VALUE = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}


@cache
def a_knee() -> Volume:
    return parametric_knee((48, 44, 36), 0)


def test_strength_zero_is_the_knee_itself():
    same = deform_labels(reorient(a_knee(), "RAS"), seed=1, strength=0)
    np.testing.assert_array_equal(same.array, a_knee().array)
    np.testing.assert_allclose(same.affine, a_knee().affine, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_another_knee_has_the_same_tissues_in_other_places(seed):
    other = deform_labels(a_knee(), seed)
    assert set(np.unique(other.array)) == set(np.unique(a_knee().array))
    assert 0.02 < (other.array != a_knee().array).mean() < 0.5
    bone = [np.count_nonzero(knee.array == 5) for knee in (a_knee(), other)]
    assert 0.6 < bone[1] / bone[0] < 1.7
    np.testing.assert_array_equal(other.array, deform_labels(a_knee(), seed).array)


def test_more_strength_is_more_difference():
    changed = [(deform_labels(a_knee(), 0, strength).array != a_knee().array).mean() for strength in (0.25, 0.5, 1.0)]
    assert changed == sorted(changed)


@pytest.mark.parametrize("shape", [(24, 22, 18), (96, 88, 40)])
def test_another_grid_shows_the_same_place(shape):
    other = deform_labels(a_knee(), 0, strength=0, shape=shape)
    assert other.shape == shape
    extents = [volume.spacing_mm * volume.shape for volume in (a_knee(), other)]
    np.testing.assert_allclose(*extents)
    corners = [volume.affine @ [-0.5, -0.5, -0.5, 1] for volume in (a_knee(), other)]
    np.testing.assert_allclose(*corners)
    volumes = [np.count_nonzero(volume.array == 5) * volume.voxel_mm3 for volume in (a_knee(), other)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_deformations_do_not_fold(seed):
    """Knots stay below the bound under which cubic B-spline displacements are one-to-one."""
    deformation = draw_deformation(np.array([120.0, 115, 100]), seed, strength=3)
    assert np.abs(deformation.knots).max() < 30 / 2.48
    assert np.linalg.det(deformation.matrix) > 0.3


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_thinning_takes_the_asked_part_of_each_plate_and_nothing_else(fraction):
    thin = thin_cartilage(a_knee(), fraction)
    changed = thin.array != a_knee().array
    assert not thin.array[changed].any()
    for plate in (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR):
        before, after = (np.count_nonzero(knee.array == VALUE[plate]) for knee in (a_knee(), thin))
        assert before - after == round(fraction * before)
    assert set(np.unique(a_knee().array[changed])) <= {1, 2, 3, 4}


def test_what_cannot_be_deformed_or_thinned_is_refused():
    with pytest.raises(ValueError, match="integers"):
        deform_labels(a_knee().with_array(a_knee().array.astype(float)), 0)
    with pytest.raises(ValueError, match="without its femur"):
        thin_cartilage(a_knee().with_array(np.where(a_knee().array == 5, 0, a_knee().array)), 0.1)


@each_label_map
def test_real_knees_deform(path):
    labels = read_volume(path)
    other = deform_labels(labels, 1, 1.0, (96, 96, 64))
    source = to_canonical(labels)
    assert set(np.unique(other.array)) == set(np.unique(source.array))
    for value in (1, 2, 3, 4, 5, 6, 7):
        volumes = [np.count_nonzero(v.array == value) * v.voxel_mm3 for v in (source, other)]
        assert 0.5 < volumes[1] / volumes[0] < 1.8, value
    assert isinstance(thin_cartilage(other, 0.1), Volume)
