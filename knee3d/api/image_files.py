"""Read the image of a knee from any format, and write a volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from knee3d.choices import check_type
from knee3d.dataset.input_case import case_name
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, find_side
from knee3d.geometry.volume import Volume
from knee3d.io.image_source import ReadOptions, read_image
from knee3d.io.volume_file import write_volume
from knee3d.labels.laterality import agreed_side


def read(
    path: Path | str,
    *,
    side: Side | str = Side.UNKNOWN,
    name: str | None = None,
    series: str | int | None = None,
    echo: str | int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    axes: str = "",
    any_modality: bool = False,
    incomplete: bool = False,
) -> KneeImage:
    """Read the image of a knee.

    Args:
        path: A folder of DICOM, a zip of one, or a NIfTI, NRRD, MHA, HDF5 or .npy file.
        side: "R" or "L", where the file does not tell. It must agree with DICOM, where that tells.
        name: The name of the knee in progress bars and tables. None takes that of the path.
        series: SeriesInstanceUID or number of the series, where a folder holds several.
        echo: Number of the echo, or "rss" (root sum of squares over all), where a series holds several.
        spacing_mm: Distances in mm between voxels along the axes of an array (HDF5, .npy), which has none.
        axes: Directions of the axes of an array, such as "LIP". The default is "IPR" for HDF5.
        any_modality: Whether DICOM images of another modality than MR, or of none, are read as MR.
        incomplete: Whether a series may have fewer images than its headers say.

    Returns:
        The image in the axes of the file, with its place in the patient and its side.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: It cannot be taken as one volume. The message names the file and the way out.

    Example:
        >>> image = read("path/to/dicom")         # doctest: +SKIP
        >>> image.side, image.spacing_mm          # doctest: +SKIP
        (<Side.RIGHT: 'R'>, array([0.36, 0.36, 0.7 ]))
    """
    known = find_side(side)
    chosen, which = (None if value is None else str(value) for value in (series, echo))
    options = ReadOptions(chosen, which, any_modality, incomplete, spacing_mm, axes.upper())
    image = read_image(Path(path), options)
    return replace(image, side=agreed_side(known, image.side), name=name or case_name(Path(path)))


def write(volume: Volume, path: Path | str) -> Path:
    """Write a volume, an image or labels, with its place in the patient.

    Args:
        volume: The volume, three axes.
        path: Its ending says the format: .nii, .nii.gz, .nrrd or .mha.

    Returns:
        The path. The file appears whole or not at all.

    Raises:
        TypeError: It is no volume.
        ValueError: The ending is another one, or the format cannot hold the volume.
        OSError: The file cannot be written.

    Example:
        >>> write(read("path/to/dicom"), "knee.nii.gz")        # doctest: +SKIP
        PosixPath('knee.nii.gz')
    """
    check_type("volume", volume, Volume)
    write_volume(volume, Path(path))
    return Path(path)
