"""Image and mask move together; nothing appears that was not there."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
augmentation = pytest.importorskip("knee3d.learn.augment")

MASKS = np.zeros((4, 40, 36), np.uint8)
MASKS[:, 12:25, 10:22] = 3
IMAGES = np.repeat((MASKS * 60)[..., None], 3, axis=-1)


def test_image_and_mask_move_together():
    images, masks = augmentation.augment(tf.constant(IMAGES), tf.constant(MASKS), tf.constant([3, 4], tf.int64))
    images, masks = images.numpy(), masks.numpy()
    assert images.dtype == masks.dtype == np.uint8
    assert images.shape == IMAGES.shape
    assert set(np.unique(masks)) == {0, 3}
    assert not np.array_equal(masks, MASKS)
    inside = tf.nn.erosion2d(  # away from borders, where linear and nearest may differ
        tf.cast(masks[..., None], tf.float32), tf.zeros((3, 3, 1)), [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1]
    ).numpy()[..., 0]
    for pair in range(4):
        bright, dark = images[pair][inside[pair] == 3], images[pair][tf.nn.max_pool2d(
            tf.cast(masks[pair : pair + 1, ..., None], tf.float32), 3, 1, "SAME").numpy()[0, ..., 0] == 0]  # fmt: skip
        assert bright.min() > dark.max()
        assert np.ptp(images[pair], axis=-1).max() == 0  # the channels of a pair change alike


def test_same_seed_same_pictures_and_each_epoch_new_ones():
    pairs = tf.data.Dataset.from_tensors((IMAGES, MASKS)).apply(tf.data.experimental.assert_cardinality(1))
    first, second = augmentation.augment_batch(pairs, seed=5), augmentation.augment_batch(pairs, seed=5)
    epochs = [next(first.as_numpy_iterator())[0] for _ in range(2)]
    np.testing.assert_array_equal(epochs[0], next(second.as_numpy_iterator())[0])
    assert not np.array_equal(*epochs)
    assert int(first.cardinality()) == 1


def test_pairs_of_a_batch_change_differently():
    images, _ = augmentation.augment(tf.constant(IMAGES), tf.constant(MASKS), tf.constant([0, 1], tf.int64))
    assert len({image.tobytes() for image in images.numpy()}) == len(IMAGES)
