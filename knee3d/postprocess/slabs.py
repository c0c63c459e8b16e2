"""Voxels worked on a piece at a time: pieces fit the processor's cache, and its cores share them."""

import os
from collections.abc import Callable, Iterator

from knee3d.threads import as_finished

PIECE_BYTES = 1 << 21  # of 128 KB to 8 MB the fastest, benchmarks/postprocess.py
Piece = tuple[slice, slice]


def pieces(shape: tuple[int, ...], voxel_bytes: int) -> Iterator[Piece]:
    """Cut the first two axes so that each piece holds about `PIECE_BYTES`, and at least one line of voxels.

    Args:
        shape: Of the voxels, three axes or more.
        voxel_bytes: What one voxel takes in whatever the caller keeps in cache.

    Yields:
        Indices of the first two axes; together they cover each voxel once.
    """
    lines = max(1, PIECE_BYTES // (voxel_bytes * shape[2]))
    thick = max(1, lines // shape[1])
    for start in range(0, shape[0], thick):
        for first in range(0, shape[1], lines):
            yield slice(start, start + thick), slice(first, min(first + lines, shape[1]))


def over_pieces(work: Callable[[Piece], object], shape: tuple[int, ...], voxel_bytes: int) -> None:
    """Call `work` with each piece, each core its share of them; numpy computes outside Python's lock."""
    todo, cores = list(pieces(shape, voxel_bytes)), len(os.sched_getaffinity(0))

    def share(core: int) -> None:
        for piece in todo[core::cores]:
            work(piece)

    for done in as_finished(share, range(cores), cores):
        done.result()
