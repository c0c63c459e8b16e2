"""The knee's own axes turn with it, and the notch is where a reader would see it."""

from typing import Any

import numpy as np
import pytest
from made_up_knees import made_up_knee
from scipy.spatial.transform import Rotation

from knee3d.morphometry.femoral_axes import IntercondylarNotch, find_intercondylar_notch, knee_axes

pytestmark = pytest.mark.slow


def femoral(seed: int, **options: Any) -> np.ndarray:
    labels = made_up_knee(seed, **options)
    return np.argwhere(labels.array == 1) * labels.spacing_mm


def degrees_between(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(one @ other.T).magnitude()))


@pytest.mark.parametrize("seed", range(4))
def test_axes_are_a_rotation_and_turn_with_the_knee(seed):
    points = femoral(seed)
    axes = knee_axes(points)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    for turn in Rotation.random(4, rng=np.random.default_rng(seed)):
        small = Rotation.from_rotvec(np.radians(20) * turn.as_rotvec() / turn.magnitude()).as_matrix()
        assert degrees_between(knee_axes(points @ small.T) @ small, axes) < 1


@pytest.mark.parametrize("seed", range(4))
def test_medial_runs_across_the_phantom(seed):
    """It is made with its condyles side by side, and turned by up to 6 degrees about each axis."""
    assert np.degrees(np.arccos(knee_axes(femoral(seed))[2, 2])) < 10


def test_neither_voxels_nor_thickness_turn_the_axes():
    axes = knee_axes(femoral(1))
    assert degrees_between(knee_axes(femoral(1, shape=(64, 72, 60))), axes) < 2
    assert degrees_between(knee_axes(femoral(1, thickness=0.7)), axes) < 2


@pytest.mark.parametrize(("lesion_mm", "degrees"), [(4, 1), (8, 3)], ids=["small", "large"])
def test_a_lesion_turns_them_little(lesion_mm, degrees):
    points = femoral(1)
    axes = knee_axes(points)
    rng = np.random.default_rng(0)
    for place in points[rng.integers(len(points), size=12)]:
        left = points[np.linalg.norm(points - place, axis=1) > lesion_mm]
        assert degrees_between(knee_axes(left), axes) < degrees


def test_what_has_no_condyles_tells_no_axes():
    points = femoral(1)
    ball = np.argwhere(np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) < 20).astype(float)
    half = points[points[:, 2] > np.median(points[:, 2])]
    for one in (np.empty((0, 3)), points[:1], ball, half):
        with pytest.raises(ValueError, match="femoral"):
            knee_axes(one)


def test_the_notch_of_a_horseshoe():
    """From the front to 30 mm in its middle, to 60 and 50 mm at its sides."""
    back, left = (np.ravel(axis).astype(float) for axis in np.meshgrid(np.arange(61), np.arange(81), indexing="ij"))
    inside = (back <= 30) | ((left >= 50) & (back <= 60)) | ((left <= 30) & (back <= 50))
    found = find_intercondylar_notch(np.stack([np.zeros_like(back), back, left], axis=-1)[inside])
    assert found.medial == pytest.approx(40, abs=6)
    assert found.posterior == pytest.approx(30, abs=0.1)
    assert found.condyle_ends == pytest.approx((60, 50), abs=0.1)
    assert isinstance(found, IntercondylarNotch)
