"""Read and write the probabilities of a view: compressed HDF5.

    probabilities   (*shape, classes) float16, or uint8, where 255 is 1
    its attributes  affine (4, 4): index to RAS mm;  classes: names, background first;  view: its name
    views/NAME      labels of each view by itself, uint8, with their affine; where they are kept

float16 keeps a probability to three digits, and no volume format but HDF5 has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np

from knee3d.atomic import whole_file
from knee3d.geometry.volume import Volume

KEY, VIEWS = "probabilities", "views"
NONE: Mapping[str, Volume] = MappingProxyType({})
_CHUNK = (32, 32, 32)


def write_probabilities(
    probabilities: Volume, classes: Sequence[str], view: str, path: Path, views: Mapping[str, Volume] = NONE
) -> None:
    """Write them, whole or not at all.

    Args:
        probabilities: (*shape, classes): uint8, or floats, which are kept as float16.
        classes: Names, background first.
        view: Whose they are.
        path: Of the file.
        views: View name to its uint8 labels, where `view` is several together.

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
        for name, labels in views.items():
            chunk = tuple(min(size, 4 * most) for size, most in zip(labels.shape, _CHUNK, strict=True))
            kept = file.create_dataset(
                f"{VIEWS}/{name}", data=labels.array, chunks=chunk, compression="gzip", compression_opts=1
            )
            kept.attrs["affine"] = labels.affine


def read_probabilities(path: Path) -> tuple[Volume, tuple[str, ...]]:
    """Read them back.

    Returns:
        (*shape, classes) float16 or uint8 in the axes of the file, and the names of the classes.

    Raises:
        ValueError: It is not such a file.
    """
    with _reading(path) as file:
        found = file[KEY]
        return Volume(found[()], found.attrs["affine"]), tuple(map(str, found.attrs["classes"]))


def read_view_labels(path: Path) -> dict[str, Volume]:
    """View name to its labels; nothing where none were kept.

    Raises:
        ValueError: It is not such a file.
    """
    with _reading(path) as file:
        views = file.get(VIEWS, {})
        return {name: Volume(found[()], found.attrs["affine"]) for name, found in views.items()}


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not hold probabilities as knee3d writes them ({error})") from error
