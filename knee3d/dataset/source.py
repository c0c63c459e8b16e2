"""Whatever a user may call an image or a mask -> Volume: the door to all forms of file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.misc import is_dicom

from knee3d.anatomy.orientation import Side, to_canonical
from knee3d.anatomy.tissue import Numbering
from knee3d.anatomy.volume import Volume
from knee3d.dataset.dicom.headers import DicomError
from knee3d.dataset.dicom.segmentation import is_segmentation, read_segmentation
from knee3d.dataset.dicom.series import read_series
from knee3d.dataset.files import contours, hdf5
from knee3d.dataset.files.archive import unpacked
from knee3d.dataset.files.channels import labels_of_channels
from knee3d.dataset.files.volumefile import READABLE, VolumeFileError, read_array, read_volume


@dataclass(frozen=True)
class Choice:
    """What a path alone does not say.

    Attributes:
        series: Which DICOM series, by UID or number; None where it is plain.
        echo: Which echo, by number, or "rss" for the root sum of squares; None where it is plain.
        spacing_mm: Between voxels along the axes of an HDF5 array, which does not know; other forms do.

    Raises:
        ValueError: A spacing is not above 0.
    """

    series: str | None = None
    echo: str | None = None
    spacing_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not all(0 < mm < 1000 for mm in self.spacing_mm):
            raise ValueError(f"--spacing is three distances in mm above 0, got {self.spacing_mm}")


ANY = Choice()


@dataclass(frozen=True)
class Source:
    """An image that comes in from outside.

    Attributes:
        path: A folder of DICOM or a zip of it, or a volume file.
        side: As the user says; unknown takes DICOM's word.
        choice: What the path alone does not say.
    """

    path: Path
    side: Side = Side.UNKNOWN
    choice: Choice = ANY


def is_dicom_source(path: Path) -> bool:
    """Whether a path is read as DICOM: a folder, or a zip of one."""
    return path.is_dir() or path.suffix.lower() == ".zip"


def read_image(path: Path, choice: Choice = ANY) -> tuple[Volume, Side]:
    """Read a folder of DICOM, a zip of it, a volume file, or an HDF5 image.

    Returns:
        The volume in the source's own axes, and the side of the knee, which only DICOM knows.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It cannot be taken as one volume (`DicomError`, `ArchiveError`, `VolumeFileError`, `Hdf5Error`), it
            is one slice of a DICOM series, or a series is asked of a file.
    """
    if is_dicom_source(path):
        with unpacked(path) as folder:
            try:
                return read_series(folder, choice.series, choice.echo)
            except DicomError as error:  # of a zip, name the zip and not the folder that will be gone
                raise DicomError(str(error).replace(str(folder), str(path))) from error
    if path.is_file() and not _is_known(path) and (path.suffix == ".dcm" or is_dicom(path)):
        raise VolumeFileError(f"{path.name} is one file of a DICOM series; give the folder, {path.parent}")
    if choice.series is not None or choice.echo is not None:
        raise VolumeFileError(f"{path} is not a folder of DICOM; --series and --echo choose within one, leave them out")
    if path.suffix.lower() in hdf5.ENDINGS:
        volume = hdf5.read_hdf5(path, choice.spacing_mm)
        if volume.array.ndim != 3:
            raise hdf5.Hdf5Error(f"{path.name} has channels, {volume.array.shape}: is it a mask?")
        return volume, Side.UNKNOWN
    return read_volume(path), Side.UNKNOWN


def read_mask(
    path: Path, knee: Callable[[], tuple[Volume, Side]], choice: Choice = ANY
) -> tuple[Volume, Numbering | None]:
    """Read the labels of an image: integers, a channel for each tissue, DICOM-SEG, or iMorphics' outlines.

    Args:
        path: A volume file, HDF5, .mat or DICOM-SEG file.
        knee: Gives the image and its side; called when the file itself has been read, so that both can be at once.
        choice: What the path alone does not say.

    Returns:
        Labels in the file's numbering on the image's grid in canonical axes, not mirrored; and that numbering, if the
        file itself tells what its numbers mean.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be taken as labels, see `read_image`, or lies on another grid than the image.
    """
    if path.suffix.lower() in contours.ENDINGS:
        image, side = knee()
        return contours.read_contours(path, to_canonical(image), side)
    if path.is_file() and not _is_known(path) and is_segmentation(path):
        labels, numbering = read_segmentation(path)
        return _part_of_image(to_canonical(labels), to_canonical(knee()[0]), path), numbering
    volume = hdf5.read_hdf5(path, choice.spacing_mm) if path.suffix.lower() in hdf5.ENDINGS else read_array(path)
    array = volume.array if volume.array.ndim == 3 else labels_of_channels(volume.array, path.name)
    labels, image = to_canonical(volume.with_array(array)), to_canonical(knee()[0])
    if not labels.same_grid(image):
        raise VolumeFileError(
            f"mask {path} is not on the image's grid: in canonical axes it has {_grid(labels)} "
            f"and the image {_grid(image)}; resample the mask to the image (nearest neighbour)"
        )
    return labels, None


def _part_of_image(labels: Volume, image: Volume, path: Path) -> Volume:
    """DICOM-SEG leaves slices without tissue out."""
    try:
        return labels.padded_to(image)
    except ValueError as error:
        raise VolumeFileError(
            f"mask {path} is not on the image's grid: in canonical axes it has {_grid(labels)}, which is no part of "
            f"the image's {_grid(image)}; is it of another series?"
        ) from error


def _grid(volume: Volume) -> str:
    origin = np.round(volume.affine[:3, 3], 2).tolist()
    return f"shape {volume.shape}, spacing {np.round(volume.spacing_mm, 4).tolist()} mm, origin {origin} mm"


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith((*READABLE, *hdf5.ENDINGS))
