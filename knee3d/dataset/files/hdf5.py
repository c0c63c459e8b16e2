"""HDF5 files of the IWOAI 2019 challenge: `.im` images and `.seg` masks with a channel for each tissue.

They hold an array under the key `data` and nothing about its place. Axes are taken as DOSMA, whose authors published
them, orders sagittal volumes: from superior to inferior, anterior to posterior, left to right. What is missing, the
distance between voxels, the user must give.
"""

from pathlib import Path

import h5py
import numpy as np

from knee3d.anatomy.volume import Volume

ENDINGS = (".im", ".seg", ".h5", ".hdf5")
KEY = "data"
_DIRECTIONS = np.array([[0, 0, 1.0], [0, -1, 0], [-1, 0, 0]])  # RAS; columns to inferior, posterior, right
_LARGEST = 2**31


class Hdf5Error(ValueError):
    """An HDF5 file that cannot be taken as one volume; the text names it and the way out."""


def read_hdf5(path: Path, spacing_mm: tuple[float, float, float] | None) -> Volume:
    """Read one array.

    Args:
        path: File with the key `data`: (i, j, k) numbers, or (i, j, k, channels).
        spacing_mm: Between voxels along the array's axes.

    Returns:
        The array in its own dtype with the axes above; its middle is at 0 mm, for where it lay nobody knows.

    Raises:
        Hdf5Error: The file is no HDF5, has no such array, is absurdly large, or `spacing_mm` is missing.
    """
    if spacing_mm is None:
        raise Hdf5Error(
            f"{path.name} does not say how far its voxels are apart; give --spacing (0.3646,0.3646,0.7 in OAI's DESS)"
        )
    try:
        with h5py.File(path) as file:
            if not isinstance(file.get(KEY), h5py.Dataset):
                raise Hdf5Error(f"{path.name} has no array {KEY!r}; it has: {', '.join(list(file)[:5]) or 'nothing'}")
            data = file[KEY]
            if data.ndim not in (3, 4) or data.dtype.kind not in "biuf" or not 0 < data.size <= _LARGEST:
                raise Hdf5Error(f"{path.name} must hold a volume of numbers, it has {data.dtype} {data.shape}")
            array = data[()]
    except Hdf5Error:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise Hdf5Error(f"cannot read {path.name}: {error}; fetch it again") from error
    affine = np.eye(4)
    affine[:3, :3] = _DIRECTIONS * spacing_mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(array.shape[:3]) - 1) / 2)
    return Volume(array, affine)
