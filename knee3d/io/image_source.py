"""Read an image or a mask of any supported format. ReadOptions: what the path does not say."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from knee3d.geometry.box import Box
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, check_axis_codes, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io import array_file, outlines
from knee3d.io.archive import extracted_archive
from knee3d.io.dicom.headers import DicomError, is_dicom
from knee3d.io.dicom.segmentation import is_segmentation, read_segmentation
from knee3d.io.dicom.series import SeriesSelector, read_series
from knee3d.io.mask_channels import labels_from_channels
from knee3d.io.slicer_segmentation import read_segments, read_slicer_segmentation
from knee3d.io.volume_file import READABLE, VolumeFileError, read_array, read_volume
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import LabelScheme
from knee3d.records import Settings


@dataclass(frozen=True)
class ReadOptions(SeriesSelector):
    """What a path alone does not say.

    Attributes:
        spacing_mm: Three distances in mm between voxels along the axes of an array of HDF5 or NumPy, which does not
            know them; None for all other forms.
        axes: Where the axes of such an array run to, see `read_array_file`; empty for all other forms.

    Raises:
        ValueError: A spacing is not above 0, or axes are not one each of R/L, A/P, S/I.
    """

    spacing_mm: tuple[float, float, float] | None = None
    axes: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        spacing = self.spacing_mm
        if spacing is not None and (len(spacing) != 3 or not all(0 < mm < 1000 for mm in spacing)):
            raise ValueError(f"--spacing is three distances in mm above 0, got {self.spacing_mm}")
        if self.axes:
            check_axis_codes(self.axes)

    @property
    def settings(self) -> Settings:
        """Ready for a record. A series is there as a hash, because its unique identifier leads back to the scan."""
        series = self.series and hashlib.sha256(self.series.encode()).hexdigest()[:16]
        return {**asdict(self), "series": series, "spacing_mm": self.spacing_mm and list(self.spacing_mm)}


log = logging.getLogger(__name__)

DEFAULT_OPTIONS = ReadOptions()
NEARLY_WHOLE = 0.02
"""A label may be so far off a whole number, by the scaling of its file."""
MASK_TOLERANCE = 0.1
"""Corners of a mask may be off those of its image by this part of the smallest side of a voxel."""


@dataclass(frozen=True)
class ImageSource:
    """An image that comes in from outside.

    Attributes:
        path: A folder of DICOM or a zip of it, or a volume file.
        side: As the user says; unknown takes DICOM's word.
        choice: What the path alone does not say.
    """

    path: Path
    side: Side = Side.UNKNOWN
    choice: ReadOptions = DEFAULT_OPTIONS


@dataclass(frozen=True)
class MaskFile:
    """Labels as a file has them.

    Attributes:
        path: The file.
        labels: In the file's numbering, canonical axes, not mirrored.
        label_names: What they mean, if the file itself tells.
        names_its_values: Whether `label_names` names the label values that a user sees, so that a label file may
            contradict it. DICOM-SEG and outlines have numbers of their own.
    """

    path: Path
    labels: Volume
    label_names: LabelNames | None = None
    names_its_values: bool = False

    def on_grid_of(self, image: Volume) -> Volume:
        """The labels on the image's grid; nothing is resampled.

        They may cover a part of the image, as programs leave empty slices and margins out; a warning says so where
        tissue reaches the edge of the part. Programs round places, so corners may be a tenth of the smallest side of a
        voxel apart.

        Args:
            image: Canonical axes, not mirrored.

        Raises:
            ValueError: They lie on another grid; or they are as many as every second (third, ...) voxel of the image,
                at the places of the first ones: their affine was kept when they were made coarser.
        """
        tolerance = MASK_TOLERANCE * float(image.spacing_mm.min())
        if self.labels.same_grid(image, tolerance):
            return image.with_array(self.labels.array)
        try:
            box = image.box_of(self.labels, tolerance)
        except ValueError:
            raise self._not_on_grid(image, tolerance) from None
        self._check_part(image, box)
        return self.labels.padded_to(image, tolerance)

    def _not_on_grid(self, image: Volume, tolerance: float) -> VolumeFileError:
        if self.labels.shape == image.shape:
            apart = self.labels.corners_apart_mm(image)
            problem = f"their corners are up to {apart:.3f} mm apart, {tolerance:.3f} mm may be"
        else:
            problem = f"in canonical axes it has {_grid(self.labels)} and the image {_grid(image)}"
        return VolumeFileError(
            f"mask {self.path} is not on the image's grid: {problem}; is it of another series? If not, resample it to "
            "the image (nearest neighbour)"
        )

    def _check_part(self, image: Volume, box: Box) -> None:
        """Refuse labels that look like every second voxel of the image, and warn where a part cuts through tissue."""
        sides = list(zip(self.labels.shape, image.shape, box, strict=True))
        coarser = self.label_names is None  # programs that name their labels know where they put them
        if coarser and all(whole % mine == 0 and side.start in (0, whole - mine) for mine, whole, side in sides):
            raise VolumeFileError(
                f"mask {self.path} has {_voxels(self.labels.shape)} voxels at a corner of the image, which has "
                f"{_voxels(image.shape)}: it looks as if it was made coarser and its affine was not changed; resample "
                "it to the image (nearest neighbour). If it is a part of the image, pad it to the whole"
            )
        inner = [
            (axis, end)
            for axis, (_, whole, side) in enumerate(sides)
            for end, at_edge in ((0, side.start == 0), (-1, side.stop == whole))
            if not at_edge
        ]
        if any(np.take(self.labels.array, end, axis).any() for axis, end in inner):
            log.warning(
                "mask %s covers %s of %s voxels of the image, and tissue reaches its edge; beyond it is background",
                self.path, _voxels(self.labels.shape), _voxels(image.shape),
            )  # fmt: skip


def _voxels(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def is_dicom_source(path: Path) -> bool:
    """Whether a path is read as DICOM: a folder, or a zip of one."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def read_image(path: Path, choice: ReadOptions = DEFAULT_OPTIONS) -> KneeImage:
    """Read a folder of DICOM, a zip of it, a volume file, or an array of HDF5 or NumPy.

    Returns:
        The image in the source's own axes, with the side of the knee, which only DICOM knows.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It cannot be taken as one volume (`DicomError`, `ArchiveError`, `VolumeFileError`,
            `ArrayFileError`), it is one slice of a DICOM series, or a series is asked of a file.
    """
    if is_dicom_source(path):
        with extracted_archive(path) as folder:
            try:
                volume, side = read_series(folder, choice)
            except DicomError as error:  # of a zip, name the zip and not the folder that will be gone
                raise DicomError(str(error).replace(str(folder), str(path))) from error
            return KneeImage(volume.array, volume.affine, side)
    if path.is_file() and not _is_known(path) and (path.suffix == ".dcm" or is_dicom(path)):
        if is_segmentation(path):
            raise VolumeFileError(f"{path.name} holds labels (DICOM-SEG) and no image; it goes with one, as its mask")
        raise VolumeFileError(f"{path.name} is one file of a DICOM series; give the folder, {path.parent}")
    if choice.series is not None or choice.echo is not None:
        raise VolumeFileError(f"{path} is not a folder of DICOM; --series and --echo choose within one, leave them out")
    if path.suffix.lower() in array_file.ENDINGS:
        return _bare_image(path, choice)
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
        raise VolumeFileError(f"{path.name} has no header; give the one beside it, {path.with_suffix('.hdr').name}")
    if path.is_file() and not _is_known(path):
        forms = ", ".join((*READABLE, *array_file.ENDINGS))
        raise VolumeFileError(
            f"{path.name} is none of the forms that are read: a folder of DICOM, a zip of it, {forms}; convert it"
        )
    volume = read_volume(path)
    return KneeImage(volume.array, volume.affine)


