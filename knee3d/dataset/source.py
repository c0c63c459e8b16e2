"""Whatever a user may call an image or a mask -> Volume: the door to all forms of file."""

from dataclasses import dataclass
from pathlib import Path

from pydicom.misc import is_dicom

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.volume import Volume
from knee3d.dataset import hdf5
from knee3d.dataset.archive import unpacked
from knee3d.dataset.channels import labels_of_channels
from knee3d.dataset.dicom.headers import DicomError
from knee3d.dataset.dicom.series import read_series
from knee3d.dataset.volumefile import READABLE, VolumeFileError, read_array, read_volume


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


def read_image(path: Path, choice: Choice = ANY) -> tuple[Volume, Side]:
    """Read a folder of DICOM, a zip of it, a volume file, or an HDF5 image.

    Returns:
        The volume in the source's own axes, and the side of the knee, which only DICOM knows.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It cannot be taken as one volume (`DicomError`, `ArchiveError`, `VolumeFileError`, `Hdf5Error`), it
            is one slice of a DICOM series, or a series is asked of a file.
    """
    if path.is_dir() or path.suffix.lower() == ".zip":
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


def read_mask(path: Path, choice: Choice = ANY) -> Volume:
    """Read labels: integers of one volume, or a channel for each tissue, see `labels_of_channels`.

    Returns:
        In the file's own axes and numbering.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be taken as labels; see `read_image`.
    """
    volume = hdf5.read_hdf5(path, choice.spacing_mm) if path.suffix.lower() in hdf5.ENDINGS else read_array(path)
    if volume.array.ndim == 3:
        return volume
    return volume.with_array(labels_of_channels(volume.array, path.name))


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith((*READABLE, *hdf5.ENDINGS))
