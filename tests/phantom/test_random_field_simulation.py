"""The second renderer: images by seed, tissues in the order of DESS, and a structure that the first one lacks."""

import numpy as np
import pytest
from scipy import ndimage, stats

from knee3d.geometry.axis_resampling import axis_grid, resample_axes
from knee3d.geometry.volume import Volume
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.phantom.random_field_simulation import render_signal, simulate_image_from_random_fields

pytestmark = pytest.mark.slow

SHAPE = (60, 66, 56)
CARTILAGE, BONES, MENISCI = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10)


@pytest.fixture(scope="module")
def knee() -> Volume:
    return parametric_knee(SHAPE, 3)


@pytest.fixture(scope="module")
def images(knee) -> list[np.ndarray]:
    return [simulate_image_from_random_fields(knee, seed).array for seed in range(6)]


def relative(images: list[np.ndarray], knee: Volume, mask: np.ndarray) -> list[float]:
    """The mean of a mask in each image, in units of the mean of cartilage."""
    return [float(image[mask].mean() / image[np.isin(knee.array, CARTILAGE)].mean()) for image in images]


def test_the_same_seed_gives_the_same_bytes_and_another_another_image(knee, images):
    again = simulate_image_from_random_fields(knee, 1)
    assert again.array.tobytes() == images[1].tobytes()
    assert again.same_grid(knee)
    assert (images[0] != images[1]).mean() > 0.9


def test_images_are_int16_and_use_its_range(images):
    for image in images:
        assert image.dtype == np.int16
        assert image.min() >= 0
        assert 300 < np.percentile(image, 99) < 8000


def test_means_of_tissues_are_in_the_order_of_dess(knee, images):
    around = (knee.array == 0) & (ndimage.distance_transform_edt(knee.array == 0, sampling=knee.spacing_mm) < 5)
    soft, marrow, menisci = (
        relative(images, knee, mask) for mask in (around, np.isin(knee.array, BONES), np.isin(knee.array, MENISCI))
    )
    assert np.mean(soft) < 0.9
    assert np.mean(marrow) < 0.75 * np.mean(soft)
    assert max(marrow) < 0.5
    assert max(menisci) < 0.5


def test_fluid_between_plates_is_about_as_often_brighter_than_cartilage_as_not(knee):
    small = parametric_knee((36, 36, 32), 3)
    signals = [render_signal(small, seed).volume.array for seed in range(16)]
    plates = np.isin(small.array, CARTILAGE)
    beside = (small.array == 0) & (ndimage.uniform_filter(plates.astype(float), 3) > 0.5)
    brighter = np.mean([signal[beside].mean() > signal[plates].mean() for signal in signals])
    assert 0.1 < brighter < 0.9


def test_bones_have_a_dark_shell_and_cartilage_has_a_darker_deep_layer():
    knee = parametric_knee((110, 130, 100), 3)
    plates, bones = np.isin(knee.array, CARTILAGE), np.isin(knee.array, BONES)
    from_bone = ndimage.distance_transform_edt(~bones, sampling=knee.spacing_mm)
    depth = ndimage.distance_transform_edt(bones, sampling=knee.spacing_mm)
    shells, layers = [], []
    for seed in (1, 2, 3):
        signal = render_signal(knee, seed).volume.array
        shell, marrow = (signal[(depth > low) & (depth <= high)].mean() for low, high in ((0.1, 0.9), (2.5, 6)))
        deep, middle = (signal[plates & (from_bone > low) & (from_bone < high)].mean()
                        for low, high in ((0, 0.9), (1.2, 1.8)))  # fmt: skip
        shells.append(shell / marrow)
        layers.append(deep / middle)
    assert max(shells) < 0.85
    assert np.mean(layers) < 0.9


def test_cartilage_is_not_found_by_thresholds(knee, images):
    """The best Dice of any two thresholds: images in which it is high would be too easy."""
    truth = np.isin(knee.array, CARTILAGE)
    assert np.mean([best_threshold_dice(image, truth) for image in images]) < 0.7


