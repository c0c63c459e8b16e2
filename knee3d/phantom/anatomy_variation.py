"""Change the anatomy of a label map: flex the knee, and make cartilage thicker, thinner or locally lost.

`deform_labels` bends and scales the whole of an anatomy. Here its parts change against each other.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from knee3d.geometry.box import bounding_box
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import (
    BONE_OF,
    FEMORAL,
    FEMUR,
    FIBULA,
    LATERAL_MENISCUS,
    LATERAL_TIBIAL,
    MEDIAL_MENISCUS,
    MEDIAL_TIBIAL,
    PATELLA,
    PATELLAR,
    TIBIA,
)
from knee3d.phantom.random_field import random_field

VALUES = LABEL_NAMES["pymskt"].values
PLATES = (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR)
_FEMORAL_SIDE = tuple(VALUES[name] for name in (FEMUR, FEMORAL))
_TIBIAL_SIDE = tuple(
    VALUES[name] for name in (TIBIA, MEDIAL_TIBIAL, LATERAL_TIBIAL, FIBULA, MEDIAL_MENISCUS, LATERAL_MENISCUS)
)
_PATELLAR_SIDE = tuple(VALUES[name] for name in (PATELLA, PATELLAR))
PATELLA_SHARE = 0.7
"""The patella turns about the axis of flexion by this share of what the tibia turns by."""
SHIFTS_MM = np.arange(-4.0, 8.1, 0.5)
"""Shifts that bring a bone back into contact after it was turned."""
MOST_OVERLAP = 0.02
"""The largest share of the cartilage of a bone that may lie within the femur."""
THICKNESS_SCALE_MM = 12.0
"""The distance over which the thickness of a plate varies."""
DEFECT_SCALE_MM = 6.0
"""The distance over which a plate has a defect or none."""


@dataclass(frozen=True)
class FlexionAxis:
    """The axis of flexion: it runs along Left through a point.

    Attributes:
        down: The place of the point along Inferior, in mm from the first voxel.
        back: The same along Posterior.
    """

    down: float
    back: float


def flexion_axis(labels: Volume) -> FlexionAxis:
    """The axis of the cylinder that fits the cartilage of the lower and posterior femur best.

    The posterior condyles are nearly round in sagittal slices, and the tibia turns about their middle (Eckhoff et al.,
    Journal of Bone and Joint Surgery 87 Suppl 2, 71-80, 2005).

    Args:
        labels: Labels in pymskt numbering, canonical axes.

    Raises:
        ValueError: There is too little femoral cartilage to fit a circle to.
    """
    down, back, _ = np.nonzero(labels.array == VALUES[FEMORAL])
    if len(down) < 100:
        raise ValueError("there is too little femoral cartilage in the label map to flex the knee")
    places = np.stack([down, back], axis=1) * labels.spacing_mm[:2]
    places = places[places[:, 1] > np.percentile(places[:, 1], 35)]
    columns = np.column_stack([2 * places, np.ones(len(places))])
    found, *_ = np.linalg.lstsq(columns, (places**2).sum(axis=1), rcond=None)  # a circle by algebraic least squares
    return FlexionAxis(float(found[0]), float(found[1]))


def flex_knee(labels: Volume, degrees: float) -> Volume:
    """The same knee with another flexion: tibia and patella turn about the axis of flexion, and stay in contact.

    Menisci and fibula move with the tibia. Where a turned bone would lie in the femur, the femur is kept.

    Args:
        labels: Integer labels in pymskt numbering, canonical axes.
        degrees: How much further the knee is bent; negative values straighten it. Bones stay rigid; angles of more than
            some 20 degrees leave gaps that real menisci and ligaments would fill.

    Returns:
        Labels on the same grid. Where bones leave the image at its lower end, shafts go on.

    Raises:
        ValueError: There is too little femoral cartilage to find the axis.
    """
    if degrees == 0:
        return labels
    axis = flexion_axis(labels)
    array = np.where(np.isin(labels.array, _FEMORAL_SIDE), labels.array, 0)
    for side, share, along in ((_TIBIAL_SIDE, 1.0, (1.0, 0.0)), (_PATELLAR_SIDE, PATELLA_SHARE, (0.0, -1.0))):
        part = np.where(np.isin(labels.array, side), labels.array, 0).astype(labels.array.dtype)
        if part.any():
            moved = _in_contact(part, array, axis, share * degrees, np.array(along), labels.spacing_mm)
            array = np.where(array == 0, moved, array)
    return labels.with_array(array.astype(labels.array.dtype))


def _in_contact(
    part: np.ndarray, fixed: np.ndarray, axis: FlexionAxis, degrees: float, along: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    """A part turned, and then moved along a direction as far as it takes to lie beside the fixed one.

    Args:
        part: Labels of the part that moves.
        fixed: Labels of the part that does not.
        axis: About which it turns.
        degrees: By how much.
        along: (2,) direction, in the plane of Inferior and Posterior, that leads away from the fixed part.
        spacing: (3,) voxel size in mm.
    """
    plates = [VALUES[name] for name in PLATES]
    step = max(1, round(1.4 / spacing[2]))
    for shift in SHIFTS_MM:
        places = _turned_places(part.shape[:2], axis, degrees, shift * along, spacing)
        cartilage = np.isin(_taken(part[:, :, ::step], *places), plates)
        overlap = np.count_nonzero(cartilage & (fixed[:, :, ::step] > 0))
        if overlap <= MOST_OVERLAP * int(np.count_nonzero(cartilage)):
            break
    return _taken(part, *places)


def _taken(part: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The voxels of slices at some places; below the image its last row goes on, elsewhere beyond it is nothing."""
    height, width = part.shape[:2]
    inside = (rows >= 0) & (columns >= 0) & (columns < width)
    found = part[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside[..., None], found, 0)


