"""Boxes hold what they are around, and nothing else."""

import numpy as np

from knee3d.geometry.box import bounding_box, box_intersection, box_relative_to

INSIDE = np.zeros((6, 7, 8), dtype=bool)
INSIDE[2, 3, 4] = INSIDE[4, 5, 7] = True


def test_a_box_is_the_smallest_one():
    box = bounding_box(INSIDE)
    assert box == (slice(2, 5), slice(3, 6), slice(4, 8))
    assert INSIDE[box].sum() == INSIDE.sum()
    assert bounding_box(np.zeros_like(INSIDE)) is None


def test_more_ends_where_the_voxels_end():
    assert bounding_box(INSIDE, 2) == (slice(0, 6), slice(1, 7), slice(2, 8))
    assert bounding_box(INSIDE, np.array([0, 1, 3])) == (slice(2, 5), slice(2, 7), slice(1, 8))


def test_boxes_are_shared_and_counted_from_each_other():
    one, other = (slice(1, 5), slice(0, 4), slice(2, 8)), (slice(2, 9), slice(1, 3), slice(0, 5))
    both = box_intersection(one, other)
    assert both == (slice(2, 5), slice(1, 3), slice(2, 5))
    array = np.arange(9 * 9 * 9).reshape(9, 9, 9)
    np.testing.assert_array_equal(array[one][box_relative_to(both, one)], array[both])
