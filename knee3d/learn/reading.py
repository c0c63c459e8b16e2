"""What an epoch visits, and how the voxels of a case are had: from PNGs, from memory, from files of raw voxels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from knee3d.anatomy.plane import Plane
from knee3d.atomic import whole_file
from knee3d.dataset.cases import Case, Dataset
from knee3d.dataset.png import read_slices
from knee3d.progress import progress

Reader = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Number of a case -> (slices, height, width) uint8 image and mask."""


@dataclass(frozen=True)
class Slices:
    """The slices that one epoch visits, as paths.

    Attributes:
        images: PNG paths of each case in slice order.
        masks: The same of the masks.
        centres: For each case, the slices to visit; all PNGs may still serve as neighbours.
        names: Of the cases.
        keys: Fingerprints of the cases.
    """

    images: tuple[tuple[str, ...], ...]
    masks: tuple[tuple[str, ...], ...]
    centres: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def count(self) -> int:
        """Slices in one epoch."""
        return sum(len(centres) for centres in self.centres)

    def sizes(self, batch_size: int) -> list[int]:
        """Slices in each batch of an epoch; the last may be smaller."""
        return [min(batch_size, self.count - start) for start in range(0, self.count, batch_size)]

    def steps(self, batch_size: int) -> int:
        """Batches in one epoch."""
        return -(-self.count // batch_size)


def slices_of(dataset: Dataset, cases: Sequence[Case], plane: Plane, limit: int | None = None) -> Slices:
    """List the slices of some cases along a plane.

    Args:
        dataset: Where they lie.
        cases: Labelled cases.
        plane: Direction of slicing.
        limit: Visit so many slices only, spaced evenly over all of them; None visits all.
    """
    counts = [case.shape[plane.axis] for case in cases]
    total = sum(counts)
    chosen = np.arange(total) if limit is None else np.unique(np.linspace(0, total - 1, min(limit, total)).round())
    ends = np.cumsum(counts)
    centres = [
        chosen[(chosen >= end - count) & (chosen < end)] - (end - count)
        for end, count in zip(ends, counts, strict=True)
    ]
    visited = [(case, where) for case, where in zip(cases, centres, strict=True) if len(where)]

    def paths(kind: str) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(map(str, dataset.slice_paths(case, plane, kind))) for case, _ in visited)

    return Slices(
        paths("image"),
        paths("mask"),
        tuple(tuple(map(int, where)) for _, where in visited),
        tuple(case.name for case, _ in visited),
        tuple(case.fingerprint[:16] for case, _ in visited),
    )


def reader(slices: Slices, cache: str | None = None) -> Reader:
    """How to get at the voxels of a case.

    Args:
        slices: Of the cases.
        cache: None decodes the PNGs at every visit. "memory" decodes them all now and keeps them. Anything else is a
            folder, made if need be, that gets a file of raw voxels for each case, for disks faster than the dataset's.

    Raises:
        FileNotFoundError: A PNG is missing.
        ValueError: A PNG is damaged.
        OSError: There is no room in the folder.
    """
    if cache is None:
        images, masks = ragged(slices.images, tf.string), ragged(slices.masks, tf.string)
        return lambda case: (_decode(images[case]), _decode(masks[case]))
    load = _kept_in_memory(slices) if cache == "memory" else _kept_in_files(slices, Path(cache))

    def read(case: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        both = tf.ensure_shape(tf.numpy_function(load, [case], tf.uint8), (2, None, None, None))
        return both[0], both[1]

    return read


def _kept_in_memory(slices: Slices) -> Callable[[int], np.ndarray]:
    """Case -> (2, slices, height, width) uint8, image and mask."""
    with progress("decoding into memory", len(slices.names)) as advance:
        volumes = []
        for images, masks in zip(slices.images, slices.masks, strict=True):
            volumes.append(_decoded(images, masks))
            advance(1)
    return volumes.__getitem__


def _kept_in_files(slices: Slices, folder: Path) -> Callable[[int], np.ndarray]:
    """The same from a file for each case, known by plane and by the fingerprint of the prepared knee."""
    files = [
        folder / f"{name}-{Path(images[0]).parts[-3]}-{key}.npy"
        for name, images, key in zip(slices.names, slices.images, slices.keys, strict=True)
    ]
    with progress(f"decoding into {folder}", len(files)) as advance:
        for file, images, masks in zip(files, slices.images, slices.masks, strict=True):
            if not file.exists():
                with whole_file(file) as partial, partial.open("wb") as stream:
                    np.save(stream, _decoded(images, masks))
            advance(1)
    return lambda case: np.load(files[case])


def _decoded(images: Sequence[str], masks: Sequence[str]) -> np.ndarray:
    image, mask = (read_slices([Path(path) for path in paths]) for paths in (images, masks))
    return np.stack([image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8), mask])


def ragged(rows: Sequence[Sequence[int | str]], dtype: tf.DType) -> tf.RaggedTensor:
    """Rows of different lengths as one tensor; many strings at once are quicker so than by `tf.ragged.constant`."""
    flat = tf.constant([value for row in rows for value in row], dtype)
    return tf.RaggedTensor.from_row_lengths(flat, [len(row) for row in rows])


def _decode(paths: tf.Tensor) -> tf.Tensor:
    """(slices, height, width) uint8."""
    spec = tf.TensorSpec((None, None), tf.uint8)
    return tf.map_fn(
        lambda path: tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0], paths, fn_output_signature=spec
    )
