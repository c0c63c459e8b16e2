"""Every slice once an epoch, with its own mask and neighbours, in an order that the seed decides."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from knee3d.dataset.case_collection import Split
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.inference.prediction import stack_neighbours
from knee3d.training import config, input_pipeline, sample_index, view_setup
from knee3d.training.sampler import SliceSampler
from knee3d.training.slice_stack import PlaneStack


def visits(dataset, cases, plane, context=1, limit=None):
    stacks = [PlaneStack.of(dataset, case, plane) for case in cases]
    return sample_index.index_samples(stacks, SliceSampler(context), limit)


def expected(dataset, cases, plane, context):
    """(window, mask) of every slice in order, from the volumes."""
    pairs = []
    for case in cases:
        stack, masks = (to_slices(volume, plane) for volume in (dataset.image(case), dataset.mask(case)))
        pairs += list(zip(stack_neighbours(stack, range(len(stack)), context), masks, strict=True))
    return pairs


def stream(batches):
    return [pair for images, masks, *_ in batches.as_numpy_iterator() for pair in zip(images, masks, strict=True)]


def fingerprints(pairs):
    """A number for each pair that padding does not change."""
    return [int(image.sum()) * 10_000 + int(mask.sum()) for image, mask in pairs]


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("plane", Plane)
def test_unshuffled_is_every_slice_in_order(balls, plane, context):
    case = balls.of_split(Split.VAL)
    slices = visits(balls, case, plane, context)
    batches = input_pipeline.validation_batches(slices, SliceSampler(context), batch_size=5)
    want = expected(balls, case, plane, context)
    assert slices.count == len(want)
    assert int(batches.cardinality()) == -(-len(want) // 5)
    for (image, mask), (true_image, true_mask) in zip(stream(batches), want, strict=True):
        np.testing.assert_array_equal(image, true_image)
        np.testing.assert_array_equal(mask, true_mask)


def test_no_tuner_holds_up_who_lets_go_of_a_stream(balls):
    slices = visits(balls, balls.of_split(Split.VAL), Plane.SAGITTAL)
    sampler = SliceSampler(1)
    for batches in (
        input_pipeline.training_batches(slices, sampler, 5, input_pipeline.SamplingOrder(0), range(1)),
        input_pipeline.validation_batches(slices, sampler, 5),
    ):
        assert batches.options().autotune.enabled is False


def epochs_of(dataset, plane, epochs, order, read=None, batch_size=3):
    """The pairs of each epoch."""
    slices = visits(dataset, dataset.of_split(Split.TRAIN), plane)
    read = read and sample_index.volume_reader(slices.stacks, str(read))
    stream = input_pipeline.training_batches(slices, SliceSampler(1), batch_size, order, epochs, read)
    batches = list(stream.as_numpy_iterator())
    steps = slices.steps(batch_size)
    assert len(batches) == steps * len(epochs)
    starts = range(0, len(batches), steps)
    return [[pair for part in batches[at : at + steps] for pair in zip(*part[:2], strict=True)] for at in starts]


@pytest.mark.parametrize("plane", Plane)
def test_shuffled_is_every_slice_once_in_each_epoch(balls, plane):
    want = sorted(fingerprints(expected(balls, balls.of_split(Split.TRAIN), plane, 1)))
    epochs = [fingerprints(epoch) for epoch in epochs_of(balls, plane, range(2), input_pipeline.SamplingOrder(7))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == want
    assert epochs[0] != epochs[1]


def test_an_epoch_is_the_same_wherever_the_stream_begins(balls):
    order = input_pipeline.SamplingOrder(7, 0.5)
    whole = epochs_of(balls, Plane.SAGITTAL, range(4), order)
    late = epochs_of(balls, Plane.SAGITTAL, range(2, 4), order)
    for first, second in zip(whole[2:], late, strict=True):
        for (image, mask), (again, mask_again) in zip(first, second, strict=True):
            np.testing.assert_array_equal(image, again)
            np.testing.assert_array_equal(mask, mask_again)
    other = epochs_of(balls, Plane.SAGITTAL, range(1), input_pipeline.SamplingOrder(8, 0.5))
    assert fingerprints(other[0]) != fingerprints(whole[0])


def test_shuffling_is_even(balls):
    """Over many epochs every slice comes as often early as late, and neighbours do not stay together."""
    order = fingerprints(expected(balls, balls.of_split(Split.TRAIN), Plane.CORONAL, 1))
    place = {print_: number for number, print_ in enumerate(order)}
    assert len(place) == len(order)
    epochs = epochs_of(balls, Plane.CORONAL, range(40), input_pipeline.SamplingOrder(1))
    visits = np.array([[place[print_] for print_ in fingerprints(epoch)] for epoch in epochs])
    means = np.argsort(visits, axis=1).mean(axis=0)  # mean position of each slice
    count = len(order)
    error = count / np.sqrt(12 * len(epochs))
    assert abs(means - (count - 1) / 2).max() < 5 * error
    assert (np.abs(np.diff(visits, axis=1)) == 1).mean() < 5 / count


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_visits_to_slices_with_tissue_are_the_share_asked_for(balls, share):
    cases = balls.of_split(Split.TRAIN)
    epochs = epochs_of(balls, Plane.AXIAL, range(3), input_pipeline.SamplingOrder(2, share))
    counts = [case.shape[0] for case in cases]
    for epoch in epochs:
        assert len(epoch) == sum(counts)
        assert sum(bool(mask.any()) for _, mask in epoch) == sum(round(share * count) for count in counts)
    seen = [set(fingerprints(epoch)) for epoch in epochs]
    assert seen[0] != seen[1]
    everything = set(fingerprints(expected(balls, cases, Plane.AXIAL, 1)))
    assert set.union(*seen) <= everything


def test_caches_hold_the_same_slices(balls, tmp_path):
    plain = epochs_of(balls, Plane.CORONAL, range(2), input_pipeline.SamplingOrder(3))
    for cache in ("memory", tmp_path / "cache", tmp_path / "cache"):
        cached = epochs_of(balls, Plane.CORONAL, range(2), input_pipeline.SamplingOrder(3), cache)
        assert [fingerprints(epoch) for epoch in cached] == [fingerprints(epoch) for epoch in plain]
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == len(balls.of_split(Split.TRAIN))
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    np.save(kept[1], np.zeros((2, 3, 4, 5), np.uint8))
    mended = epochs_of(balls, Plane.CORONAL, range(2), input_pipeline.SamplingOrder(3), tmp_path / "cache")
    assert [fingerprints(epoch) for epoch in mended] == [fingerprints(epoch) for epoch in plain]
    with pytest.raises(ValueError, match="is a file; name a folder"):
        epochs_of(balls, Plane.CORONAL, range(1), input_pipeline.SamplingOrder(3), kept[0])


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_devices_share_every_batch(balls, replicas):
    slices = visits(balls, balls.of_split(Split.VAL), Plane.SAGITTAL)
    batches = input_pipeline.validation_batches(slices, SliceSampler(0), 5)
    whole = [(images, owners) for images, _, owners in batches.as_numpy_iterator()]
    assert {len(images) for images, _ in whole} == {5, 2}
    dealt = list(input_pipeline.split_validation_batches(batches, replicas).as_numpy_iterator())
    for number, (images, owners) in enumerate(whole):
        parts = [(part, whose) for part, _, whose in dealt[number * replicas : (number + 1) * replicas]]
        sizes = [len(part) for part, _ in parts]
        assert len(parts) == replicas
        assert min(sizes) >= 1
        assert np.ptp(sizes) <= 1
        all_images, all_owners = (np.concatenate(column) for column in zip(*parts, strict=True))
        np.testing.assert_array_equal(all_images[: len(images)], images)
        np.testing.assert_array_equal(all_owners[: len(images)], owners)
        assert (all_owners[len(images) :] == -1).all()


@pytest.mark.parametrize("replicas", [2, 5])
def test_devices_share_what_is_trained_on_and_nothing_is_repeated(balls, replicas):
    """A last batch with fewer slices than devices is left out; the first device hears how long was waited."""
    slices = visits(balls, balls.of_split(Split.VAL), Plane.SAGITTAL)
    batches = input_pipeline.training_batches(slices, SliceSampler(0), 5, input_pipeline.SamplingOrder(0), range(1))
    whole = [images for images, *_ in batches.as_numpy_iterator()]
    assert [len(images) for images in whole][-2:] == [5, 2]
    dealt = list(
        input_pipeline.split_training_batches(input_pipeline.with_waiting_time(batches), replicas).as_numpy_iterator()
    )
    kept = [images for images in whole if len(images) >= replicas]
    assert len(dealt) == replicas * len(kept) == replicas * slices.steps(5, replicas)
    for number, images in enumerate(kept):
        parts = dealt[number * replicas : (number + 1) * replicas]
        np.testing.assert_array_equal(np.concatenate([batch[0] for batch, _ in parts]), images)
        assert {len(batch[2]) for batch, _ in parts} <= {len(images) // replicas, len(images) // replicas + 1}
        seconds = [waited for _, waited in parts]
        assert seconds[0] > 0
        assert not any(seconds[1:])


def test_slices_of_two_sizes_share_a_batch(balls):
    cases = balls.of_split(Split.TRAIN)
    assert len({case.shape for case in cases}) == 2
    slices = visits(balls, cases, Plane.CORONAL)
    batches = input_pipeline.validation_batches(slices, SliceSampler(1), slices.count)
    images, masks, owners = next(batches.as_numpy_iterator())
    assert images.shape == (slices.count, 20, 14, 3)
    assert masks.shape == (slices.count, 20, 14)
    assert not images[:18, 16:].any()
    assert owners.tolist() == [case for case, centres in enumerate(slices.positions) for _ in centres]


@pytest.mark.parametrize("limit", [1, 7, 10_000])
def test_a_limit_takes_slices_evenly(balls, limit):
    cases = balls.of_split(Split.TRAIN)
    total = sum(case.shape[0] for case in cases)
    slices = visits(balls, cases, Plane.AXIAL, limit=limit)
    assert slices.count == min(limit, total)
    assert len(stream(input_pipeline.validation_batches(slices, SliceSampler(1), 2))) == slices.count
    if limit == 7:
        offsets = np.cumsum([0, *[case.shape[0] for case in cases]])[:-1]
        where = np.concatenate([np.array(c) + o for c, o in zip(slices.positions, offsets, strict=True)])
        assert where[0] == 0
        assert where[-1] == total - 1
        assert np.ptp(np.diff(where)) <= 1


MEMORY = """
import resource, sys
import knee3d.training
from knee3d.training.input_pipeline import SamplingOrder, training_batches
from knee3d.training.sampler import SliceSampler
from knee3d.training.sample_index import SampleIndex
from knee3d.training.slice_stack import PlaneStack
folder, slices, cases = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
images, masks = (tuple(f"{folder}/{kind}-{i}.png" for i in range(slices)) for kind in ("image", "mask"))
stacks = tuple(PlaneStack(str(i), str(i), (slices, 0, 0), (1, 1, 1), images, masks) for i in range(cases))
listed = SampleIndex(stacks, (tuple(range(slices)),) * cases)
visited = sum(len(image) for image, *_ in training_batches(listed, SliceSampler(1), 8, SamplingOrder(0), range(1)))
assert visited == slices * cases
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """The machinery of tf.data holds about 30 cases; 60 more, 25 MB each when decoded, must not add up to 1.5 GB."""
    count, size = 48, 512
    noise = np.random.default_rng(0).integers(0, 255, (size, size), dtype=np.uint8)
    for index in range(count):
        for kind in ("image", "mask"):
            cv2.imwrite(str(tmp_path / f"{kind}-{index}.png"), noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])

    def peak_mb(cases):
        command = [sys.executable, "-c", MEMORY, str(tmp_path), str(count), str(cases)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak_mb(100) - peak_mb(40) < 200


def test_a_batch_is_of_one_plane(balls):
    """Slices of planes have unlike sizes: together in a batch, some would be padded, as none is where they are used."""
    cases = [balls.cases[1], balls.cases[2]]  # of one size
    view = view_setup.make_view_setup("shared", config.TrainConfig(), cases)
    stacks = view.stacks(balls, cases)
    listed = sample_index.index_samples(stacks, view.sampler)
    assert len(set(listed.planes)) == 3
    for batches in (
        input_pipeline.training_batches(listed, view.sampler, 4, input_pipeline.SamplingOrder(0), range(2)),
        input_pipeline.validation_batches(listed, view.sampler, 4),
    ):
        epochs = 2 if len(batches.element_spec) == 4 else 1
        assert int(batches.cardinality()) == epochs * listed.steps(4)
        seen = []
        for images, _, owners, *_ in batches.as_numpy_iterator():
            assert len({listed.planes[owner] for owner in owners}) == 1
            assert {images.shape[1:3]} == {stacks[owner].shape[1:] for owner in owners}  # nothing is padded
            seen += owners.tolist()
        assert len(seen) == epochs * listed.count
        for number, places in enumerate(listed.positions):
            assert seen.count(number) == epochs * len(places)


def test_batches_of_planes_are_the_same_in_every_run(balls):
    view = view_setup.make_view_setup("shared", config.TrainConfig(), balls.cases)
    listed = sample_index.index_samples(view.stacks(balls, balls.of_split(Split.TRAIN)), view.sampler)
    runs = [
        [
            owners.tolist()
            for *_, owners, _ in input_pipeline.training_batches(
                listed, view.sampler, 4, input_pipeline.SamplingOrder(3), epochs
            ).as_numpy_iterator()
        ]
        for epochs in (range(2), range(2), range(1, 2))
    ]
    assert runs[0] == runs[1]
    assert runs[2] == runs[0][listed.steps(4) :]
