"""Onto another grid and back."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from real_knees import each_label_map
from scipy import ndimage
from scipy.spatial.transform import Rotation

from knee3d.geometry.directions import sphere_rotations
from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.resampling import LINEAR, NEAREST, oblique_grid, resample
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice
from knee3d.postprocess.decision import decide_labels

AFFINE = np.array([[0, 0, -0.7, 30], [0, -0.4, 0, 20], [-0.5, 0, 0, 10], [0, 0, 0, 1.0]])
TURN = Rotation.from_euler("xyz", [25, -35, 50], degrees=True).as_matrix()


def noise(*shape: int) -> Volume:
    return Volume(np.random.default_rng(0).random(shape).astype(np.float32), AFFINE)


def test_onto_its_own_grid_nothing_changes():
    volume = noise(6, 7, 8)
    for order in (LINEAR, NEAREST):
        found = resample(volume, volume, order)
        np.testing.assert_allclose(found.array, volume.array, atol=1e-6)
        assert found.same_grid(volume)


def test_a_ramp_keeps_its_slope_in_millimetres():
    """Linear interpolation is exact for what is linear in the scanner's frame."""
    volume = noise(20, 21, 22)
    places = np.moveaxis(np.indices(volume.shape), 0, -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    ramp = volume.with_array((places @ [0.3, -0.2, 0.5] + 4).astype(np.float32))
    grid = oblique_grid(ramp, TURN, 0.6)
    found = resample(ramp, grid, LINEAR)
    there = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    inside = resample(ramp.with_array(np.ones(ramp.shape, np.float32)), grid, LINEAR).array == 1
    assert inside.sum() > 5000
    np.testing.assert_allclose(found.array[inside], (there @ [0.3, -0.2, 0.5] + 4)[inside], atol=1e-4)


@given(st.integers(0, 999))
@settings(max_examples=20)
def test_values_equal_simpleitks(seed):
    """Its resampler, on grids that lie anyhow."""
    rng = np.random.default_rng(seed)
    volume = Volume(rng.random((9, 10, 11)).astype(np.float32), AFFINE)
    grid = oblique_grid(volume, Rotation.random(random_state=seed).as_matrix(), rng.uniform(0.3, 0.9))

    def as_itk(one: Volume, image: sitk.Image) -> sitk.Image:
        lps = np.diag([-1.0, -1, 1, 1]) @ one.affine
        image.SetSpacing(one.spacing_mm.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / one.spacing_mm).ravel().tolist())
        return image

    image = as_itk(volume, sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T)))
    target = as_itk(grid, sitk.Image([int(size) for size in grid.shape], sitk.sitkFloat32))
    expected = sitk.GetArrayFromImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, 0.0)).T
    found = resample(volume, grid, LINEAR).array
    inside = (found > 0) & (expected > 0)  # ITK reaches half a voxel beyond the outermost centres
    assert inside.sum() > 100
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)


def test_beyond_the_volume_there_is_nothing():
    volume = noise(9, 10, 11)
    assert resample(volume, oblique_grid(volume, TURN), LINEAR).array[0, 0, 0] == 0  # a corner


def test_labels_stay_labels():
    labels = Volume(np.random.default_rng(2).choice([0, 3, 7], (9, 10, 11)).astype(np.uint8), AFFINE)
    found = resample(labels, oblique_grid(labels, TURN), NEAREST)
    assert found.array.dtype == np.uint8
    assert set(np.unique(found.array)) == {0, 3, 7}


@given(st.integers(0, 999))
def test_the_grid_holds_all_of_the_volume_around_the_same_centre(seed):
    volume = noise(9, 10, 11)
    grid = oblique_grid(volume, Rotation.random(random_state=seed).as_matrix(), 0.4)
    np.testing.assert_allclose(grid.spacing_mm, 0.4)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [8, 9, 10, 1]
    index = np.linalg.solve(grid.affine, (corners @ volume.affine.T).T)[:3]
    assert index.min() > -1e-6
    assert (index.max(axis=1) < np.array(grid.shape) - 1 + 1e-6).all()
    centres = [one.affine @ [*((np.array(one.shape) - 1) / 2), 1] for one in (volume, grid)]
    np.testing.assert_allclose(*centres, atol=1e-9)


@pytest.mark.parametrize("turn", [np.eye(2), np.diag([1.0, 1, -1]), 2 * np.eye(3)])
def test_what_does_not_turn_is_refused(turn):
    with pytest.raises(ValueError, match="rotation"):
        oblique_grid(noise(4, 4, 4), turn)


@pytest.mark.parametrize("turn", sphere_rotations(5))
def test_the_grid_counts_its_slices_along_the_turned_third_axis(turn):
    grid = oblique_grid(noise(9, 10, 11), turn, 0.5)
    np.testing.assert_allclose(grid.affine[:3, 2] / 0.5, turn @ [-1, 0, 0], atol=1e-12)


def test_bytes_become_what_floats_become():
    volume = noise(9, 10, 11)
    grey = volume.with_array((255 * volume.array).astype(np.uint8))
    floats = grey.with_array(grey.array.astype(np.float32))
    grid = oblique_grid(volume, TURN, 0.4)
    np.testing.assert_array_equal(resample(grey, grid, LINEAR).array, resample(floats, grid, LINEAR).array)


@each_label_map
def test_real_cartilage_survives_an_oblique_view_and_the_way_back(path):
    """Tissue as probabilities, turned about all axes and back, linearly both ways: Dice of each tissue over 0.99."""
    volume = to_canonical(read_volume(path))
    labels = labels_to_classes(volume.array, LABEL_NAMES["pymskt"], SCHEMES["compartments"])
    box = tuple(
        slice(max(0, side.start - 2), side.stop + 2) for side in ndimage.find_objects((labels > 0).astype(int))[0]
    )
    affine = volume.affine.copy()
    affine[:, 3] = volume.affine @ [*(side.start for side in box), 1]
    labels = labels[box]
    sure = Volume(np.eye(4, dtype=np.float32)[labels], affine)

    def resampled(volume: Volume, grid: Volume) -> Volume:
        classes = [volume.with_array(volume.array[..., number]) for number in range(4)]
        return grid.with_array(np.stack([resample(one, grid, LINEAR).array for one in classes], axis=-1))

    back = decide_labels(resampled(resampled(sure, oblique_grid(sure, TURN)), sure))
    assert dice(confusion_matrix(labels, back.array, 4)).min() > 0.99
