"""Pieces cover everything once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.postprocess.blend import PIECE_BYTES, map_over_chunks, memory_chunks

SIZES = st.tuples(*[st.integers(1, 40)] * 3)


@given(SIZES, st.integers(1, 1 << 18))
def test_each_voxel_is_in_one_piece(shape, voxel_bytes):
    seen = np.zeros(shape, dtype=int)
    for piece in memory_chunks(shape, voxel_bytes):
        seen[piece] += 1
        held = seen[piece].size * voxel_bytes
        assert held <= max(PIECE_BYTES, shape[2] * voxel_bytes)  # a line is the least
    assert (seen == 1).all()


def test_work_that_fails_says_so():
    def work(piece: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        map_over_chunks(work, (4, 4, 4), 1)
