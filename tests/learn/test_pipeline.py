"""Every slice once an epoch, with its own mask and neighbours, in an order that the seed decides."""

import numpy as np
import pytest

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.slicing import to_slices
from knee3d.dataset.cases import Split
from knee3d.postprocess.predict import with_neighbours

pipeline = pytest.importorskip("knee3d.learn.pipeline")


def expected(dataset, cases, plane, context):
    """(window, mask) of every slice in order, from the volumes."""
    pairs = []
    for case in cases:
        stack, masks = (to_slices(volume, plane) for volume in (dataset.image(case), dataset.mask(case)))
        pairs += list(zip(with_neighbours(stack, 0, len(stack), context), masks, strict=True))
    return pairs


def stream(batches):
    return [pair for images, masks in batches.as_numpy_iterator() for pair in zip(images, masks, strict=True)]


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("plane", Plane)
def test_unshuffled_is_every_slice_in_order(balls, plane, context):
    case = balls.of_split(Split.VAL)
    slices = pipeline.slices_of(balls, case, plane)
    batches = pipeline.batches(slices, context, batch_size=5)
    want = expected(balls, case, plane, context)
    assert slices.count == len(want)
    assert int(batches.cardinality()) == -(-len(want) // 5)
    for (image, mask), (true_image, true_mask) in zip(stream(batches), want, strict=True):
        np.testing.assert_array_equal(image, true_image)
        np.testing.assert_array_equal(mask, true_mask)


@pytest.mark.parametrize("plane", Plane)
def test_shuffled_is_every_slice_once_in_each_epoch(balls, plane):
    cases = balls.of_split(Split.TRAIN)
    batches = pipeline.batches(pipeline.slices_of(balls, cases, plane), 1, 3, shuffle_seed=7)
    want = sorted(int(image.sum()) * 10_000 + int(mask.sum()) for image, mask in expected(balls, cases, plane, 1))
    epochs = [[int(image.sum()) * 10_000 + int(mask.sum()) for image, mask in stream(batches)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == want  # padding is 0 and does not change a sum
    assert epochs[0] != epochs[1]
    again = pipeline.batches(pipeline.slices_of(balls, cases, plane), 1, 3, shuffle_seed=7)
    assert epochs[0] == [int(image.sum()) * 10_000 + int(mask.sum()) for image, mask in stream(again)]


def test_slices_of_two_sizes_share_a_batch(balls):
    cases = balls.of_split(Split.TRAIN)
    assert len({case.shape for case in cases}) == 2
    slices = pipeline.slices_of(balls, cases, Plane.CORONAL)
    images, masks = next(pipeline.batches(slices, 1, slices.count).as_numpy_iterator())
    assert images.shape == (slices.count, 20, 14, 3)
    assert masks.shape == (slices.count, 20, 14)
    assert not images[:18, 16:].any()


@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_a_limit_takes_slices_evenly(balls, limit):
    cases = balls.of_split(Split.TRAIN)
    total = sum(case.shape[0] for case in cases)
    slices = pipeline.slices_of(balls, cases, Plane.AXIAL, limit)
    assert slices.count == min(limit, total)
    assert len(stream(pipeline.batches(slices, 1, 2))) == slices.count
    if limit == 7:
        offsets = np.cumsum([0, *[case.shape[0] for case in cases]])[:-1]
        where = np.concatenate([np.array(c) + o for c, o in zip(slices.centres, offsets, strict=True)])
        assert where[0] == 0
        assert where[-1] == total - 1
        assert np.ptp(np.diff(where)) <= 1
