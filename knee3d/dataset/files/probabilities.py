"""Probabilities of one view on disk: HDF5, compressed, in the axes and on the side of the image they are of.

    probabilities   (*shape, classes) float16, or uint8, where 255 is 1
    its attributes  affine (4, 4): index to RAS mm;  classes: names, background first;  view: its name

float16 keeps a probability to three digits, and no volume format but HDF5 has it.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from knee3d.anatomy.volume import Volume
from knee3d.atomic import whole_file

KEY = "probabilities"
_CHUNK = (32, 32, 32)


def write_probabilities(probabilities: Volume, classes: Sequence[str], view: str, path: Path) -> None:
    """Write them, whole or not at all.

    Args:
        probabilities: (*shape, classes): uint8, or floats, which are kept as float16.
        classes: Names, background first.
        view: Whose they are.
        path: Of the file.

    Raises:
        ValueError: There is not one name for each class.
    """
    if probabilities.array.ndim != 4 or probabilities.array.shape[-1] != len(classes):
        raise ValueError(f"{len(classes)} classes are named, but the probabilities are {probabilities.array.shape}")
    chunk = (*(min(size, most) for size, most in zip(probabilities.shape, _CHUNK, strict=True)), len(classes))
    with whole_file(path) as partial, h5py.File(partial, "w") as file:
        array = probabilities.array
        array = array if array.dtype == np.uint8 else array.astype(np.float16, copy=False)
        written = file.create_dataset(KEY, data=array, chunks=chunk, compression="gzip", compression_opts=1)
        written.attrs["affine"] = probabilities.affine
        written.attrs["classes"] = list(classes)
        written.attrs["view"] = view


def read_probabilities(path: Path) -> tuple[Volume, tuple[str, ...]]:
    """Read them back.

    Returns:
        (*shape, classes) float16 or uint8 in the axes of the file, and the names of the classes.

    Raises:
        ValueError: It is not such a file.
    """
    try:
        with h5py.File(path, "r") as file:
            found = file[KEY]
            return Volume(found[()], found.attrs["affine"]), tuple(map(str, found.attrs["classes"]))
    except (OSError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not hold probabilities as knee3d writes them ({error})") from error
