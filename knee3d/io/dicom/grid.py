"""Find the regular grid of the frames of a stack, or the reason why they form none.

Geometry comes from ImagePositionPatient, ImageOrientationPatient and PixelSpacing alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import LARGEST
from knee3d.io.dicom.headers import PLACE_TAGS, DicomError, Frame

_COSINE_TOLERANCE = 1e-3  # 0.06 degrees: 0.1 mm across a knee
_EXACT = 1e-5
_UNIT_TOLERANCE = 3e-3  # of products of unit vectors whose numbers have three decimals
_MM_TOLERANCE = 1e-2
_FARTHEST = 10  # times the usual distance, of slices of one series between which others are lost
_GAP_TOLERANCE = 1e-2  # of the distance between slices


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """Where the voxels of a stack lie.

    Attributes:
        frames: In order along the normal of the slices.
        affine: (4, 4) float64 from (column, row, slice) to RAS mm.
        side: Of the knee, unknown if no frame names it.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray
    side: Side

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        rows, columns = self.frames[0].shape
        return columns, rows, len(self.frames)


def regular_grid(frames: Sequence[Frame]) -> SliceGrid:
    """The grid that frames make, whatever order they come in.

    Raises:
        DicomError: A frame has no usable place, there are fewer than 2, they differ in size, spacing or orientation,
            lie at one place, leave gaps, are coloured, do not lie straight above each other, name both sides, or are
            absurdly large.
    """
    for one in frames:
        if one.colour:
            raise DicomError(f"{one.name} is a colour picture; a volume needs grey images, choose another --series")
        _check_place(one)
    if len(frames) < 2:
        raise DicomError(f"a volume needs at least 2 slices, there is only {_names(frames)}; choose another --series")
    _check_agreement(frames, "rows and columns", [one.shape for one in frames], 0)
    _check_agreement(frames, "PixelSpacing", [one.spacing for one in frames], 1e-4)
    _check_agreement(frames, "ImageOrientationPatient", [one.cosines for one in frames], _COSINE_TOLERANCE)
    if np.prod(frames[0].shape, dtype=float) * len(frames) > LARGEST:
        raise DicomError(f"{_names(frames)} claim {frames[0].shape} pixels each: too large for a knee, or corrupt")
    told = frames[0].cosines.reshape(2, 3)
    cosines = _perpendicular(told)
    normal = np.cross(cosines[0], cosines[1])
    ordered = sorted(frames, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in ordered])
    _check_gaps(ordered, positions @ normal)
    _check_line(ordered, positions @ cosines.T, positions @ normal)
    affine = np.eye(4)
    affine[:3, 0] = cosines[0] * frames[0].spacing[1]  # to the next column goes the distance between columns
    affine[:3, 1] = cosines[1] * frames[0].spacing[0]
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    # Where numbers were rounded, the axes are made perpendicular, as NIfTI needs them.
    affine[:3, 2] = step if np.allclose(cosines, told, rtol=0, atol=_EXACT) else np.linalg.norm(step) * normal
    affine[:3, 3] = positions[0]
    return SliceGrid(
        tuple(ordered), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, _side(ordered)
    )  # from DICOM's LPS to RAS


def is_one_stack(frames: Sequence[Frame]) -> bool:
    """Whether frames that lie in several folders are parts of one stack, and not one stack in each folder.

    They are if they have one size and direction, name no two sides, and lie at even distances. Where slices are lost,
    frames of different folders must be as far apart as those of one folder are, within a factor.
    """
    if not frames or any(one.position.size != 3 or one.cosines.size != 6 for one in frames):
        return False
    cosines, positions = (np.array([getattr(one, name) for one in frames]) for name in ("cosines", "position"))
    sizes, sides = {one.shape for one in frames}, {one.side for one in frames} - {Side.UNKNOWN}
    if max(len(sizes), len(sides)) > 1 or np.ptp(cosines, axis=0).max() > 2 * _COSINE_TOLERANCE:
        return False
    heights = positions @ np.cross(*cosines[0].reshape(2, 3))
    order = heights.argsort(kind="stable")
    folders = np.array([str(frames[number].path.parent) for number in order])
    gaps, across = np.diff(heights[order]), folders[1:] != folders[:-1]
    if not across.any() or np.ptp(gaps) < max(_MM_TOLERANCE, _GAP_TOLERANCE * gaps.max()) < gaps.min():
        return True
    within = np.concatenate([np.diff(heights[order][folders == folder]) for folder in np.unique(folders)])
    usual = np.median(within if within.size else gaps)
    return bool(usual / 2 < gaps[across].min() and gaps[across].max() < _FARTHEST * usual)


