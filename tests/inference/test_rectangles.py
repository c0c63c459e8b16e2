"""Slices are grouped so that a network has least to do, and what is wanted is in the groups."""

from itertools import pairwise

import numpy as np
import pytest

from knee3d.inference.rectangles import CALL_PIXELS, STRIDE, contains, group_slices, widen_to_stride

FRESH = np.ones(40, dtype=bool)


def tube(*spans: tuple[int, int, int, int]) -> np.ndarray:
    """A rectangle (rows, columns) is wanted of ten slices, then another of the next ten."""
    wanted = np.zeros((40, 400, 400), dtype=bool)
    for number, (top, bottom, left, right) in enumerate(spans):
        wanted[10 * number : 10 * number + 10, top:bottom, left:right] = True
    return wanted


def work(found, fresh=FRESH) -> int:
    """Pixels computed, and as many for each call."""
    total = 0
    for slab, rectangle in found:
        sides = [-(-(side.stop - side.start // STRIDE * STRIDE) // STRIDE) * STRIDE for side in rectangle]
        count = np.count_nonzero(fresh[slab.start : slab.stop])
        total += (count > 0) * CALL_PIXELS + count * sides[0] * sides[1]
    return total


def test_all_that_is_wanted_comes_once_and_no_slice_else():
    random = np.random.default_rng(0)
    wanted = np.zeros((40, 400, 400), dtype=bool)
    for number in random.permutation(40)[:30]:
        top, left = random.integers(0, 200, 2)
        wanted[number, top : top + random.integers(1, 200), left : left + random.integers(1, 200)] = True
    found, seen = group_slices(wanted, FRESH, 10**6), np.zeros_like(wanted)
    for slab, (rows, columns) in found:
        seen[slab.start : slab.stop, rows, columns] = True
    assert (seen | ~wanted).all()
    assert all(first.stop <= second.start for (first, _), (second, _) in pairwise(found))


def test_like_slices_go_together_and_unlike_ones_do_not():
    alike = group_slices(tube((0, 96, 0, 96), (0, 96, 0, 96)), FRESH, 10**7)
    assert [slab for slab, _ in alike] in ([range(20)], [range(40)])  # what is empty may hang on to it
    unlike = group_slices(tube((0, 320, 0, 320), (0, 32, 0, 32)), FRESH, 10**7)
    assert [slab.start for slab, _ in unlike] == [0, 10]
    assert group_slices(tube(), FRESH, 10**7) == []


@pytest.mark.parametrize("most", [10**4, 10**5, 10**6])
def test_a_call_is_not_too_large(most):
    for slab, rectangle in group_slices(tube((0, 96, 0, 96), (32, 128, 64, 160)), FRESH, most):
        height, width = (side.stop - side.start for side in widen_to_stride(rectangle, 400, 400))
        assert len(slab) * height * width <= most or len(slab) == 1


def test_no_other_grouping_is_less_work():
    wanted = tube((0, 64, 0, 64), (0, 100, 30, 90), (200, 380, 0, 390), (10, 70, 10, 70))
    fresh = np.arange(40) % 9 > 0
    best = group_slices(wanted, fresh, 10**7)
    for size in range(1, 41):
        slabs = [range(start, min(start + size, 40)) for start in range(0, 40, size)]
        others = [
            (slab, group_slices(wanted[slab.start : slab.stop].any(axis=0)[None], FRESH[:1], 10**7)) for slab in slabs
        ]
        assert work(best, fresh) <= work([(slab, found[0][1]) for slab, found in others if found], fresh)


def test_a_part_begins_at_a_stride():
    assert widen_to_stride((slice(40, 70), slice(0, 10)), 100, 100) == (slice(32, 96), slice(0, 32))
    assert widen_to_stride((slice(70, 99), slice(5, 100)), 100, 100) == (slice(64, 100), slice(0, 100))
    assert contains((slice(0, 9), slice(2, 5)), (slice(0, 9), slice(3, 5)))
    assert not contains((slice(0, 9), slice(2, 5)), (slice(0, 9), slice(1, 5)))
