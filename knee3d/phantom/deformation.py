"""Deform label maps by a seed, and thin their cartilage."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import BONE_OF

_KNOT_MM = 30.0
# A cubic B-spline displacement whose coefficients stay below 1 / 2.48 of the knot distance is one-to-one
# (Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions, 2000).
_LARGEST_MM = 0.35 * _KNOT_MM
_ELASTIC_MM = 4.0
_SCALE, _ROTATION_DEG, _SHEAR = 0.07, 8.0, 0.03


@dataclass(frozen=True, eq=False)
class Deformation:
    """A one-to-one map of millimetres to millimetres about the middle of a field of view.

    Attributes:
        matrix: (3, 3) float64, the affine part.
        knots: (k0, k1, k2, 3) float64, coefficients in mm of uniform cubic B-splines, `_KNOT_MM` apart, the second
            knot of each axis at the first edge of the field of view.
    """

    matrix: np.ndarray
    knots: np.ndarray


def draw_deformation(extent_mm: np.ndarray, seed: int, strength: float = 1.0) -> Deformation:
    """A deformation such as lies between two people's knees.

    Args:
        extent_mm: (3,) float, field of view along each axis.
        seed: Same seed, same deformation.
        strength: 1 is scale within 7 %, rotation within 8 degrees, shear within 3 % and displacements with a standard
            deviation of about 2 mm; 0 is the identity. Elastic coefficients are cut so that it stays one-to-one.
    """
    rng = np.random.default_rng(seed)
    scale = 1 + strength * _SCALE * (0.6 * rng.uniform(-1, 1) + 0.4 * rng.uniform(-1, 1, 3))
    angles = np.radians(strength * _ROTATION_DEG) * rng.uniform(-1, 1, 3)
    shear = np.triu(strength * _SHEAR * rng.uniform(-1, 1, (3, 3)), 1)
    counts = np.ceil(np.asarray(extent_mm) / _KNOT_MM).astype(int) + 3
    knots = np.clip(strength * _ELASTIC_MM * rng.standard_normal((*counts, 3)), -_LARGEST_MM, _LARGEST_MM)
    rotation = Rotation.from_euler("XYZ", angles * [1, -1, 1]).as_matrix()
    return Deformation(rotation @ (np.diag(scale) + shear), knots)


def deform_labels(
    labels: Volume, seed: int, strength: float = 1.0, shape: tuple[int, int, int] | None = None
) -> Volume:
    """Another person's knee made from this one: the label map under a smooth, one-to-one deformation.

    Args:
        labels: Integer labels in any axis order; any numbering, 0 is background.
        seed: Same seed, same result.
        strength: How different the new knee is, see `draw_deformation`; 0 keeps the shape.
        shape: Voxels of the result over the same field of view; None keeps the source's.

    Returns:
        Labels of the same dtype in canonical axes. Every label was interpolated linearly on its own, after a low-pass
        filter where the grid gets coarser, and the largest wins, so no label appears that the source lacks. What lies
        outside the source's field of view repeats its edge: shafts go on. With `strength` 0 on the source's grid the
        voxels and the affine are exactly the source's.

    Raises:
        ValueError: The labels are not integers or not 3-D.
    """
    if labels.array.ndim != 3 or not np.issubdtype(labels.array.dtype, np.integer):
        raise ValueError(f"expected a 3-D label map of integers, got {labels.array.dtype} of {labels.array.shape}")
    source = to_canonical(labels)
    shape = source.shape if shape is None else shape
    if strength == 0 and shape == source.shape:
        return Volume(np.ascontiguousarray(source.array), source.affine)
    ratio = np.divide(source.shape, shape)
    deformation = draw_deformation(source.spacing_mm * source.shape, seed, strength)
    array = _resample(source, deformation, shape)
    affine = source.affine @ np.diag([*ratio, 1.0])
    affine[:3, 3] = (source.affine @ np.array([*(ratio - 1) / 2, 1.0]))[:3]
    return Volume(array, affine)


def thin_cartilage(labels: Volume, fraction: float) -> Volume:
    """A later visit: every cartilage plate loses its outermost part, and nothing else changes.

    Voxels are ranked by relative depth, distance to the plate's bone over that plus the distance to what is neither
    bone nor plate, so a thick place loses as large a part as a thin one.

    Args:
        labels: Integer labels in pymskt numbering, any axis order.
        fraction: Part of each plate's voxels to remove, 0 to 1, rounded to whole voxels: the loss of volume is known.

    Returns:
        Labels on the same grid, removed voxels 0.

    Raises:
        ValueError: A plate is there without its bone.
    """
    values = LABEL_NAMES["pymskt"].values
    array = labels.array.copy()
    for plate, bone in ((plate, BONE_OF[plate]) for plate in values if plate in BONE_OF):
        inside = labels.array == values[plate]
        if not inside.any():
            continue
        if not (labels.array == values[bone]).any():
            raise ValueError(f"{plate} is there without its {bone}; thinning needs both to tell inside from outside")
        box = tuple(
            slice(max(0, where.start - 12), where.stop + 12)
            for where in ndimage.find_objects(inside.astype(np.uint8))[0]
        )
        array[box][_outermost(inside[box], labels.array[box] == values[bone], labels.spacing_mm, fraction)] = 0
    return labels.with_array(array)


def _outermost(plate: np.ndarray, bone: np.ndarray, spacing: np.ndarray, fraction: float) -> np.ndarray:
    """Bool mask of the `fraction` of `plate` with the greatest relative depth; ties go by how exposed a voxel is."""
    to_bone = ndimage.distance_transform_edt(~bone, sampling=spacing)[plate]
    to_outside = ndimage.distance_transform_edt(plate | bone, sampling=spacing)[plate]
    support = ndimage.gaussian_filter((plate | bone).astype(np.float32), 1.0)[plate]
    order = np.lexsort((support, -to_bone / (to_bone + to_outside)))
    removed = np.zeros(len(order), dtype=bool)
    removed[order[: round(fraction * len(order))]] = True
    mask = np.zeros(plate.shape, dtype=bool)
    mask[plate] = removed
    return mask


def _spline_basis(positions_mm: np.ndarray, knots: int) -> np.ndarray:
    """(positions, knots) float32, value of each uniform cubic B-spline at each position."""
    apart = np.abs(positions_mm[:, None] / _KNOT_MM - (np.arange(knots) - 1))
    near, far = 2 / 3 - apart**2 + apart**3 / 2, np.clip(2 - apart, 0, None) ** 3 / 6
    return np.where(apart < 1, near, far).astype(np.float32)


def _source_index(source: Volume, deformation: Deformation, shape: tuple[int, int, int], rows: slice) -> np.ndarray:
    """Source index of each voxel in some rows of the new grid: (3, rows, n1, n2) float32."""
    extent = source.spacing_mm * source.shape
    places = [(np.arange(n) + 0.5) / n * length for n, length in zip(shape, extent, strict=True)]
    places[0] = places[0][rows]
    bases = [_spline_basis(place, knots) for place, knots in zip(places, deformation.knots.shape, strict=False)]
    moved = np.moveaxis(deformation.knots.astype(np.float32), 3, 0)
    for axis, basis in enumerate(bases, start=1):
        moved = np.moveaxis(np.tensordot(basis, moved, (1, axis)), 0, axis)
    centred = [place - length / 2 for place, length in zip(places, extent, strict=True)]
    grid = np.meshgrid(*[axis.astype(np.float32) for axis in centred], indexing="ij", sparse=True)
    for out in range(3):
        for axis in range(3):
            moved[out] += np.float32(deformation.matrix[out, axis]) * grid[axis]
        moved[out] = (moved[out] + extent[out] / 2) / source.spacing_mm[out] - 0.5
        np.clip(moved[out], 0, source.shape[out] - 1, out=moved[out])
    return moved


def _resample(source: Volume, deformation: Deformation, shape: tuple[int, int, int]) -> np.ndarray:
    """Labels on the new grid, see `deform_labels`. Only voxels near a border need interpolating."""
    blur = np.clip((np.divide(source.shape, shape) - 1) / 3, 0, None)
    reach = 3 + 2 * np.ceil(2 * blur).astype(int)
    mixed = ndimage.maximum_filter(source.array, reach) != ndimage.minimum_filter(source.array, reach)
    array = np.empty(shape, dtype=source.array.dtype)
    places, where = [], []
    step = max(1, 4_000_000 // (shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        index = _source_index(source, deformation, shape, slice(start, start + step))
        nearest = tuple(np.rint(index).astype(np.int32))
        array[start : start + step] = source.array[nearest]
        border = mixed[nearest]
        places.append(index[:, border])
        where.append(np.flatnonzero(border) + start * shape[1] * shape[2])
    array.reshape(-1)[np.concatenate(where)] = _vote(source.array, np.concatenate(places, axis=1), blur)
    return array


def _vote(array: np.ndarray, places: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Label with the largest interpolated weight at each of `places` (3, n), index coordinates inside the array."""
    best = np.full(places.shape[1], -1, dtype=np.float32)
    winner = np.zeros(places.shape[1], dtype=array.dtype)
    for value in np.unique(array):
        mask = ndimage.gaussian_filter((array == value).astype(np.float32), blur, truncate=2.0, mode="nearest")
        weight = ndimage.map_coordinates(mask, places, order=1, mode="nearest", output=np.float32)
        better = weight > best
        best[better], winner[better] = weight[better], value
    return winner