def _bare_image(path: Path, choice: ReadOptions) -> KneeImage:
    volume = array_file.read_array_file(path, choice.spacing_mm, choice.axes)
    if volume.array.shape[3:] == (1,):
        return KneeImage(volume.array[..., 0], volume.affine)
    if volume.array.ndim != 3:
        raise array_file.ArrayFileError(f"{path.name} has channels, {volume.array.shape}: is it a mask?")
    return KneeImage(volume.array, volume.affine)


def read_mask(
    path: Path,
    knee: Callable[[], KneeImage],
    choice: ReadOptions = DEFAULT_OPTIONS,
    scheme: LabelScheme | None = None,
) -> MaskFile:
    """Read the labels of an image: integers, a channel for each tissue, 3D Slicer's, DICOM-SEG, or iMorphics' outlines.

    Args:
        path: A volume file, HDF5, .npy, .mat or DICOM-SEG file; or a folder that holds only one.
        knee: Gives the image of the knee; only outlines ask for it, as they cannot be filled without.
        choice: What the path alone does not say.
        scheme: Its tissues are known besides knee3d's, where a file names its labels; None is none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be taken as labels, see `read_image`.
    """
    if path.is_dir():
        files = [one for one in sorted(path.iterdir()) if one.is_file() and not one.name.startswith(".")]
        if len(files) != 1:
            raise VolumeFileError(
                f"{path} is a folder of {len(files)} files and no mask; give the one that is the mask"
            )
        return read_mask(files[0], knee, choice, scheme)
    if path.suffix.lower() in outlines.ENDINGS:
        image = knee()
        return MaskFile(path, *outlines.read_outlines(path, to_canonical(image), image.side))
    if path.is_file() and not _is_known(path) and is_segmentation(path):
        labels, label_names = read_segmentation(path, scheme)
        return MaskFile(path, to_canonical(labels), label_names)
    if path.is_file() and (segments := read_segments(path)):
        labels, label_names = read_slicer_segmentation(path, segments, scheme)
        return MaskFile(path, to_canonical(labels), label_names, names_its_values=True)
    bare = path.suffix.lower() in array_file.ENDINGS
    volume = array_file.read_array_file(path, choice.spacing_mm, choice.axes) if bare else read_array(path)
    is_labels = volume.array.ndim == 3
    array = _whole(volume.array, path) if is_labels else labels_from_channels(volume.array, path.name)
    return MaskFile(path, to_canonical(volume.with_array(array)))


def _whole(labels: np.ndarray, path: Path) -> np.ndarray:
    """Labels as whole numbers; those that a file's scaling has made nearly so are rounded, and it is said."""
    if labels.dtype.kind != "f" or not np.isfinite(labels).all():
        return labels
    rounded = np.rint(labels)
    off = np.abs(labels - rounded)
    if off.max() > NEARLY_WHOLE:
        share = 100 * np.count_nonzero(off > NEARLY_WHOLE) / labels.size
        raise VolumeFileError(
            f"{path.name} was interpolated: {share:.2g} % of its voxels lie between labels; resample labels by nearest "
            "neighbour"
        )
    if off.any():
        log.warning("%s: labels are up to %.2g off whole numbers; rounded", path.name, off.max())
    return rounded


def _grid(volume: Volume) -> str:
    origin = np.round(volume.affine[:3, 3], 2).tolist()
    return f"shape {volume.shape}, spacing {np.round(volume.spacing_mm, 4).tolist()} mm, origin {origin} mm"


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith((*READABLE, *array_file.ENDINGS))
