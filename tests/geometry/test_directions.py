"""Directions of oblique slices: rotations, no two alike, spread as they say."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from knee3d.geometry.directions import (
    LEFT,
    SPREADS,
    SUPERIOR,
    oblique_view_rotations,
    radial_rotations,
    sphere_rotations,
)

COUNTS = range(1, 31)


def between(turns: np.ndarray) -> np.ndarray:
    """Degrees between the lines along which slices are counted; a direction and its opposite are the same slices."""
    towards = turns @ LEFT
    degrees = np.degrees(np.arccos(np.clip(np.abs(towards @ towards.T), 0, 1)))
    return degrees[~np.eye(len(turns), dtype=bool)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spread", SPREADS)
def test_every_spread_has_rotations_no_two_alike_and_always_the_same(spread, count):
    turns = np.array(oblique_view_rotations(spread, count))
    assert turns.shape == (count, 3, 3)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert between(turns).min(initial=90) > 5
    np.testing.assert_array_equal(turns, oblique_view_rotations(spread, count))
    # Turned within their plane as little as can be.
    magnitudes = [Rotation.from_matrix(turn).magnitude() for turn in turns]
    np.testing.assert_allclose(magnitudes, np.arccos(turns @ LEFT @ LEFT), atol=1e-9)


@pytest.mark.parametrize("count", COUNTS)
def test_a_sphere_is_spread_evenly_over_its_half(count):
    towards = np.array(sphere_rotations(count)) @ LEFT
    assert (towards @ LEFT > 0).all()
    # No two lines are closer than half of what a square patch of the half sphere, an equal share of it, is wide.
    assert between(np.array(sphere_rotations(count))).min(initial=90) > np.degrees(np.sqrt(2 * np.pi / count)) / 2
    assert between(np.array(sphere_rotations(count))).min(initial=90) > 14
    # Evenly: about as much along each axis, as far as few directions can.
    if count >= 6:
        np.testing.assert_allclose(towards.T @ towards / count, np.eye(3) / 3, atol=0.15)


@pytest.mark.parametrize("count", COUNTS)
def test_radial_slices_contain_the_long_axis_and_lie_evenly_around_it(count):
    turns = np.array(radial_rotations(count))
    np.testing.assert_allclose(turns @ LEFT @ SUPERIOR, 0, atol=1e-12)
    np.testing.assert_allclose(turns @ SUPERIOR, np.broadcast_to(SUPERIOR, (count, 3)), atol=1e-12)
    assert between(turns).min(initial=180 / count) == pytest.approx(180 / count)
    if count == 4:
        angles = np.degrees(np.arctan2((turns @ LEFT)[:, 1], -(turns @ LEFT)[:, 0]))
        np.testing.assert_allclose(np.sort(angles), [-67.5, -22.5, 22.5, 67.5])


def test_what_is_no_spread_is_refused():
    with pytest.raises(ValueError, match="at least one direction, got 0"):
        oblique_view_rotations("sphere", 0)
    with pytest.raises(ValueError, match="unknown spread 'star'; there are: sphere, radial"):
        oblique_view_rotations("star", 3)