def best_threshold_dice(image: np.ndarray, truth: np.ndarray) -> float:
    step = np.percentile(image, 99.9) / 100
    bins = np.clip(image / step, 0, 100).astype(int)
    below = [np.append(0, np.cumsum(np.bincount(part.ravel(), minlength=101))) for part in (bins[truth], bins)]
    inside, chosen = (count[None, :] - count[:, None] for count in below)
    return float((2 * inside / np.maximum(1, chosen + truth.sum()))[np.triu_indices(102, 1)].max())


@pytest.mark.parametrize("kept", [(5,), (5, 1), (5, 6, 2, 3), (5, 7, 4), (1, 5, 9, 10), (4, 5)])
def test_tissues_may_be_absent(knee, kept):
    image = simulate_image_from_random_fields(
        knee.with_array(np.where(np.isin(knee.array, kept), knee.array, 0)), seed=2
    )
    assert image.array[knee.array == 5].mean() > 0


def test_a_femur_that_fills_the_image_and_one_of_a_single_voxel_are_rendered():
    for array in (np.full((16, 16, 16), 5, np.int64), np.pad([[[5]]], 9)):
        image = simulate_image_from_random_fields(Volume(array, np.diag([-1, -1, -1, 1])), seed=0)
        assert image.array.shape == array.shape


@pytest.mark.parametrize("voxel_mm", [(0.3, 0.3, 0.3), (0.36, 0.36, 0.7), (1.5, 0.6, 3), (4, 0.5, 0.5), (4, 4, 4)])
def test_voxels_may_have_any_size(voxel_mm):
    extent = np.minimum((88, 108, 84), np.multiply(voxel_mm, 96))
    shape = np.maximum(8, np.rint(extent / voxel_mm)).astype(int)
    knee = parametric_knee(tuple(shape.tolist()), 1, field_of_view_mm=tuple((shape * voxel_mm).tolist()))
    image = simulate_image_from_random_fields(knee, seed=1)
    assert image.array.shape == knee.shape
    assert image.array[knee.array == 1].mean() > 1.4 * image.array[knee.array == 5].mean()


def test_noise_is_added_after_the_voxels_of_the_scan_are_formed(knee):
    """Averages of noisy voxels would have less noise: in air, the noise of both scans is the same."""
    grid = axis_grid(knee, knee.spacing_mm * (2, 2, 1))
    signal = render_signal(knee, 4)
    air = resample_axes(signal.volume, grid).array == 0
    assert air.sum() > 500
    scans = simulate_image_from_random_fields(knee, 4), simulate_image_from_random_fields(knee, 4, grid)
    assert scans[1].same_grid(grid)
    fine, coarse = scans[0].array[signal.volume.array == 0].std(), scans[1].array[air].std()
    assert coarse == pytest.approx(fine, rel=0.1)
    assert fine == pytest.approx(signal.noise * np.sqrt(2 - np.pi / 2), rel=0.1)  # Rician without signal


def test_the_two_renderers_have_another_structure(knee, images):
    """Ranks of unlabelled tissue, below the skin of both, are not related."""
    below = (knee.array == 0) & (ndimage.distance_transform_edt(knee.array == 0, sampling=knee.spacing_mm) < 6)
    others = [simulate_image(knee, seed).array for seed in range(6)]
    related = [stats.spearmanr(one[below], other[below])[0] for one, other in zip(images, others, strict=True)]
    assert np.mean(np.abs(related)) < 0.35


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((8, 8, 8), 77), r"\[77\] have no name"),
        (np.full((8, 8, 8), -1), r"\[-1\] have no name"),
        (np.full((8, 8, 8), 70000), r"\[70000\] have no name"),
        (np.pad([[[5, 11, 5]]], 4), r"\[11\] have no name"),
        (np.ones((8, 8, 8), np.uint8), "femur, label 5, is not in"),
        (np.full((8, 8, 8), 5.0), "whole numbers"),
    ],
)
def test_labels_that_cannot_be_rendered_are_refused(array, words):
    with pytest.raises(ValueError, match=words):
        simulate_image_from_random_fields(Volume(array, np.diag([-1, -1, -1, 1])), seed=0)