def _turned_places(
    shape: tuple[int, ...], axis: FlexionAxis, degrees: float, shift_mm: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column that each voxel of a sagittal slice had before it was turned and moved."""
    angle = np.radians(degrees)
    down, back = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, spacing, strict=False)), indexing="ij")
    down, back = down - axis.down - shift_mm[0], back - axis.back - shift_mm[1]
    # bending moves what is below the axis backwards
    before_down = np.cos(angle) * down + np.sin(angle) * back + axis.down
    before_back = -np.sin(angle) * down + np.cos(angle) * back + axis.back
    return np.rint(before_down / spacing[0]).astype(int), np.rint(before_back / spacing[1]).astype(int)


def vary_cartilage(labels: Volume, seed: int, thickness: tuple[float, float], defects: float = 0.0) -> Volume:
    """Make each plate of cartilage thicker or thinner, unevenly, with places where it is lost.

    A voxel of a plate is kept if its relative depth (0 at the bone, 1 at the surface) is below the factor of its place.
    Where the factor is above 1, the plate grows into what has no label.

    Args:
        labels: Integer labels in pymskt numbering, canonical axes.
        seed: Of the factors and defects.
        thickness: The smallest and the largest factor of a plate. Within a plate the factor varies by a fifth.
        defects: The largest share of a plate that is lost; what a plate loses is between none and this.

    Returns:
        Labels on the same grid.

    Raises:
        ValueError: A plate is there without its bone.
    """
    array = labels.array.copy()
    for number, plate in enumerate(PLATES):
        rng = np.random.default_rng([seed, number])
        factor, lost = rng.uniform(*thickness), rng.uniform(0, defects)
        inside = labels.array == VALUES[plate]
        box = bounding_box(inside, np.ceil(6 / labels.spacing_mm).astype(int))
        if box is None:
            continue
        bone = labels.array[box] == VALUES[BONE_OF[plate]]
        if not bone.any():
            raise ValueError(f"{plate} is there without its {BONE_OF[plate]}; the thickness needs both")
        part = labels.part(box)
        rows = slice(0, part.shape[0])
        field, holes = (random_field(part, scale, rng).rows(rows) for scale in (THICKNESS_SCALE_MM, DEFECT_SCALE_MM))
        factors = factor * (1 + 0.2 * field.clip(-2, 2))
        if lost:
            factors[holes > np.quantile(holes[inside[box]], 1 - lost)] = 0
        array[box] = _with_thickness(array[box], VALUES[plate], bone, factors, labels.spacing_mm)
    return labels.with_array(array)


def _with_thickness(
    labels: np.ndarray, plate: int, bone: np.ndarray, factors: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    """Labels in which a plate has other thicknesses; `factors` is float32 of the same shape."""
    inside = labels == plate
    to_bone = ndimage.distance_transform_edt(~bone, sampling=spacing)
    to_outside = ndimage.distance_transform_edt(inside | bone, sampling=spacing)
    surface = inside & (to_outside <= 1.01 * spacing.max())
    # The thickness at a place is how far the nearest place of the surface is from the bone.
    away, nearest = ndimage.distance_transform_edt(~surface, sampling=spacing, return_indices=True)
    thickness = to_bone[tuple(nearest)]
    found = labels.copy()
    half = spacing.min() / 2  # distances are between the centres of voxels
    found[inside & (to_bone - half > factors * (to_bone + to_outside - 2 * half))] = 0
    grown = (labels == 0) & (to_bone - half <= factors * thickness) & (away <= thickness)
    found[grown] = plate
    return found
