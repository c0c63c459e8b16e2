"""Read arrays without geometry: HDF5 of the IWOAI 2019 challenge, and NumPy's .npy.

The challenge has `.im` images and `.seg` masks with a channel for each tissue, under the key `data`. Their axes run as
DOSMA, whose authors published them, orders sagittal volumes: from superior to inferior, anterior to posterior, left to
right. A .npy file may run in any direction. What is missing the user must say.
"""

from pathlib import Path

import h5py
import numpy as np

from knee3d.geometry.orientation import anatomical_direction, check_axis_codes
from knee3d.geometry.volume import LARGEST, Volume

NPY = ".npy"
ENDINGS = (".im", ".seg", ".h5", ".hdf5", NPY)
KEY = "data"
HDF5_AXES = "IPR"


class ArrayFileError(ValueError):
    """A file that cannot be taken as an array of one volume; the text names it and the way out."""


def read_array_file(path: Path, spacing_mm: tuple[float, float, float] | None, axes: str = "") -> Volume:
    """Read one array.

    Args:
        path: HDF5 with the key `data`, or .npy: (i, j, k) numbers, or (i, j, k, channels).
        spacing_mm: Between voxels along the array's axes.
        axes: Where i, j and k increase to: three letters of R/L, A/P and S/I. If empty, HDF5 has "IPR".

    Returns:
        The array in its own dtype, in the machine's order of bytes. Its middle is at 0 mm, for where it lay nobody
        knows.

    Raises:
        ArrayFileError: The file has another form, no such array, an absurdly large one, or spacing or axes are missing.
    """
    if spacing_mm is None:
        raise ArrayFileError(
            f"{path.name} does not say how far its voxels are apart; give --spacing (0.3646,0.3646,0.7 in OAI's DESS)"
        )
    is_npy = path.suffix.lower() == NPY
    if is_npy and not axes:
        raise ArrayFileError(
            f"{path.name} does not say in which directions its axes run; give --axes, such as LIP where slices follow "
            "each other to the left, rows from top to bottom and columns from front to back"
        )
    try:
        array = _read_npy(path) if is_npy else _read_hdf5(path)
    except ArrayFileError:
        raise
    except Exception as error:  # h5py and NumPy raise nearly anything on bad bytes
        raise ArrayFileError(f"cannot read {path.name}: {error}; fetch it again") from error
    affine = np.eye(4)
    affine[:3, :3] = (
        np.column_stack([anatomical_direction(letter) for letter in check_axis_codes(axes or HDF5_AXES)]) * spacing_mm
    )
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(array.shape[:3]) - 1) / 2)
    return Volume(array.astype(array.dtype.newbyteorder("="), copy=False), affine)


def _read_hdf5(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        if not isinstance(file.get(KEY), h5py.Dataset):
            raise ArrayFileError(f"{path.name} has no array {KEY!r}; it has: {', '.join(list(file)[:5]) or 'nothing'}")
        _check(path, file[KEY])
        return np.asarray(file[KEY][()])


def _read_npy(path: Path) -> np.ndarray:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.ndarray):
        raise ArrayFileError(f"{path.name} is an archive of arrays (.npz); save one of them by numpy.save")
    _check(path, mapped)
    return np.array(mapped)


def _check(path: Path, data: np.ndarray | h5py.Dataset) -> None:
    if data.ndim not in (3, 4) or data.dtype.kind not in "biuf" or not 0 < data.size <= LARGEST:
        raise ArrayFileError(f"{path.name} must hold a volume of numbers, it has {data.dtype} {data.shape}")
