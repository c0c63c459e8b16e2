"""Read and write NIfTI, NRRD and MetaImage files.

SimpleITK reads and writes. It thinks in LPS and in arrays with the slice first; a Volume is RAS and indexed (x, y, z).
"""

import gzip
import math
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from knee3d.atomic import whole_file
from knee3d.geometry.volume import LARGEST, Volume
from knee3d.io.paths import HEADERS, files_read_for
from knee3d.io.text_header import read_header_fields

_ONE_FILE = (".nii", ".nii.gz", ".nrrd", ".mha")
READABLE = _ONE_FILE + HEADERS
_META_FIELDS = (
    ("ElementSpacing",), ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"),
)  # fmt: skip
"""What a MetaImage file must say of its place, each by one of these names."""
_SPACES = {
    "left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las",
}  # fmt: skip
"""Spaces of NRRD in which directions of the patient are known."""
_UNITS = {1: 1000.0, 3: 0.001}
"""Of xyzt_units in NIfTI, metres and micrometres, in mm; all else counts as mm."""
_FLOATS = {"16": "f4", "64": "f8"}
"""NIfTI's number of a type of voxels -> NumPy's name."""
_PIXDIM = 76
"""Where a NIfTI header has its voxel sizes."""
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
        raise FileNotFoundError(
            f"there is no file or folder {path}; volumes are read from {', '.join(READABLE)}, and DICOM from folders "
            "and zips"
        )
    _check_name(path)
    if not path.name.lower().endswith(READABLE):
        raise VolumeFileError(f"{path.name} is none of the forms that are read: {', '.join(READABLE)}; convert it")
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if math.prod(reader.GetSize()) * reader.GetNumberOfComponents() > LARGEST:
            raise VolumeFileError(f"{path.name} claims {reader.GetSize()} voxels: too large for a knee, or corrupt")
        image = reader.Execute()
        if _is_nifti(path):
            _check_voxels(path, image)
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
    if told is not None and image.GetMetaData("qform_code") == "0":  # then ITK goes by voxel sizes, too
        affine[:3] = told
    if told is not None and (shear := _shear(told)) > _NIFTI_COSINE_TOLERANCE:
        if shear > _ROUNDED:
            raise VolumeFileError(_reason(path, "orthonormal"))
        spacing = np.linalg.norm(told[:, :3], axis=0)
        left, _, right = np.linalg.svd(told[:, :3] / spacing)
        affine[:3, :3], affine[:3, 3] = left @ right * spacing, told[:, 3]
    return affine


def _sform(path: Path, image: sitk.Image) -> np.ndarray | None:
    """(3, 4) rows of a NIfTI file's sform in mm; None where it has none."""
    if not _is_nifti(path) or image.GetMetaData("sform_code") == "0":
        return None
    rows = np.array([image.GetMetaData(f"srow_{axis}").split() for axis in "xyz"], dtype=np.float64)
    return rows * _unit(image)


def _qform(path: Path, image: sitk.Image) -> np.ndarray:
    """(3, 4) rows in mm that a NIfTI file's quaternion says: method 2 of nifti1.h."""
    b, c, d = (float(image.GetMetaData(f"quatern_{letter}")) for letter in "bcd")
    turn = Rotation.from_quat([b, c, d, np.sqrt(max(1 - b * b - c * c - d * d, 0))]).as_matrix()
    sizes = np.array([float(image.GetMetaData(f"pixdim[{axis}]")) for axis in (1, 2, 3)])
    begin = _bytes_of(path, _PIXDIM + 4)  # ITK does not tell the first of them, a sign
    sizes[2] *= -1 if np.frombuffer(begin, f"{_order(begin)}f4", 1, _PIXDIM)[0] < 0 else 1
    offset = [float(image.GetMetaData(f"qoffset_{axis}")) for axis in "xyz"]
    return np.column_stack([turn * sizes, offset]) * _unit(image)


def _unit(image: sitk.Image) -> float:
    """Of the lengths in a NIfTI header, in mm."""
    return _UNITS.get(int(image.GetMetaData("xyzt_units")) & 7, 1.0)


def _shear(rows: np.ndarray) -> float:
    """The largest cosine between two axes."""
    cosines = rows[:3, :3] / np.linalg.norm(rows[:3, :3], axis=0)
    return float(np.abs(cosines.T @ cosines - np.eye(3)).max())


def _is_nifti(path: Path) -> bool:
    return ".nii" in path.name.lower() or path.suffix.lower() == ".hdr"


