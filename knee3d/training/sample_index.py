"""SampleIndex: the samples of an epoch. VolumeReader: voxels from PNGs, memory, or raw files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import numpy as np
import tensorflow as tf

from knee3d.atomic import whole_file
from knee3d.progress import progress
from knee3d.training.sampler import Sampler
from knee3d.training.slice_stack import PlaneStack, Stack

VolumeReader = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Number of a stack -> (slices, height, width) uint8 image and mask."""


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """What one epoch sees of some stacks.

    Attributes:
        stacks: Those of which anything is seen.
        positions: For each, where a network is shown a part of it, as `sampler` counts places.
    """

    stacks: tuple[Stack, ...]
    positions: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """In one epoch."""
        return sum(map(len, self.positions))

    @property
    def planes(self) -> tuple[int, ...]:
        """Number of the plane of each stack, 0 and on. A batch is of one plane."""
        names = list(dict.fromkeys(stack.plane for stack in self.stacks))
        return tuple(names.index(stack.plane) for stack in self.stacks)

    def steps(self, batch_size: int, at_least: int = 1) -> int:
        """Batches in one epoch.

        Args:
            batch_size: Of all batches but the last of each plane, which may be smaller.
            at_least: A batch with fewer is not counted.
        """
        counts = [0] * (max(self.planes, default=-1) + 1)
        for plane, positions in zip(self.planes, self.positions, strict=True):
            counts[plane] += len(positions)
        parts = [divmod(count, batch_size) for count in counts]
        return sum(whole + (rest >= max(at_least, 1)) for whole, rest in parts)


def index_samples(stacks: Sequence[Stack], sampler: Sampler, limit: int | None = None) -> SampleIndex:
    """List what an epoch sees.

    Args:
        stacks: Of which.
        sampler: What a network is shown of them at a time.
        limit: See so many only, spaced evenly over all of them; None sees all.
    """
    everywhere = [sampler.positions(stack.shape) for stack in stacks]
    total = sum(map(len, everywhere))
    chosen = np.arange(total) if limit is None else np.unique(np.linspace(0, total - 1, min(limit, total)).round())
    ends = np.cumsum([len(one) for one in everywhere])
    seen = [
        one[(chosen[(chosen >= end - len(one)) & (chosen < end)] - (end - len(one))).astype(int)].tolist()
        for one, end in zip(everywhere, ends, strict=True)
    ]
    chosen_stacks = [(stack, tuple(where)) for stack, where in zip(stacks, seen, strict=True) if where]
    return SampleIndex(tuple(stack for stack, _ in chosen_stacks), tuple(where for _, where in chosen_stacks))


def volume_reader(stacks: Sequence[Stack], cache: str | None = None) -> VolumeReader:
    """How to get at the voxels of a stack.

    Args:
        stacks: By their numbers.
        cache: None reads them at every visit. "memory" reads them all now and keeps them. Anything else is a folder,
            made if need be, that gets a file of raw voxels for each stack, for disks faster than the dataset's, or
            for stacks that must be resampled.

    Raises:
        FileNotFoundError: A PNG is missing.
        ValueError: A PNG is damaged.
        OSError: There is no room in the folder.
    """
    pngs = [stack for stack in stacks if isinstance(stack, PlaneStack)]
    if cache is None and len(pngs) == len(stacks):
        images, masks = (
            ragged_tensor([one.images for one in pngs], tf.string),
            ragged_tensor([one.masks for one in pngs], tf.string),
        )
        return lambda stack: (_decode(images[stack]), _decode(masks[stack]))
    if cache is None:
        load = lambda number: stacks[number].load()  # noqa: E731
    else:
        load = _kept_in_memory(stacks) if cache == "memory" else _kept_in_files(stacks, Path(cache))

    def read(stack: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        both = tf.ensure_shape(tf.numpy_function(load, [stack], tf.uint8), (2, None, None, None))
        return both[0], both[1]

    return read


def _kept_in_memory(stacks: Sequence[Stack]) -> Callable[[int], np.ndarray]:
    """Number of a stack -> (2, slices, height, width) uint8, image and mask."""
    with progress("decoding into memory", len(stacks)) as advance:
        volumes = []
        for stack in stacks:
            volumes.append(stack.load())
            advance(1)
    return volumes.__getitem__


def _kept_in_files(stacks: Sequence[Stack], folder: Path) -> Callable[[int], np.ndarray]:
    """The same from a file for each stack; one that is damaged is written anew."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--cache {folder} is a file; name a folder")
    files = [folder / f"{stack.key}.npy" for stack in stacks]
    with progress(f"decoding into {folder}", len(files)) as advance:
        for file, stack in zip(files, stacks, strict=True):
            if not _is_kept(file, stack):
                with whole_file(file) as partial, partial.open("wb") as stream:
                    np.save(stream, stack.load())
            advance(1)
    return lambda number: np.load(files[number])


def _is_kept(file: Path, stack: Stack) -> bool:
    """Whether a file holds as many voxels as the stack has."""
    try:
        kept = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return kept.dtype == np.uint8 and kept.shape == (2, *stack.shape)


def ragged_tensor(rows: Sequence[Sequence[int | str]], dtype: tf.DType) -> tf.RaggedTensor:
    """Rows of different lengths as one tensor; many strings at once are quicker so than by `tf.ragged.constant`."""
    flat = tf.constant([value for row in rows for value in row], dtype)
    return tf.RaggedTensor.from_row_lengths(flat, [len(row) for row in rows])


def _decode(paths: tf.Tensor) -> tf.Tensor:
    """(slices, height, width) uint8."""
    spec = tf.TensorSpec((None, None), tf.uint8)
    return tf.map_fn(
        lambda path: tf.io.decode_png(tf.io.read_file(path), channels=1)[..., 0], paths, fn_output_signature=spec
    )
