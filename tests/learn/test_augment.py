"""Image and mask move together; nothing appears that was not there."""

from dataclasses import fields, replace

import numpy as np
import pytest
import tensorflow as tf

from knee3d.learn import augment as augmentation

MASKS = np.zeros((4, 40, 36), np.uint8)
MASKS[:, 12:25, 10:22] = 3
IMAGES = np.repeat((MASKS * 60)[..., None], 3, axis=-1)
SEED = tf.constant([3, 4], tf.int64)
STRONG = augmentation.STRENGTHS["strong"]
NOTHING = augmentation.Strength(**{field.name: 0.0 for field in fields(augmentation.Strength)})
GEOMETRY = replace(NOTHING, rotation_deg=20, scale=0.2, shift=0.1, elastic=0.015)


def changed(strength, seed=SEED, images=IMAGES):
    images, masks = augmentation.augment(tf.constant(images), tf.constant(MASKS), seed, strength)
    return images.numpy(), masks.numpy()


def test_no_strength_changes_nothing():
    images, masks = changed(NOTHING)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(masks, MASKS)


def test_image_and_mask_move_together():
    images, masks = changed(GEOMETRY)
    assert images.dtype == masks.dtype == np.uint8
    assert images.shape == IMAGES.shape
    assert set(np.unique(masks)) == {0, 3}
    assert not np.array_equal(masks, MASKS)
    # Linear and nearest agree about which half of a border pixel is tissue, but for halves exactly.
    agree = (images[..., 1] >= 90) == (masks == 3)
    assert agree.mean() > 0.995
    assert np.ptp(images, axis=-1).max() == 0  # the channels of a pair move alike


@pytest.mark.parametrize("name", ["gamma", "contrast", "brightness", "bias", "noise", "blur", "coarse"])
def test_intensities_change_and_masks_do_not(name):
    grey = np.clip(IMAGES // 2 + 60, 0, 255).astype(np.uint8)
    strength = replace(NOTHING, often=1.0, **{name: getattr(STRONG, name)})
    images, masks = changed(strength, images=grey)
    np.testing.assert_array_equal(masks, MASKS)
    assert not np.array_equal(images, grey)
    assert abs(images.astype(float).mean() - grey.mean()) < 60


def test_blur_keeps_what_there_is_and_its_place():
    image = np.zeros((2, 31, 31, 1), np.float32)
    image[:, 15, 15] = 200
    blurred = augmentation._blurred(tf.constant(image), tf.constant([0.0, 1.2])[:, None, None, None]).numpy()
    np.testing.assert_allclose(blurred[0], image[0], atol=1e-4)
    assert blurred[1].sum() == pytest.approx(200, rel=1e-3)
    rows = blurred[1, ..., 0].sum(axis=1)
    assert np.average(np.arange(31), weights=rows) == pytest.approx(15, abs=1e-3)
    assert np.sqrt(np.average((np.arange(31) - 15) ** 2, weights=rows)) == pytest.approx(1.2, rel=0.05)


@pytest.mark.parametrize("name", [name for name, strength in augmentation.STRENGTHS.items() if strength])
def test_same_seed_same_pictures_and_pairs_differ(name):
    strength = augmentation.STRENGTHS[name]
    first, again, other = changed(strength), changed(strength), changed(strength, tf.constant([3, 5], tf.int64))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert len({image.tobytes() for image in first[0]}) == len(IMAGES)
    inside = tf.data.Dataset.from_tensors((IMAGES, MASKS)).map(lambda i, m: augmentation.augment(i, m, SEED, strength))
    np.testing.assert_allclose(next(inside.as_numpy_iterator())[0].astype(int), first[0], atol=1)


def test_sides_are_never_swapped():
    """A mark on the left stays on the left, however strong the change."""
    masks = np.zeros((64, 40, 40), np.uint8)
    masks[:, 15:25, 4:10] = 1
    masks[:, 15:25, 30:36] = 2
    images = np.repeat(masks[..., None], 3, axis=-1)
    for seed in range(4):
        _, moved = augmentation.augment(tf.constant(images), tf.constant(masks), tf.constant([seed, 0]), STRONG)
        columns = np.arange(40)
        for mask in moved.numpy():
            left, right = ((mask == value).sum(axis=0) for value in (1, 2))
            if left.sum() and right.sum():
                assert np.average(columns, weights=left) < np.average(columns, weights=right)