def _check_place(frame: Frame) -> None:
    places = (frame.position, frame.cosines, frame.spacing)
    missing = [name for name, numbers in zip(PLACE_TAGS, places, strict=True) if not numbers.size]
    if missing:
        raise DicomError(f"{frame.name} lacks {', '.join(missing)}: cut off or stripped; export the series again")
    usable = [numbers.size for numbers in places] == [3, 6, 2]
    usable = usable and bool(np.isfinite(np.concatenate(places)).all()) and frame.spacing.min() > 0
    pair = frame.cosines.reshape(-1, 3) if usable else np.zeros((2, 3))
    if np.abs(pair @ pair.T - np.eye(2)).max() > _UNIT_TOLERANCE:
        raise DicomError(
            f"{frame.name} has no usable place: ImagePositionPatient {frame.position}, ImageOrientationPatient "
            f"{frame.cosines}, PixelSpacing {frame.spacing}; expected 3 numbers, two perpendicular unit vectors and "
            "2 numbers above 0; export the series again"
        )


def _perpendicular(cosines: np.ndarray) -> np.ndarray:
    """The nearest pair of perpendicular unit vectors: headers round them."""
    left, _, right = np.linalg.svd(cosines, full_matrices=False)
    return left @ right


def _check_agreement(frames: Sequence[Frame], what: str, values: Sequence, tolerance: float) -> None:
    """Every frame's numbers are within `tolerance` of those that most frames share."""
    table = np.array(values, dtype=np.float64)
    _, kinds, counts = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    usual = table[counts[kinds.ravel()].argmax()]
    odd = np.flatnonzero((np.abs(table - usual) > tolerance).any(axis=1)).tolist()
    if odd:
        raise DicomError(
            f"{what} must be one in a series; most files have {usual.tolist()}, but {table[odd[0]].tolist()} is "
            f"in {_names([frames[i] for i in odd])}; move those files elsewhere, or choose another --series"
        )


def _check_gaps(ordered: Sequence[Frame], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    same = np.flatnonzero(gaps < _MM_TOLERANCE).tolist()
    if same:
        where = "; ".join(_names(ordered[i : i + 2]) for i in same[:3])
        way_out = "remove copies of files, and separate magnitude from phase and time points from each other"
        if ordered[same[0]].path == ordered[same[0] + 1].path:
            way_out = "split the file, in which several time points or stacks may be, with dcm2niix for example"
        raise DicomError(f"slices lie at the same place: {where} ({len(same)} such pairs); {way_out}")
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_MM_TOLERANCE, _GAP_TOLERANCE * usual)).tolist()
    if odd:
        where = "; ".join(f"{gaps[i]:.3f} mm between {_names(ordered[i : i + 2])}" for i in odd[:3])
        raise DicomError(
            f"slices must be evenly spaced, most are {usual:.3f} mm apart, but {where} ({len(odd)} such gaps); add the "
            "missing files, or separate what is more than one series"
        )


def _check_line(ordered: Sequence[Frame], places: np.ndarray, heights: np.ndarray) -> None:
    """Slices lie straight above each other; a sheared stack is no volume of perpendicular axes."""
    beside = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    odd = np.flatnonzero(beside > _MM_TOLERANCE + _COSINE_TOLERANCE * np.abs(heights - np.median(heights))).tolist()
    if odd:
        raise DicomError(
            f"slices must lie straight above each other, but {_names([ordered[i] for i in odd])} lie up to "
            f"{beside.max():.2f} mm sideways; separate what is more than one series, or resample the stack"
        )


def _side(frames: Sequence[Frame]) -> Side:
    both = [one for one in frames if one.both]
    if both:
        raise DicomError(
            f"{_names(both)} show both knees by their laterality (B); crop the image to one, in 3D Slicer for example"
        )
    named = {one.side: one.name for one in frames if one.side is not Side.UNKNOWN}
    if len(named) > 1:
        which = f"right in {named[Side.RIGHT]}, left in {named[Side.LEFT]}"
        raise DicomError(f"the series says both sides: {which}; separate the two knees, or correct Laterality")
    return next(iter(named), Side.UNKNOWN)


def _names(frames: Sequence[Frame]) -> str:
    shown = frames[:4]
    alike = len({one.name for one in shown}) < len(shown)  # copies in several folders
    names = ", ".join(f"{one.path.parent.name}/{one.name}" if alike else one.name for one in shown)
    return names if len(frames) <= 4 else f"{names} and {len(frames) - 4} more"
