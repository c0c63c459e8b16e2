"""NIfTI, NRRD and MetaImage files <-> Volume.

SimpleITK reads and writes. It thinks in LPS and in arrays with the slice first; a Volume is RAS and indexed (x, y, z).
"""

import gzip
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk

from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file
from knee3d.dataset.places import HEADERS, files_of

_ONE_FILE = (".nii", ".nii.gz", ".nrrd", ".mha")
READABLE = _ONE_FILE + HEADERS
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NIFTI_COSINE_TOLERANCE = 1e-4
_PLACE_TOLERANCE_MM = 0.05  # ITK tells the header's numbers with six digits
_ROUNDED = 3e-3  # of products of unit vectors whose numbers have three decimals
# Or ITK refuses rounded axes. What it makes of them is not used: it takes the inverse rotation.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "ON")
_ITK_TYPES = {np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)} | {np.dtype("f4"), np.dtype("f8")}

# ITK writes warnings straight to the terminal, past Python's warnings and logging. What matters of
# them is an error here.
sitk.ProcessObject_GlobalWarningDisplayOff()


class VolumeFileError(ValueError):
    """A file that cannot be taken as one volume, or a volume that a file cannot hold; the text says the way out."""


def read_volume(path: Path) -> Volume:
    """Read one volume with one number per voxel.

    Args:
        path: .nii, .nii.gz, .hdr of a NIfTI pair, .nrrd, .nhdr, .mha or .mhd.

    Returns:
        Voxels indexed as the file orders them, (x, y, z), in the file's dtype; float where a NIfTI file rescales.

    Raises:
        FileNotFoundError: There is no such file.
        VolumeFileError: The file is of another form, unreadable, sheared, without orientation, or holds anything but
            one number per voxel of one volume.
    """
    volume = read_array(path)
    if volume.array.ndim != 3:
        raise VolumeFileError(
            f"{path.name} must hold one number per voxel of one volume, it has {volume.array.shape}; extract one volume"
        )
    return volume


def read_array(path: Path) -> Volume:
    """Read one volume, or several on one grid: as `read_volume`, but a fourth axis may count channels or time points.

    Raises:
        FileNotFoundError: There is no such file.
        VolumeFileError: As for `read_volume`; complex numbers, or five axes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; volumes are read from {', '.join(READABLE)}")
    _check_name(path)
    if not path.name.lower().endswith(READABLE):
        raise VolumeFileError(f"{path.name} is none of the forms that are read: {', '.join(READABLE)}; convert it")
    try:
        image = sitk.ReadImage(str(path))
        if _is_nifti(path):
            _check_length(path, image)
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise VolumeFileError(_reason(path, str(error))) from error
    size, parts = list(image.GetSize()), image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayFromImage(image)
    array = np.moveaxis(array, -1, 0).T if parts > 1 else array.T[..., None]  # the last axis now counts components
    shape = size[:3] + [count for count in (*size[3:], parts) if count > 1]
    if len(size) < 3 or len(shape) > 4 or np.iscomplexobj(array):
        kind = f"size {tuple(size)}, {image.GetPixelIDTypeAsString()}"
        raise VolumeFileError(
            f"{path.name} must hold one number per voxel of one volume, it has {kind}; extract one volume"
        )
    try:
        affine = _affine(path, image)
        _check_place(path, image, affine)
        return Volume(array.reshape(shape), affine)
    except VolumeFileError:
        raise
    except ValueError as error:  # a header with NaN, or axes that fall together
        raise VolumeFileError(f"{path.name} does not lie in space: {error}; convert it from DICOM again") from error


def write_volume(volume: Volume, path: Path, header: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write one volume; the file appears whole or not at all.

    Args:
        volume: Without channels. Boolean voxels become uint8; other types are kept.
        path: .nii, .nii.gz, .nrrd or .mha. NRRD and MHA are compressed.
        header: These fields and their texts are added to the header of a NRRD file; other forms get none.

    Raises:
        VolumeFileError: The form is another, or cannot hold this volume.
    """
    _check_name(path)
    if not path.name.lower().endswith(_ONE_FILE):
        raise VolumeFileError(f"cannot write {path.name}; volumes are written to {', '.join(_ONE_FILE)}")
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    if array.ndim != 3 or array.dtype.newbyteorder("=") not in _ITK_TYPES:
        raise VolumeFileError(
            f"{path.name} holds integers or float32/64 without channels, got {array.dtype} {array.shape}"
        )
    cosines = volume.affine[:3, :3] / volume.spacing_mm
    if ".nii" in path.name.lower() and _shear(volume.affine) > _NIFTI_COSINE_TOLERANCE:
        # ITK would straighten the axes without a word, and refuse such files of others.
        raise VolumeFileError(
            f"{path.name}: the axes are not perpendicular, NIfTI would bend them; write .nrrd or .mha"
        )
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=array.dtype.newbyteorder("=")))
    image.SetSpacing(volume.spacing_mm.tolist())
    image.SetOrigin((_LPS_TO_RAS @ volume.affine)[:3, 3].tolist())
    image.SetDirection((_LPS_TO_RAS[:3, :3] @ cosines).ravel().tolist())
    for field, text in header.items():
        image.SetMetaData(field, text)
    with whole_file(path) as partial:
        try:
            sitk.WriteImage(image, str(partial), useCompression=True)
        except RuntimeError as error:
            raise VolumeFileError(f"cannot write {path}: {_last_line(error)}; is there room and permission?") from error


