"""Boxes hold what they are around, and nothing else."""

import numpy as np

from knee3d.anatomy.box import box_around, box_within, shared_box

INSIDE = np.zeros((6, 7, 8), dtype=bool)
INSIDE[2, 3, 4] = INSIDE[4, 5, 7] = True


def test_a_box_is_the_smallest_one():
    box = box_around(INSIDE)
    assert box == (slice(2, 5), slice(3, 6), slice(4, 8))
    assert INSIDE[box].sum() == INSIDE.sum()
    assert box_around(np.zeros_like(INSIDE)) is None


def test_more_ends_where_the_voxels_end():
    assert box_around(INSIDE, 2) == (slice(0, 6), slice(1, 7), slice(2, 8))
    assert box_around(INSIDE, np.array([0, 1, 3])) == (slice(2, 5), slice(2, 7), slice(1, 8))


def test_boxes_are_shared_and_counted_from_each_other():
    one, other = (slice(1, 5), slice(0, 4), slice(2, 8)), (slice(2, 9), slice(1, 3), slice(0, 5))
    both = shared_box(one, other)
    assert both == (slice(2, 5), slice(1, 3), slice(2, 5))
    array = np.arange(9 * 9 * 9).reshape(9, 9, 9)
    np.testing.assert_array_equal(array[one][box_within(both, one)], array[both])
