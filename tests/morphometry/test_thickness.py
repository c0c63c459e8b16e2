"""Thickness of sheets whose thickness is known, in any orientation, and of real label maps."""

import numpy as np
import pytest
from real_knees import each_label_map
from scipy import ndimage
from scipy.spatial.transform import Rotation

from knee3d.geometry.resampling import NEAREST, oblique_grid, resample
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import BONE_OF, FEMORAL, LATERAL_TIBIAL, MEDIAL_TIBIAL, PATELLAR, TIBIAL
from knee3d.morphometry.level_set import level_set_from_labels, level_set_from_probabilities
from knee3d.morphometry.thickness import interface_on_bone, interface_without_bone, thickness_along_rays
from knee3d.morphometry.volumes import partial_volumes

SPACING = np.array([0.36, 0.36, 0.7])
RADIUS_MM = 18.0
TURNS = [Rotation.identity(), *Rotation.random(3, random_state=0)]


def cap(turn: Rotation, thickness: float, spacing=SPACING, up=(0, 0, 1.0)) -> tuple[Volume, Volume]:
    """A ball of bone and on it a cap of cartilage, 50 degrees around a direction: bool masks on a turned grid."""
    reach = RADIUS_MM + thickness + 3
    shape = np.ceil(2 * reach / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    places = np.moveaxis(np.indices(tuple(shape)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    away = np.linalg.norm(places, axis=-1)
    covered = places @ np.array(up) > np.cos(np.radians(50)) * away
    bone = away < RADIUS_MM
    return Volume(~bone & (away < RADIUS_MM + thickness) & covered, affine), Volume(bone, affine)


def mean_mm(interface) -> float:
    known = interface.thickness_mm > 0
    return float(np.average(interface.thickness_mm[known], weights=interface.areas_mm2[known]))


@pytest.mark.slow
@pytest.mark.parametrize("thickness", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("turn", TURNS)
def test_a_shell_on_bone_is_as_thick_as_it_is(turn, thickness):
    cartilage, bone = cap(turn, thickness)
    interface = interface_on_bone(level_set_from_labels(cartilage), level_set_from_labels(bone))
    assert mean_mm(interface) == pytest.approx(thickness, abs=0.1)
    area = interface.areas_mm2[interface.thickness_mm > 0].sum()
    assert area == pytest.approx(2 * np.pi * RADIUS_MM**2 * (1 - np.cos(np.radians(50))), rel=0.06)
    assert not interface.inferred


@pytest.mark.slow
@pytest.mark.parametrize("thickness", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(
    ("tissue", "up"), [(TIBIAL, (0, 0, 1.0)), (PATELLAR, (0, -1.0, 0)), (FEMORAL, (0, 0.3, -0.95))]
)
def test_a_shell_whose_bone_is_not_known_too(tissue, up, turn, thickness):
    cartilage, _ = cap(turn, thickness, up=up)
    interface = interface_without_bone(level_set_from_labels(cartilage), tissue)
    assert mean_mm(interface) == pytest.approx(thickness, abs=0.1)
    away = np.linalg.norm(interface.points, axis=1)
    assert np.median(np.abs(away - RADIUS_MM)) < 0.3  # the inner side, not the outer one
    assert interface.inferred


def test_bare_bone_counts_where_cartilage_is_all_around():
    cartilage, bone = cap(TURNS[0], 2.0)
    places = np.moveaxis(np.indices(cartilage.shape), 0, -1) @ cartilage.affine[:3, :3].T + cartilage.affine[:3, 3]
    hole = np.hypot(places[..., 0] - 5, places[..., 1]) < 4
    interface = interface_on_bone(
        level_set_from_labels(cartilage.with_array(cartilage.array & ~hole)), level_set_from_labels(bone)
    )
    bare = interface.within & (interface.thickness_mm == 0)
    assert interface.areas_mm2[bare].sum() == pytest.approx(np.pi * 4**2, rel=0.2)
    assert np.hypot(interface.points[bare, 0] - 5, interface.points[bare, 1]).max() < 5
    assert not interface.within.all()  # the rest of the bone is no part of the joint


def test_hollows_and_specks_of_bone_are_not_bare_bone():
    cartilage, bone = cap(TURNS[0], 2.0)
    hollow = bone.array.copy()
    centre = np.array(hollow.shape) // 2
    hollow[tuple(slice(middle - 5, middle + 5) for middle in centre)] = False
    hollow[2:6, 2:6, 2:6] = True
    interface = interface_on_bone(level_set_from_labels(cartilage), level_set_from_labels(bone.with_array(hollow)))
    bare = interface.within & (interface.thickness_mm == 0)
    assert interface.areas_mm2[bare].sum() < 0.01 * interface.areas_mm2[interface.within].sum()


def test_what_is_too_thick_to_be_true_is_unknown_and_not_bare():
    cartilage, bone = cap(TURNS[1], 10.0)
    interface = interface_on_bone(level_set_from_labels(cartilage), level_set_from_labels(bone))
    unknown = np.isnan(interface.thickness_mm)
    assert interface.areas_mm2[unknown].sum() > 0.8 * 2 * np.pi * RADIUS_MM**2 * (1 - np.cos(np.radians(50)))
    assert interface.within[unknown].all()


def test_cartilage_of_another_bone_is_not_measured():
    cartilage, bone = cap(TURNS[0], 2.0)
    far = np.roll(cartilage.array, 8, axis=2)  # 5.6 mm off
    interface = interface_on_bone(level_set_from_labels(cartilage.with_array(far)), level_set_from_labels(bone))
    assert mean_or_nothing(interface) < 0.5


def mean_or_nothing(interface) -> float:
    return float(np.average(interface.thickness_mm, weights=interface.areas_mm2))


def test_probabilities_tell_more_than_their_labels():
    """A sheet of 2.0 mm on voxels of 1 mm: its labels say 2 or 3 voxels, its probabilities what is true."""
    sampled, bone = cap(TURNS[1], 2.0, spacing=np.array([0.5, 0.5, 0.5]))
    share = [ndimage.uniform_filter(one.array.astype(np.float32), 2)[1::2, 1::2, 1::2] for one in (sampled, bone)]
    affine = sampled.affine.copy()
    affine[:, 3] += affine[:, :3] @ [0.5, 0.5, 0.5]
    affine[:3, :3] *= 2
    classes = np.stack([1 - share[0] - share[1], *share], axis=-1)
    probabilities = Volume(classes, affine)
    labels = probabilities.with_array(classes.argmax(axis=-1))
    fine = interface_without_bone(level_set_from_probabilities(probabilities, labels, 1), TIBIAL)
    assert mean_mm(fine) == pytest.approx(2.0, abs=0.06)


def test_at_the_border_of_the_image_a_plate_is_as_thick_as_its_voxels():
    array = np.zeros((4, 20, 20), np.float32)
    array[:, :, 16:] = 1  # four voxels of 0.5 mm, up to the last one
    field = Volume(array, np.diag([0.5, 0.5, 0.5, 1]))
    points = np.array([[0.5, y, 7.75] for y in (3.0, 5.0)])
    assert thickness_along_rays(field, points, np.tile([0, 0, 1.0], (2, 1))) == pytest.approx(2.0, abs=0.01)


def test_of_a_tissue_whose_bone_is_not_known_nothing_is_inferred():
    cartilage, _ = cap(TURNS[0], 2.0)
    with pytest.raises(ValueError, match="plates told apart"):
        interface_without_bone(level_set_from_labels(cartilage), "cartilage")
    with pytest.raises(ValueError, match="reaches"):
        interface_without_bone(level_set_from_labels(cartilage.with_array(np.zeros_like(cartilage.array))), TIBIAL)


@pytest.mark.parametrize("votes", [0.55, 0.6, 0.9])
def test_a_view_that_misses_a_tissue_moves_no_border(votes):
    """The others outvote it, so that probabilities are `votes` inside and 0 outside."""
    inside = np.zeros((12, 12, 12), np.uint8)
    inside[3:9, 2:10, 5:7] = 1
    labels, numbers = Volume(inside, np.diag([0.4, 0.4, 0.7, 1])), inside.astype(np.float32)
    surely = labels.with_array(np.stack([1 - numbers, numbers], axis=-1))
    outvoted = labels.with_array(np.stack([1 - votes * numbers, votes * numbers], axis=-1))
    expected = level_set_from_probabilities(surely, labels, 1)
    np.testing.assert_allclose(level_set_from_probabilities(outvoted, labels, 1).array, expected.array, atol=1e-5)
    hard = inside.sum() * labels.voxel_mm3
    np.testing.assert_allclose(partial_volumes(labels, outvoted), [hard], rtol=1e-5)


def test_labels_win_where_probabilities_say_otherwise():
    probabilities = Volume(np.full((2, 2, 2, 3), [60, 135, 60], np.uint8), np.eye(4))
    labels = Volume(np.array([[[1, 1], [1, 1]], [[0, 2], [0, 2]]], np.uint8), np.eye(4))
    field = level_set_from_probabilities(probabilities, labels, 1).array
    np.testing.assert_array_equal(field > 0.5, labels.array == 1)
    assert field[0].min() == 1  # as sure as these views get
    with pytest.raises(ValueError, match="tissue 3"):
        level_set_from_probabilities(probabilities, labels, 3)


def plates(labels: Volume):
    """Plate name to the fields of it and its bone, in a box around the plate."""
    values = {name: value for value, name in LABEL_NAMES["pymskt"].names.items()}
    for name in (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR):
        found = ndimage.find_objects((labels.array == values[name]).astype(np.uint8))[0]
        box = tuple(slice(max(0, side.start - 12), side.stop + 12) for side in found)
        part = labels.part(box)
        yield (
            name,
            *(level_set_from_labels(part.with_array(part.array == values[one])) for one in (name, BONE_OF[name])),
        )


PLAUSIBLE_MM = {FEMORAL: (2.0, 2.5), MEDIAL_TIBIAL: (1.5, 2.5), LATERAL_TIBIAL: (1.7, 2.9), PATELLAR: (1.3, 3.0)}
"""Adult knees: 2.0 to 2.5 femoral, 1.5 to 2.9 tibial, 1.3 to 3.0 patellar, worn to thick."""


@each_label_map
def test_real_plates_are_plausibly_thick_with_and_without_their_bones_and_resampled(path):
    labels = read_volume(path)
    moved = Volume(labels.array[1:, 1:, 1:], labels.affine)  # by a voxel, in space and against whatever grid is made
    isotropic = resample(labels, oblique_grid(labels, np.eye(3), 0.5), NEAREST)
    others = zip(plates(moved), plates(isotropic), strict=True)
    for (name, cartilage, bone), (other, again) in zip(plates(labels), others, strict=True):
        mean = mean_mm(interface_on_bone(cartilage, bone))
        assert PLAUSIBLE_MM[name][0] < mean < PLAUSIBLE_MM[name][1]
        assert mean_mm(interface_without_bone(cartilage, name)) == pytest.approx(mean, abs=0.04)
        assert mean_mm(interface_on_bone(*other[1:])) == pytest.approx(mean, abs=0.01)
        assert mean_mm(interface_on_bone(*again[1:])) == pytest.approx(mean, abs=0.1)
