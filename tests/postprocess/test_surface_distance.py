"""Distances between surfaces, against the packages that define them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from surface_distance import metrics

from knee3d.geometry.volume import Volume
from knee3d.postprocess.surface_distance import surface_scores

SPACINGS = st.tuples(*[st.sampled_from([0.3, 0.45, 0.7, 1.5])] * 3)


def blob(seed: int, shape: tuple[int, int, int] = (24, 20, 22)) -> np.ndarray:
    """A lump with holes, that may touch the border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise > np.quantile(noise, 0.8)


def volume(array: np.ndarray, spacing: tuple[float, ...]) -> Volume:
    return Volume(array.astype(np.uint8), np.diag([*spacing, 1.0]))


@given(st.integers(0, 999), SPACINGS)
@settings(max_examples=25)
def test_deepminds_numbers_to_the_last_digit(seed, spacing):
    """Cut out of the volume around the tissue; DeepMind's package is given the whole of it."""
    first, second = (np.pad(blob(one), ((3, 9), (0, 5), (7, 0))) for one in (seed, seed + 1))
    found = surface_scores(volume(3 * first, spacing), volume(3 * second, spacing), 3, (0.4, 2.0))
    distances = metrics.compute_surface_distances(first, second, spacing)
    assert found.assd_mm == pytest.approx(np.mean(metrics.compute_average_surface_distance(distances)), abs=1e-9)
    assert found.hd95_mm == pytest.approx(metrics.compute_robust_hausdorff(distances, 95), abs=1e-9)
    for limit, share in found.nsd.items():
        assert share == pytest.approx(metrics.compute_surface_dice_at_tolerance(distances, limit), abs=1e-9)


def test_balls_within_balls_are_as_far_apart_as_their_radii():
    """10 and 12 mm around the same point, less what a surface of voxels is thick (0.4 to 0.7 mm)."""
    spacing = np.array([0.5, 0.4, 0.7])
    places = np.moveaxis(np.indices((60, 70, 44)), 0, -1) * spacing
    away = np.linalg.norm(places - places[30, 35, 22], axis=-1)
    small, large = (volume(away <= radius, tuple(spacing)) for radius in (10, 12))
    found = surface_scores(small, large, 1, (1.0, 2.5))
    assert found.assd_mm == pytest.approx(1.8, abs=0.2)
    assert found.hd95_mm == pytest.approx(1.9, abs=0.3)
    assert found.nsd[1.0] < 0.01
    assert found.nsd[2.5] > 0.99
    assert not found.reason


def test_the_same_surface_is_at_no_distance():
    lump = volume(blob(0), (0.5, 0.4, 0.7))
    found = surface_scores(lump, lump, 1)
    assert (found.assd_mm, found.hd95_mm) == (0, 0)
    assert set(found.nsd.values()) == {1.0}


def test_no_surface_is_nan_with_the_reason():
    lump, nothing = volume(blob(0), (1, 1, 1)), volume(np.zeros((24, 20, 22)), (1, 1, 1))
    for pair, words in [
        ((lump, nothing), "absent from prediction"),
        ((nothing, lump), "absent from truth"),
        ((nothing, nothing), "absent from truth and prediction"),
    ]:
        found = surface_scores(*pair, 1)
        assert np.isnan([found.assd_mm, found.hd95_mm, *found.nsd.values()]).all()
        assert found.reason == words


def test_other_grids_and_sheared_ones_are_refused():
    lump = volume(blob(0), (1, 1, 1))
    with pytest.raises(ValueError, match="different grids"):
        surface_scores(lump, volume(blob(1), (1, 1, 2)), 1)
    affine = np.eye(4)
    affine[0, 1] = 0.3
    sheared = Volume(lump.array, affine)
    with pytest.raises(ValueError, match="sheared"):
        surface_scores(sheared, sheared, 1)


def test_turned_in_space_nothing_changes():
    """A grid may lie askew in the scanner; only its spacing counts."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    first, second = blob(0), blob(1)
    straight = surface_scores(volume(first, (0.5, 0.4, 0.7)), volume(second, (0.5, 0.4, 0.7)), 1)
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.5, 0.4, 0.7)
    askew = surface_scores(*(Volume(one.astype(np.uint8), affine) for one in (first, second)), 1)
    assert askew.assd_mm == pytest.approx(straight.assd_mm, abs=1e-9)
