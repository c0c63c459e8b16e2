from functools import cache

import numpy as np
import pytest
from real_knees import each_label_map
from scipy import ndimage
from scipy.spatial.transform import Rotation

from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.morphometry.level_set import level_set_from_labels
from knee3d.morphometry.mesh import enclosed_volume_mm3, mask_surface, tissue_surface
from knee3d.phantom.parametric_knee import parametric_knee

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
    mesh = mask_surface(mask)
    assert mesh.n_open_edges == 0
    assert signed_mm3(mesh) == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.02)
    outward = np.asarray(mesh.points) - CENTRE_MM
    assert np.linalg.norm(outward, axis=1) == pytest.approx(RADIUS_MM, abs=0.6 if boolean else 0.1)
    assert (np.sum(mesh.point_data["Normals"] * outward, axis=1) > 0.8 * RADIUS_MM).all()


def test_smoothing_takes_the_steps_away_and_leaves_the_volume():
    mask = ball(1)
    mask = mask.with_array(mask.array >= 0.5)
    raw, smooth = mask_surface(mask, smoothing=0), mask_surface(mask)
    spread = [np.linalg.norm(np.asarray(mesh.points) - CENTRE_MM, axis=1).std() for mesh in (raw, smooth)]
    assert spread[1] < 0.7 * spread[0]
    assert signed_mm3(smooth) == pytest.approx(signed_mm3(raw), rel=0.01)


def test_a_mask_that_fills_its_array_is_closed_at_the_border():
    mesh = mask_surface(Volume(np.ones((4, 5, 6), dtype=np.uint8), np.eye(4)), smoothing=0)
    assert mesh.n_open_edges == 0
    np.testing.assert_allclose(mesh.bounds, [-0.5, 3.5, -0.5, 4.5, -0.5, 5.5])


def test_without_a_voxel_there_is_no_surface():
    with pytest.raises(ValueError, match="no voxel"):
        mask_surface(Volume(np.zeros((3, 3, 3), dtype=bool), np.eye(4)))
    with pytest.raises(ValueError, match="three axes"):
        mask_surface(Volume(np.ones((3, 3, 3, 2), dtype=bool), np.eye(4)))


SHEET_MM, INNER_MM, SHEET_SPACING = 1.5, 14.0, np.array([0.3646, 0.3646, 0.7])
OBLIQUE = Rotation.from_euler("xyz", [35, -25, 20], degrees=True).as_matrix()


@cache
def shell(handedness: int = 1) -> Volume:
    """Mask of a bowl 1.5 mm thick, oblique, in voxels of a knee: its inner side 14 mm from the scanner's origin."""
    shape = np.ceil(np.array([32.0, 32.0, 32.0]) / SHEET_SPACING).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE @ np.diag([handedness, 1, 1]) * SHEET_SPACING
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    samples = np.zeros(shape)
    for shift in np.ndindex(3, 3, 3):
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) + (np.array(shift) - 1) / 3
        points = index @ affine[:3, :3].T + affine[:3, 3]
        distance = np.linalg.norm(points, axis=-1)
        samples += (distance > INNER_MM) & (distance < INNER_MM + SHEET_MM) & (points[..., 2] > 0.5 * distance)
    return Volume(samples > 13, affine)


def voxels_mm3(mask: Volume) -> float:
    return int(mask.array.sum()) * mask.voxel_mm3


def assert_closed(mesh) -> None:
    """Each edge is walked once in each direction, so there are no holes, no fins, and one outside."""
    corners = mesh.regular_faces
    walked = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    there = np.unique(walked, axis=0)
    assert len(there) == len(walked)
    np.testing.assert_array_equal(there, np.unique(walked[:, ::-1], axis=0))