def _check_name(path: Path) -> None:
    """Refuse a name whose bytes are not UTF-8: SimpleITK would end the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="replace")
        raise VolumeFileError(f"the name of {shown} is not UTF-8, as an old system wrote it; rename it") from error


def _affine(path: Path, image: sitk.Image) -> np.ndarray:
    """(4, 4) index to RAS mm; of more than three axes the first three. Rounded axes of NIfTI are made perpendicular."""
    count = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (count, count))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    affine = _LPS_TO_RAS @ affine
    told = _sform(path, image)
    if told is not None and (shear := _shear(told)) > _NIFTI_COSINE_TOLERANCE:
        if shear > _ROUNDED:
            raise VolumeFileError(_reason(path, "orthonormal"))
        spacing = np.linalg.norm(told[:, :3], axis=0)
        left, _, right = np.linalg.svd(told[:, :3] / spacing)
        affine[:3, :3], affine[:3, 3] = left @ right * spacing, told[:, 3]
    return affine


def _sform(path: Path, image: sitk.Image) -> np.ndarray | None:
    """(3, 4) rows of a NIfTI file's sform; None where it has none."""
    if not _is_nifti(path) or image.GetMetaData("sform_code") == "0":
        return None
    return np.array([image.GetMetaData(f"srow_{axis}").split() for axis in "xyz"], dtype=np.float64)


def _shear(rows: np.ndarray) -> float:
    """The largest cosine between two axes."""
    cosines = rows[:3, :3] / np.linalg.norm(rows[:3, :3], axis=0)
    return float(np.abs(cosines.T @ cosines - np.eye(3)).max())


def _is_nifti(path: Path) -> bool:
    return ".nii" in path.name.lower() or path.suffix.lower() == ".hdr"


def _check_length(path: Path, image: sitk.Image) -> None:
    """ITK fills up what a cut-off NIfTI file lacks with zeros, and warns on the terminal alone."""
    sizes = [int(image.GetMetaData(f"dim[{i + 1}]")) for i in range(int(image.GetMetaData("dim[0]")))]
    wanted = int(float(image.GetMetaData("vox_offset"))) + math.prod(sizes) * int(image.GetMetaData("bitpix")) // 8
    if path.suffix.lower() == ".hdr":  # the voxels lie in a file beside it
        path = next((one for one in files_of(path) if ".img" in one.name.lower()), path)
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        found = sum(len(block) for block in iter(lambda: file.read(1 << 20), b""))
    if found < wanted:
        raise EOFError(f"it is cut off, {found} of {wanted} bytes are there")


def _check_place(path: Path, image: sitk.Image, affine: np.ndarray) -> None:
    """ITK fills a missing orientation with a guess, and of two that differ takes one; neither goes on in silence."""
    nifti, told = _is_nifti(path), _sform(path, image)
    if told is not None:
        off = (np.abs(told - affine[:3]) @ [*image.GetSize()[:3], 1]).max()
        reach = np.linalg.norm(told[:, :3], axis=0) @ image.GetSize()[:3]
        allowed = _PLACE_TOLERANCE_MM + _ROUNDED * reach * (_shear(told) > _NIFTI_COSINE_TOLERANCE)
        problem = f"its sform and qform are up to {off:.2f} mm apart" if off > allowed else ""
    elif nifti:
        problem = "its qform and sform are unset" if image.GetMetaData("qform_code") == "0" else ""
    else:
        nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
        problem = "it has no space" if nrrd and not image.HasMetaDataKey("NRRD_space") else ""
    if problem:
        raise VolumeFileError(
            f"{path.name} says not how it lies in the patient, {problem}; convert it from DICOM again"
        )


def _reason(path: Path, text: str) -> str:
    if "orthonormal" in text:
        return (
            f"the axes of {path.name} are not perpendicular; resample it to a straight grid, or give the DICOM folder"
        )
    return f"cannot read {path.name}: {_last_line(text)}; is it complete, and of the form its name says?"


def _last_line(error: object) -> str:
    return str(error).strip().splitlines()[-1]