def _check_voxels(path: Path, image: sitk.Image) -> None:
    """Refuse a NIfTI file that is cut off, or holds NaN: ITK takes what is missing and what is no number for 0.

    Raises:
        EOFError: It is cut off.
        VolumeFileError: Voxels are no numbers.
    """
    sizes = [int(image.GetMetaData(f"dim[{i + 1}]")) for i in range(int(image.GetMetaData("dim[0]")))]
    start, count = int(float(image.GetMetaData("vox_offset"))), math.prod(sizes)
    wanted = start + count * int(image.GetMetaData("bitpix")) // 8
    if min(start, count, wanted) < 0:
        raise EOFError("its header contradicts itself")
    begin, place = _bytes_of(path, 4), path
    if path.suffix.lower() == ".hdr":  # the voxels lie in a file beside it
        place = next((one for one in files_read_for(path) if ".img" in one.name.lower()), path)
    content = _bytes_of(place, wanted)
    if len(content) < wanted:
        raise EOFError(f"it is cut off, {len(content)} of {wanted} bytes are there")
    if (kind := _FLOATS.get(image.GetMetaData("datatype"))) is None:
        return
    voxels = np.frombuffer(content, f"{_order(begin)}{kind}", count, start)
    bad = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
    if bad:
        raise VolumeFileError(f"{path.name}: {bad:,} voxels are NaN or infinite; mend it (for example, set them to 0)")


def _order(begin: bytes) -> str:
    """Of bytes in a NIfTI file, whose first number is the header's size, 348."""
    return "<" if int.from_bytes(begin[:4], "little") < 1 << 16 else ">"


def _bytes_of(path: Path, count: int) -> bytes:
    """As many as there are of the first so many, unpacked."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        return file.read(count)


def _check_place(path: Path, image: sitk.Image, affine: np.ndarray) -> None:
    """ITK fills a missing orientation with a guess, and of two that differ takes one; neither goes on in silence."""
    problem = _nifti_problem(path, image, affine) if _is_nifti(path) else _text_problem(path)
    if problem:
        raise VolumeFileError(
            f"{path.name} does not say how it lies in the patient, {problem}; convert it from DICOM again"
        )


def _nifti_problem(path: Path, image: sitk.Image, affine: np.ndarray) -> str:
    told = _sform(path, image)
    if told is None:
        return "its qform and sform are unset" if image.GetMetaData("qform_code") == "0" else ""
    others = [affine[:3]] if image.GetMetaData("qform_code") == "0" else [affine[:3], _qform(path, image)]
    off = max((np.abs(told - other) @ [*image.GetSize()[:3], 1]).max() for other in others)
    reach = np.linalg.norm(told[:, :3], axis=0) @ image.GetSize()[:3]
    allowed = _PLACE_TOLERANCE_MM + _ROUNDED * reach * (_shear(told) > _NIFTI_COSINE_TOLERANCE)
    return f"its sform and qform are up to {off:.2f} mm apart" if off > allowed else ""


def _text_problem(path: Path) -> str:
    """What the header of a NRRD or MetaImage file lacks, or says of units; empty if nothing is wrong."""
    fields = read_header_fields(path)
    if path.suffix.lower() in (".mha", ".mhd"):
        lacking = [names[0] for names in _META_FIELDS if not any(name.lower() in fields for name in names)]
        units = fields.get("distanceunits", "mm")
        return f"it has no {lacking[0]}" if lacking else "" if units == "mm" else f"its unit is {units} and not mm"
    if fields.get("space", "").lower() not in _SPACES:
        return f"its space is {fields['space']}" if "space" in fields else "it has no space"
    if fields.get("spacedirections", "").count("(") != 3:
        return "it has no three space directions"
    units = fields.get("spaceunits", '"mm"')
    return "" if set(re.findall(r'"([^"]*)"', units)) <= {"mm", ""} else f"its space units are {units}"


def _reason(path: Path, text: str) -> str:
    if "Unable to determine ImageIO" in text:
        return (
            f"cannot read {path.name}: it is broken, of another form, or NIfTI-2; fetch it again, or convert it with "
            "nibabel for example"
        )
    if text.rstrip().endswith("No such file or directory"):
        return f"cannot read {path.name}: it is cut off, or the file of its voxels is missing; convert it again"
    if "orthonormal" in text:
        return (
            f"the axes of {path.name} are not perpendicular; resample it to a straight grid, or give the DICOM folder"
        )
    return f"cannot read {path.name}: {_last_line(text)}; is it complete, and of the form its name says?"


def _last_line(error: object) -> str:
    return str(error).strip().splitlines()[-1]