def assert_normals_look_out(mesh) -> None:
    """Corners are stored counter-clockwise seen from outside, and normals go with them."""
    points, corners = np.asarray(mesh.points, dtype=np.float64), mesh.regular_faces
    across = np.cross(points[corners[:, 1]] - points[corners[:, 0]], points[corners[:, 2]] - points[corners[:, 0]])
    around = mesh.point_data["Normals"][corners].sum(axis=1)
    assert np.mean(np.einsum("ij,ij->i", across, around) > 0) > 0.99
    assert enclosed_volume_mm3(mesh) > 0


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 0.25])
@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("blurred", [False, True])
def test_a_thin_sheet_lies_where_it_is_and_encloses_its_voxels(blurred, handedness, keep):
    mask = shell(handedness)
    mesh = tissue_surface(level_set_from_labels(mask) if blurred else mask, voxels_mm3(mask), keep)
    assert enclosed_volume_mm3(mesh) == pytest.approx(voxels_mm3(mask), rel=1e-3)
    assert_closed(mesh)
    assert_normals_look_out(mesh)
    points = np.asarray(mesh.points)
    distance = np.linalg.norm(points, axis=1)
    flat = points[:, 2] > 0.5 * distance + 2.5
    off = np.minimum(abs(distance - INNER_MM), abs(distance - INNER_MM - SHEET_MM))[flat]
    assert np.sqrt((off**2).mean()) < 0.06
    assert off.max() < 0.25
    outer = distance[flat] > INNER_MM + SHEET_MM / 2
    outward = np.einsum("ij,ij->i", points[flat], mesh.point_data["Normals"][flat]) / distance[flat]
    assert (outward[outer] > 0.9).all()
    assert (outward[~outer] < -0.9).all()


def test_a_sheet_is_smoother_than_with_the_smoothing_of_surface():
    mask = shell()

    def roughness(mesh) -> float:
        points = np.asarray(mesh.points)
        distance = np.linalg.norm(points, axis=1)
        flat = points[:, 2] > 0.5 * distance + 2.5
        return float(np.minimum(abs(distance - INNER_MM), abs(distance - INNER_MM - SHEET_MM))[flat].mean())

    assert roughness(tissue_surface(mask, voxels_mm3(mask))) < 0.6 * roughness(mask_surface(mask))


def test_triangles_are_left_out_as_asked():
    mask = shell()
    counts = [tissue_surface(mask, voxels_mm3(mask), keep).n_cells for keep in (1, 0.5, 0.2)]
    np.testing.assert_allclose(np.array(counts) / counts[0], [1, 0.5, 0.2], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.5, 0.2, 0.05, 0.001])
def test_what_tears_when_triangles_are_left_out_is_mended(keep):
    """Noise is full of necks and bridges; the filter alone leaves hundreds of torn edges in it."""
    mask = Volume(np.random.default_rng(3).random((14, 15, 16)) < 0.6, np.diag([0.4, 0.4, 0.7, 1]))
    torn = mask_surface(mask).decimate(1 - keep, volume_preservation=True)
    assert torn.n_open_edges > 0 or not torn.is_manifold
    mesh = tissue_surface(mask, voxels_mm3(mask), keep)
    assert_closed(mesh)
    assert mesh.n_cells < mask_surface(mask).n_cells or keep == 0.001


def test_pieces_and_hollows_stay():
    array = np.zeros((30, 20, 20), dtype=bool)
    array[3:13, 4:16, 4:16] = array[17:27, 4:16, 4:16] = True
    array[6:10, 8:12, 8:12] = False
    mask = Volume(array, np.diag([0.5, 0.4, 0.6, 1]))
    mesh = tissue_surface(mask, voxels_mm3(mask))
    assert_closed(mesh)
    assert mesh.connectivity()["RegionId"].max() + 1 == 3
    assert enclosed_volume_mm3(mesh) == pytest.approx(voxels_mm3(mask), rel=0.01)
    middle = np.array([7.5, 9.5, 9.5]) * [0.5, 0.4, 0.6]
    inner = np.linalg.norm(np.asarray(mesh.points) - middle, axis=1) < 2
    assert inner.any()
    assert (np.einsum("ij,ij->i", np.asarray(mesh.points)[inner] - middle, mesh.point_data["Normals"][inner]) < 0).all()


def test_a_sheet_of_one_voxel_does_not_vanish():
    array = np.zeros((12, 16, 16), dtype=bool)
    array[6, 2:14, 2:14] = True
    mask = Volume(array, np.diag([0.7, 0.4, 0.4, 1]))
    mesh = tissue_surface(mask, voxels_mm3(mask))
    assert_closed(mesh)
    assert enclosed_volume_mm3(mesh) == pytest.approx(voxels_mm3(mask), rel=0.01)
    inner = (abs(np.asarray(mesh.points)[:, 1:] - 3) < 1.5).all(axis=1)
    thickness = np.ptp(np.asarray(mesh.points)[inner, 0])
    assert 0.4 < thickness < 1.0


