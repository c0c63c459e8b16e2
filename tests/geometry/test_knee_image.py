"""An image knows its side, and is read in any order of axes."""

from itertools import permutations, product

import numpy as np
import pytest

from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, from_canonical, to_canonical

ORDERS = ["".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs)]


@pytest.fixture
def image() -> KneeImage:
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    return KneeImage(
        array, np.array([[0, 0, 0.7, 3], [-0.4, 0, 0, 2], [0, -0.5, 0, 1], [0, 0, 0, 1]]), Side.LEFT, "one"
    )


@pytest.mark.parametrize("axes", ORDERS)
def test_other_axes_have_the_same_voxels_at_the_same_places(image, axes):
    moved = image.reorient(axes)
    assert (moved.axes, moved.side, moved.name) == (axes, Side.LEFT, "one")
    assert np.shares_memory(moved.array, image.array)
    back = moved.reorient(image.axes)
    assert back.same_grid(image)
    np.testing.assert_array_equal(back.array, image.array)


def test_axes_that_do_not_span_space_are_refused(image):
    with pytest.raises(ValueError, match="one letter each"):
        image.reorient("IPA")


@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("side", Side)
def test_canonical_is_the_same_whatever_the_axes_and_mirrors_left_knees_only(image, axes, side):
    known = KneeImage(image.array, image.affine, side).reorient(axes)
    canonical = known.canonical()
    np.testing.assert_array_equal(canonical.array, to_canonical(image, side).array)
    mirrored = not np.array_equal(canonical.array, image.reorient("IPL").array)
    assert mirrored == (side is Side.LEFT)
    assert from_canonical(canonical, axes, side).same_grid(known)
