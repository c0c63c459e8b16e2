"""Volumes are resampled along their axes without aliasing, and come back."""

import numpy as np
import pytest

from knee3d.geometry.axis_resampling import axis_filter, axis_grid, resample_axes, resample_labels
from knee3d.geometry.orientation import CANONICAL, reorient
from knee3d.geometry.volume import Volume

RNG = np.random.default_rng(0)
AFFINE = np.array([[0, 0, -0.7, 30], [0, -0.4, 0, 20], [-0.5, 0, 0, 10], [0, 0, 0, 1]])
"""Axes Inferior, Posterior, Left."""


def smooth(shape: tuple[int, int, int], spacing_mm: np.ndarray, period_mm: float = 60.0) -> np.ndarray:
    """A wave in each direction, in [0, 1]."""
    places = np.meshgrid(*(np.arange(size) * mm for size, mm in zip(shape, spacing_mm, strict=True)), indexing="ij")
    return (0.5 + sum(np.sin(2 * np.pi * one / period_mm) for one in places) / 6).astype(np.float32)


def test_a_grid_of_the_same_voxels_changes_nothing():
    image = Volume(RNG.integers(0, 256, (20, 24, 10), np.uint8), AFFINE)
    grid = axis_grid(image, (0.5, 0.4001, 0.7))
    assert grid.same_grid(image)
    assert resample_axes(image, grid) is image
    assert resample_labels(image, grid) is image


@pytest.mark.parametrize("spacing", [(0.9, 0.9, 1.4), (0.3, 0.4, 0.7), (0.25, 0.8, 3.0), (50.0, 50.0, 50.0)])
def test_the_centre_stays_and_the_grid_is_as_long(spacing):
    image = Volume(np.zeros((41, 37, 24), np.uint8), AFFINE)
    grid = axis_grid(image, spacing)
    np.testing.assert_allclose(grid.spacing_mm, spacing)
    centres = [one.affine @ [*((np.array(one.shape) - 1) / 2), 1] for one in (image, grid)]
    np.testing.assert_allclose(*centres, atol=1e-9)
    apart = np.abs(np.array(grid.shape) * grid.spacing_mm - np.array(image.shape) * image.spacing_mm)
    assert ((apart <= grid.spacing_mm / 2 + 1e-9) | (np.array(grid.shape) == 1)).all()


@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.7, 4.0])
def test_weights_add_up_to_one_and_keep_a_slope(ratio):
    """Away from the ends: linear interpolation is exact for a straight line."""
    count = 60
    wanted = round(count / ratio)
    weights = axis_filter(count, ratio, wanted)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    found = weights @ np.arange(count, dtype=np.float32)
    expected = (count - 1) / 2 + (np.arange(wanted) - (wanted - 1) / 2) * ratio
    inside = (expected > ratio + 1) & (expected < count - ratio - 2)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)
    assert found.min() >= 0
    assert found.max() <= count - 1


def test_a_fine_pattern_becomes_grey_and_no_coarse_pattern():
    """Every other voxel is white: without a filter, each second or third one would be picked."""
    pattern = np.zeros((64, 8, 8), np.float32)
    pattern[::2] = 1
    image = Volume(pattern, np.diag([0.5, 0.5, 0.5, 1]))
    found = resample_axes(image, axis_grid(image, (1.1, 0.5, 0.5))).array[2:-2]
    assert np.abs(found - 0.5).max() < 0.1
    picked = pattern[np.clip(np.rint(np.arange(29) * 2.2), 0, 63).astype(int)]
    assert np.ptp(picked) == 1


@pytest.mark.parametrize("spacing", [(0.55, 0.55, 1.4), (0.4, 0.4, 0.7), (0.9, 0.9, 0.9)])
def test_a_smooth_field_comes_back(spacing):
    there = np.array([0.36, 0.36, 0.7])
    image = Volume(smooth((120, 110, 70), there), np.diag([*there, 1]))
    grid = axis_grid(image, spacing)
    back = resample_axes(resample_axes(image, grid), image)
    inside = tuple(slice(6, -6) for _ in range(3))
    assert np.abs(back.array - image.array)[inside].max() < 1e-3 * (spacing[0] / 0.55) ** 2
    assert back.same_grid(image)


@pytest.mark.parametrize("codes", [CANONICAL, "RAS", "LPI", "SRA", "AIL"])
def test_the_order_of_axes_does_not_matter(codes):
    """To the last bit: an axis is filtered in the same way wherever it lies in the array."""
    image = Volume(RNG.random((20, 24, 10)).astype(np.float32), AFFINE)
    first = resample_axes(image, axis_grid(image, (0.7, 0.9, 1.5)))
    turned = reorient(image, codes)
    spacing = reorient(first, codes).spacing_mm
    second = resample_axes(turned, axis_grid(turned, spacing))
    np.testing.assert_allclose(reorient(second, CANONICAL).array, first.array, atol=1e-5)
    assert reorient(second, CANONICAL).same_grid(first)


def test_grey_values_are_rounded_and_stay_within_their_range():
    image = Volume(RNG.integers(0, 256, (30, 30, 12), np.uint8), AFFINE)
    found = resample_axes(image, axis_grid(image, (0.25, 0.6, 0.7)))
    assert found.array.dtype == np.uint8
    exact = resample_axes(image.with_array(image.array.astype(np.float32)), found).array
    np.testing.assert_array_equal(found.array, np.rint(exact))


def test_parts_of_a_large_volume_are_as_of_the_whole(monkeypatch):
    image = Volume(RNG.random((40, 12, 10)).astype(np.float32), AFFINE)
    grid = axis_grid(image, (0.8, 0.8, 1.4))
    whole = resample_axes(image, grid).array
    monkeypatch.setattr("knee3d.geometry.axis_resampling.VOXELS", 300)
    np.testing.assert_allclose(resample_axes(image, grid).array, whole, atol=1e-6)


def test_labels_are_those_with_most_of_a_voxel():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20, 10:20, 10:20] = 2
    labels[10:20, 10:20, 20:] = 5
    image = Volume(labels, np.diag([0.5, 0.5, 0.5, 1]))
    found = resample_labels(image, axis_grid(image, (1.0, 1.0, 1.0)))
    assert set(np.unique(found.array)) == {0, 2, 5}
    assert found.array.dtype == np.uint8
    for label in (2, 5):
        volume = np.count_nonzero(found.array == label) * found.voxel_mm3
        assert volume == pytest.approx(np.count_nonzero(labels == label) * image.voxel_mm3, rel=0.01)


def test_a_thin_plate_keeps_its_volume_on_average():
    """1.1 mm thick, at several places of a grid of 0.8 mm."""
    shares = []
    for shift in np.linspace(0, 0.8, 9):
        places = np.arange(160) * 0.1
        labels = np.zeros((160, 8, 8), np.uint8)
        labels[(places > 5 + shift) & (places < 6.1 + shift)] = 1
        image = Volume(labels, np.diag([0.1, 0.8, 0.8, 1]))
        found = resample_labels(image, axis_grid(image, (0.8, 0.8, 0.8)))
        shares.append(np.count_nonzero(found.array) * found.voxel_mm3 / (np.count_nonzero(labels) * image.voxel_mm3))
    assert np.mean(shares) == pytest.approx(1, abs=0.1)