@pytest.mark.parametrize("share", [0.3, 3])
def test_a_volume_out_of_reach_is_not_reached_and_can_be_told(share):
    """Corners move 0.65 of a voxel's edge along each axis at most, not through the sheet, and the caller sees it."""
    mask = shell()
    mesh, cut = tissue_surface(mask, share * voxels_mm3(mask)), mask_surface(mask, smoothing=0)
    assert abs(enclosed_volume_mm3(mesh) / voxels_mm3(mask) - share) > 0.1
    assert_closed(mesh)
    moved = np.abs((np.asarray(mesh.points) - np.asarray(cut.points)) @ OBLIQUE)
    assert (moved <= 0.4 * SHEET_SPACING + 0.25 * SHEET_SPACING.min() + 1e-4).all()


def test_numbers_out_of_range_are_refused():
    mask = shell()
    for volume, keep in ((0, 1), (np.nan, 1), (np.inf, 1), (5, 0), (5, 1.5), (5, np.nan)):
        with pytest.raises(ValueError, match="a volume above 0 and a share"):
            tissue_surface(mask, volume, keep)
    with pytest.raises(ValueError, match="no voxel"):
        tissue_surface(mask.with_array(np.zeros(mask.shape, dtype=bool)), 5)


def test_the_same_field_makes_the_same_mesh():
    mask = shell()
    first, second = (tissue_surface(mask, voxels_mm3(mask), 0.3) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.regular_faces, second.regular_faces)


def part_of(labels: Volume, value: int) -> Volume:
    """Mask of a tissue with some voxels around it."""
    box = ndimage.find_objects((labels.array == value).astype(np.uint8))[0]
    x, y, z = (slice(max(0, side.start - 3), side.stop + 3) for side in box)
    part = labels.part((x, y, z))
    return part.with_array(part.array == value)


@pytest.fixture(scope="module")
def made_up() -> Volume:
    return parametric_knee((88, 110, 60), seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("value", LABEL_NAMES["pymskt"].names)
def test_tissues_of_a_made_up_knee_enclose_their_voxels(made_up, value):
    mask = part_of(made_up, value)
    for keep in (1, 0.3):
        mesh = tissue_surface(mask, voxels_mm3(mask), keep)
        assert enclosed_volume_mm3(mesh) == pytest.approx(voxels_mm3(mask), rel=0.01)
        assert_closed(mesh)
        assert_normals_look_out(mesh)


@pytest.mark.slow
@pytest.mark.parametrize("value", [2, 3, 4, 9, 10])
def test_walls_stay_apart_since_no_corner_moves_half_a_voxel(made_up, value):
    """Corners of a mask's cut lie in the middle between two voxels: along each axis they may come near, not across."""
    mask = part_of(made_up, value)
    mesh, cut = tissue_surface(mask, voxels_mm3(mask)), mask_surface(mask, smoothing=0)
    moved = np.abs((np.asarray(mesh.points) - np.asarray(cut.points)) @ mask.affine[:3, :3] / mask.spacing_mm**2)
    push = 0.25 * mask.spacing_mm.min() / mask.spacing_mm
    assert (moved <= 0.4 + push + 1e-4).all()
    assert np.median(moved.max(axis=1)) > 0.05


@each_label_map
def test_tissues_of_real_knees_enclose_their_voxels(path):
    labels = read_volume(path)
    for value in np.unique(labels.array)[1:].tolist():
        mask = part_of(labels, value)
        field, fewer = level_set_from_labels(mask), 0.1 if mask.array.sum() < 200_000 else 1
        for one, keep in ((mask, 1), (field, fewer)):
            mesh = tissue_surface(one, voxels_mm3(mask), keep)
            assert enclosed_volume_mm3(mesh) == pytest.approx(voxels_mm3(mask), rel=0.01)
            assert mesh.n_open_edges == 0
            assert mesh.is_manifold
            assert_normals_look_out(mesh)
