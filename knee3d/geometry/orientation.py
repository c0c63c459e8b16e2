"""Convert any order of axes to (Inferior, Posterior, Left) and back, and mirror left knees.

Axis codes are three letters that say where each array index increases to, so that "IPL" is canonical, and a NIfTI
file in nibabel's "RAS+" order is "RAS".
"""

from enum import StrEnum
from itertools import permutations

import numpy as np

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume

CANONICAL = "IPL"

_POSITIVE = "RAS"
_NEGATIVE = "LPI"


class Side(StrEnum):
    """Which knee it is. The value is what stands in tables; unknown is empty."""

    RIGHT = "R"
    LEFT = "L"
    UNKNOWN = ""


def find_side(side: Side | str) -> Side:
    """The side of a knee.

    Args:
        side: "R", "L", or "" where it is not known.

    Raises:
        ValueError: It is another text.

    Example:
        >>> find_side("L")
        <Side.LEFT: 'L'>
    """
    if side not in list(Side):
        raise ValueError(f"side {side!r} is none; a knee is R, L or '' (unknown)")
    return Side(side)


def axis_codes(affine: np.ndarray) -> str:
    """Anatomical direction in which each array index increases.

    Args:
        affine: (4, 4) float, index to RAS mm. An oblique grid gets the closest one-to-one assignment, that with the
            largest sum of direction cosines. At 45 degrees two are equally close; the same one is taken however the
            array's axes are ordered and directed, so that the way back is the inverse of the way there.

    Returns:
        Three letters of R/L, A/P, S/I, such as "IPL".
    """
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    between = cosines[0] * cosines[1] + 2 * cosines[0] * cosines[2] + 4 * cosines[1] * cosines[2]  # sign does not count

    def closeness(order: tuple[int, ...]) -> float:
        return sum(abs(cosines[axis, i]) + 1e-6 * axis * between[i] for i, axis in enumerate(order))

    axes = max(permutations(range(3)), key=closeness)
    return "".join((_POSITIVE if cosines[axes[i], i] > 0 else _NEGATIVE)[axes[i]] for i in range(3))


def acquired_plane(affine: np.ndarray) -> Plane:
    """The plane in which a scanner took the slices that the third array axis counts; the closest one if oblique."""
    letter = axis_codes(affine)[2]
    return next(plane for plane, pair in zip(Plane, ("IS", "PA", "LR"), strict=True) if letter in pair)


def reorient(volume: Volume, codes: str) -> Volume:
    """The same voxels at the same places with array axes in another order; nothing is resampled.

    Args:
        volume: Any volume.
        codes: Three letters as from `axis_codes`.

    Returns:
        A volume whose array is a view of the source's, and whose affine takes the new indices to the old places.

    Raises:
        ValueError: `codes` does not name one direction of each of R/L, A/P, S/I.
    """
    check_axis_codes(codes)
    source = axis_codes(volume.affine)
    order = [_axes(source).index(axis) for axis in _axes(codes)]
    array = np.moveaxis(volume.array, order, (0, 1, 2))
    affine = volume.affine[:, [*order, 3]].copy()
    for axis, code in enumerate(codes):
        if source[order[axis]] != code:
            array = np.flip(array, axis)
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
    return Volume(array, affine)


def check_axis_codes(codes: str) -> str:
    """The axis codes that came in.

    Raises:
        ValueError: They do not name one direction of each of R/L, A/P, S/I.
    """
    if len(codes) != 3 or any(sum(letter in pair for letter in codes) != 1 for pair in ("RL", "AP", "SI")):
        raise ValueError(f"axis codes need one letter each of R/L, A/P and S/I, such as {CANONICAL}; got {codes!r}")
    return codes


def anatomical_direction(letter: str) -> np.ndarray:
    """The unit vector, (3,) in RAS, of one of the letters R, A, S, L, P and I."""
    unit = np.zeros(3)
    unit[_axes(letter)[0]] = 1 if letter in _POSITIVE else -1
    return unit


_LEFT = CANONICAL.index("L")
"""The axis along which a canonical volume is mirrored; at 45 degrees `axis_codes` may name another."""


def _axes(codes: str) -> list[int]:
    """Which axis of the scanner's frame each letter lies on."""
    return [(_POSITIVE + _NEGATIVE).index(letter) % 3 for letter in codes]


def mirror_left_right(volume: Volume) -> Volume:
    """The knee in a mirror: left becomes right. Its own inverse.

    Space is reflected at x = 0 and the array axis closest to left-right is reversed, so that axis codes stay as they
    are and a left knee can be read by whatever knows right ones.
    """
    codes = axis_codes(volume.affine)
    return _mirror(volume, next(i for i, letter in enumerate(codes) if letter in "RL"))


def _mirror(volume: Volume, axis: int) -> Volume:
    affine = volume.affine.copy()
    affine[:, 3] += affine[:, axis] * (volume.shape[axis] - 1)
    affine[:, axis] *= -1
    affine[0] *= -1
    return Volume(np.flip(volume.array, axis), affine)


def to_canonical(volume: Volume, side: Side = Side.UNKNOWN) -> Volume:
    """Axes (Inferior, Posterior, Left); a left knee is mirrored to a right one, an unknown one is left as it is."""
    canonical = reorient(volume, CANONICAL)
    return _mirror(canonical, _LEFT) if side is Side.LEFT else canonical


def from_canonical(volume: Volume, codes: str, side: Side = Side.UNKNOWN) -> Volume:
    """Back to the source's axes and side: the inverse of `to_canonical` for a source with these axis codes."""
    return reorient(_mirror(volume, _LEFT) if side is Side.LEFT else volume, codes)
