"""Every order of axes comes in right side up, and goes out as it was."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from knee3d.geometry.orientation import (
    CANONICAL,
    Side,
    axis_codes,
    from_canonical,
    mirror_left_right,
    reorient,
    to_canonical,
)
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices, to_slices
from knee3d.geometry.volume import Volume

ORDERS = ["".join(order) for axes in permutations(("RL", "AP", "SI")) for order in product(*axes)]
UNIT = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
SPACING = (0.36, 0.7, 1.5)


def turn(degrees: float) -> np.ndarray:
    """(3, 3) oblique: the same angle about all three axes."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return x @ y


def knee(codes: str, degrees: float = 0.0) -> Volume:
    """Random voxels whose indices increase toward `codes`."""
    affine = np.eye(4)
    affine[:3, :3] = turn(degrees) @ np.array([UNIT[code] for code in codes]).T * SPACING
    affine[:3, 3] = (11, -22, 33)
    return Volume(np.random.default_rng(1).integers(0, 1000, (4, 5, 6)), affine)


def places(volume: Volume) -> dict[tuple, int]:
    """Value at each place of the patient, in whole micrometres."""
    index = np.stack([*np.indices(volume.shape), np.ones(volume.shape)], axis=-1)
    mm = (index @ volume.affine.T)[..., :3]
    return {tuple(key): value for key, value in zip((mm * 1000).round().astype(int).reshape(-1, 3).tolist(),
                                                    volume.array.ravel().tolist(), strict=True)}  # fmt: skip


def test_there_are_48_orders():
    assert len(set(ORDERS)) == 48


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("codes", ORDERS)
def test_canonical_keeps_every_voxel_in_its_place(codes, degrees):
    source = knee(codes, degrees)
    assert axis_codes(source.affine) == codes
    canonical = to_canonical(source)
    assert axis_codes(canonical.affine) == CANONICAL
    assert places(canonical) == places(source)
    assert canonical.voxel_mm3 == pytest.approx(np.prod(SPACING))


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("codes", ORDERS)
def test_there_and_back_through_slices_is_exact(codes, side, plane):
    source = knee(codes, 8)
    canonical = to_canonical(source, side)
    again = from_slices(to_slices(canonical, plane), plane, canonical.affine)
    back = from_canonical(again, codes, side)
    np.testing.assert_array_equal(back.array, source.array)
    np.testing.assert_allclose(back.affine, source.affine, atol=1e-9)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("about", ["x", "y", "z"])
@pytest.mark.parametrize("codes", ORDERS)
def test_at_45_degrees_the_way_back_is_the_inverse_of_the_way_there(codes, about, side):
    """Two axes are equally close to two directions there: which is which must not hang on their order."""
    source = knee(codes)
    affine = source.affine.copy()
    affine[:3] = Rotation.from_euler(about, 45, degrees=True).as_matrix() @ affine[:3]
    for digits in (15, 6):  # DICOM's direction cosines often have six
        turned = Volume(source.array, affine.round(digits))
        back = from_canonical(to_canonical(turned, side), axis_codes(turned.affine), side)
        np.testing.assert_array_equal(back.array, turned.array)
        np.testing.assert_allclose(back.affine, turned.affine, atol=1e-9)


@pytest.mark.parametrize("codes", ORDERS)
def test_mirror_is_its_own_inverse_and_keeps_axes(codes):
    source = knee(codes, 15)
    once = mirror_left_right(source)
    assert axis_codes(once.affine) == codes
    assert {(-x, y, z): value for (x, y, z), value in places(source).items()} == places(once)
    assert places(mirror_left_right(once)) == places(source)


def test_a_left_knee_has_its_medial_side_where_a_right_one_has():
    """Medial is toward the middle of the body: left on a right knee, right on a left one."""
    right = Volume(np.zeros((2, 2, 6), int), knee("IPL").affine)
    medial = right.with_array(np.broadcast_to(np.arange(6), (2, 2, 6)))  # grows toward the patient's left: medially
    left = mirror_left_right(medial)
    assert (np.diff(to_canonical(medial, Side.RIGHT).array, axis=2) == 1).all()
    assert (np.diff(to_canonical(left, Side.LEFT).array, axis=2) == 1).all()
    assert (np.diff(to_canonical(left, Side.UNKNOWN).array, axis=2) == -1).all()


@pytest.mark.parametrize("codes", ["", "RAX", "RAL", "RASI", "RRA"])
def test_nonsense_codes_are_refused(codes):
    with pytest.raises(ValueError, match="axis codes"):
        reorient(knee("RAS"), codes)
