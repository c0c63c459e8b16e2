"""Stack slices that come in any order into a volume."""

from collections.abc import Iterable, Sequence

import numpy as np

from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices
from knee3d.geometry.volume import Volume


def stack_slices(
    batches: Iterable[tuple[Sequence[int], np.ndarray]], plane: Plane, count: int, affine: np.ndarray
) -> Volume:
    """Put slices back where they were cut.

    Args:
        batches: (positions, slices) pairs in any order: positions in the stack, and (n, height, width[, channels])
            of any dtype, the same for all. A generator is read once; a batch is let go before the next is asked for.
        plane: The plane they were cut along.
        count: Slices of the whole volume.
        affine: (4, 4) float, of the canonical volume.

    Returns:
        The canonical volume, of the slices' dtype; nothing is converted.

    Raises:
        ValueError: A slice is missing, came twice, lies outside the stack, or is of another shape or dtype.
    """
    stack: np.ndarray | None = None
    seen = np.zeros(count, dtype=bool)
    for positions, slices in batches:
        index = np.asarray(positions, dtype=np.intp)
        if index.shape != slices.shape[:1]:
            raise ValueError(f"{len(slices)} slices came with {index.size} positions")
        if index.size and (index.min() < 0 or index.max() >= count):
            raise ValueError(f"slice {index.min() if index.min() < 0 else index.max()} is none of 0 to {count - 1}")
        twice = np.flatnonzero(seen[index] | (np.bincount(index, minlength=count)[index] > 1))
        if twice.size:
            raise ValueError(f"slice {index[twice[0]]} of the {plane} stack came twice")
        if stack is None:
            stack = np.empty((count, *slices.shape[1:]), slices.dtype)
        if slices.shape[1:] != stack.shape[1:] or slices.dtype != stack.dtype:
            raise ValueError(
                f"slices {index.tolist()[:3]} are {slices.dtype} of shape {slices.shape[1:]}, those before them "
                f"{stack.dtype} of shape {stack.shape[1:]}"
            )
        stack[index] = slices
        seen[index] = True
    if stack is None or not seen.all():
        missing = np.flatnonzero(~seen)
        raise ValueError(f"{missing.size} of {count} {plane} slices are missing, the first of them {missing[0]}")
    return from_slices(stack, plane, affine)
