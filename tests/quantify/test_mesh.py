import numpy as np
import pytest

from knee3d.anatomy.volume import Volume
from knee3d.quantify.mesh import surface

RADIUS_MM = 8.0
TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
CENTRE_MM = np.array([40.0, -25.0, 12.0])


def ball(handedness: int, shape=(30, 24, 36), spacing=(0.8, 1.0, 0.6)) -> Volume:
    """Probability ball around CENTRE_MM, oblique and anisotropic: 0.5 at RADIUS_MM, falling 0.25 per mm."""
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([handedness, 1, 1]) * spacing
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - CENTRE_MM, axis=-1)
    return Volume(np.clip(0.5 + 0.25 * (RADIUS_MM - distance), 0, 1).astype(np.float32), affine)


def signed_mm3(mesh) -> float:
    first, second, third = np.moveaxis(np.asarray(mesh.points, dtype=np.float64)[mesh.regular_faces], 1, 0)
    return float(np.einsum("ij,ij->", first, np.cross(second, third)) / 6)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("boolean", [True, False])
def test_a_ball_lies_where_the_affine_says_with_its_outside_outside(handedness, boolean):
    probability = ball(handedness)
    assert np.sign(np.linalg.det(probability.affine[:3, :3])) == handedness
    mask = probability.with_array(probability.array >= 0.5) if boolean else probability
    mesh = surface(mask)
    assert mesh.n_open_edges == 0
    assert signed_mm3(mesh) == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.02)
    outward = np.asarray(mesh.points) - CENTRE_MM
    assert np.linalg.norm(outward, axis=1) == pytest.approx(RADIUS_MM, abs=0.6 if boolean else 0.1)
    assert (np.sum(mesh.point_data["Normals"] * outward, axis=1) > 0.8 * RADIUS_MM).all()


def test_smoothing_takes_the_steps_away_and_leaves_the_volume():
    mask = ball(1)
    mask = mask.with_array(mask.array >= 0.5)
    raw, smooth = surface(mask, smoothing=0), surface(mask)
    spread = [np.linalg.norm(np.asarray(mesh.points) - CENTRE_MM, axis=1).std() for mesh in (raw, smooth)]
    assert spread[1] < 0.7 * spread[0]
    assert signed_mm3(smooth) == pytest.approx(signed_mm3(raw), rel=0.01)


def test_a_mask_that_fills_its_array_is_closed_at_the_border():
    mesh = surface(Volume(np.ones((4, 5, 6), dtype=np.uint8), np.eye(4)), smoothing=0)
    assert mesh.n_open_edges == 0
    np.testing.assert_allclose(mesh.bounds, [-0.5, 3.5, -0.5, 4.5, -0.5, 5.5])


def test_without_a_voxel_there_is_no_surface():
    with pytest.raises(ValueError, match="no voxel"):
        surface(Volume(np.zeros((3, 3, 3), dtype=bool), np.eye(4)))
    with pytest.raises(ValueError, match="three axes"):
        surface(Volume(np.ones((3, 3, 3, 2), dtype=bool), np.eye(4)))
