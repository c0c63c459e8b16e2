"""Image and mask move together; nothing appears that was not there."""

from dataclasses import fields, replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from knee3d.networks import Augmentation, augmentation

MASKS = np.zeros((4, 40, 36), np.uint8)
MASKS[:, 12:25, 10:22] = 3
IMAGES = np.repeat((MASKS * 60)[..., None], 3, axis=-1)
SEED = tf.constant([3, 4], tf.int64)
STRONG = augmentation.STRENGTHS["strong"]
NOTHING = augmentation.AugmentationStrength(**{field.name: 0.0 for field in fields(augmentation.AugmentationStrength)})
GEOMETRY = replace(NOTHING, rotation_deg=20, scale=0.2, shift=0.1, elastic=0.015)


def frames_of(masks, aspect=1.0):
    return tf.constant([[*masks.shape[1:3], aspect]] * len(masks), tf.float32)


def changed(strength, seed=SEED, images=IMAGES, masks=MASKS, aspect=1.0):
    drawn = augmentation.draw_augmentations(seed, len(images))
    images, masks = augmentation.augment(
        tf.constant(images), tf.constant(masks), frames_of(masks, aspect), drawn, strength
    )
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
    blurred = augmentation._blurred(tf.constant(image), tf.constant([0.0, 1.2])).numpy()
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
    layer = augmentation.DrawnAugmentation(strength, frames_of(MASKS).numpy())
    in_graph = tf.function(lambda drawn: layer(IMAGES, MASKS, np.arange(len(IMAGES)), drawn))
    found, _ = in_graph(augmentation.draw_augmentations(SEED, len(IMAGES)))
    np.testing.assert_allclose(found.numpy().astype(int), first[0], atol=1)


def test_sides_are_never_swapped():
    """A mark on the left stays on the left, however strong the change."""
    masks = np.zeros((64, 40, 40), np.uint8)
    masks[:, 15:25, 4:10] = 1
    masks[:, 15:25, 30:36] = 2
    images = np.repeat(masks[..., None], 3, axis=-1)
    for seed in range(4):
        _, moved = changed(STRONG, tf.constant([seed, 0]), images, masks)
        columns = np.arange(40)
        for mask in moved:
            left, right = ((mask == value).sum(axis=0) for value in (1, 2))
            if left.sum() and right.sum():
                assert np.average(columns, weights=left) < np.average(columns, weights=right)


def test_a_slice_is_changed_the_same_in_any_company():
    """So that two devices with half a batch each change what one does."""
    drawn = augmentation.draw_augmentations(SEED, len(IMAGES))
    images, truth = tf.constant(IMAGES), tf.constant(MASKS)
    whole, masks = augmentation.augment(images, truth, frames_of(MASKS), drawn, STRONG)
    for first in range(len(IMAGES)):
        one = slice(first, first + 1)
        image, mask = augmentation.augment(images[one], truth[one], frames_of(MASKS[one]), drawn[one], STRONG)
        np.testing.assert_allclose(image.numpy().astype(int), whole[one].numpy(), atol=1)
        np.testing.assert_array_equal(mask, masks[one])


@pytest.mark.parametrize("aspect", [1.0, 1.92, 0.5])
def test_a_rotation_turns_millimetres_and_shears_nothing(aspect):
    """A disc in mm stays one, and a square keeps its right angles, whatever the pixels."""
    rows, columns = np.indices((81, 81)) - 40
    y, x = rows * 1.0, columns * aspect
    square = (np.maximum(np.abs(y), np.abs(x)) < 15).astype(np.uint8)
    masks = np.stack([square] * 8)
    _, turned = changed(replace(NOTHING, rotation_deg=45), images=masks[..., None], masks=masks, aspect=aspect)
    for mask in turned:
        assert int(mask.sum()) == pytest.approx(int(square.sum()), rel=0.05)
        inner = np.cov(np.stack([y[mask > 0], x[mask > 0]]))
        assert inner[0, 0] == pytest.approx(inner[1, 1], rel=0.06)
        assert abs(inner[0, 1]) < 0.06 * inner[0, 0]
    assert len({mask.tobytes() for mask in turned}) > 4


def test_what_lies_beyond_a_smaller_slice_stays_black():
    """Two sizes share a batch; its filling is no tissue to be brightened, nor is what is turned in from outside."""
    images = np.full((4, 40, 36, 3), 100, np.uint8)
    images[:, 30:] = images[:, :, 30:] = 0
    masks = np.ones((4, 40, 36), np.uint8)
    masks[:, 30:] = masks[:, :, 30:] = 0
    frames = tf.constant([[30, 30, 1.0]] * 4)
    for strength in (replace(NOTHING, brightness=50), replace(STRONG, noise=0, blur=0, coarse=1, often=0, thick=1)):
        drawn = tf.concat(
            [tf.fill((4, augmentation.EVEN), 0.9), augmentation.draw_augmentations(SEED, 4)[:, augmentation.EVEN :]], 1
        )
        changed_images, changed_masks = augmentation.augment(
            tf.constant(images), tf.constant(masks), frames, drawn, strength
        )
        assert not changed_images.numpy()[changed_masks.numpy() == 0].any()
        assert (changed_images.numpy()[changed_masks.numpy() == 1] > 0).mean() > 0.95


def same(pairs, others) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(pairs, others, strict=True))


def test_the_layer_changes_image_and_mask_alike_and_each_pair_by_itself():
    augment = Augmentation(GEOMETRY, seed=1)
    images, masks = augment(IMAGES, MASKS)
    assert images.dtype == masks.dtype == np.uint8
    assert images.shape == IMAGES.shape
    assert ((images.numpy()[..., 1] >= 90) == (masks.numpy() == 3)).mean() > 0.995
    assert len({mask.numpy().tobytes() for mask in masks}) == len(MASKS)
    assert not same(augment(IMAGES, MASKS), (images, masks))  # new numbers at each call


def test_a_seed_fixes_the_changes():
    first, again, other = (Augmentation("medium", seed=seed) for seed in (1, 1, 2))
    for _ in range(2):
        pairs = first(IMAGES, MASKS)
        assert same(again(IMAGES, MASKS), pairs)
        assert not same(other(IMAGES, MASKS), pairs)
    assert not same(Augmentation()(IMAGES, MASKS), Augmentation()(IMAGES, MASKS))


def test_nothing_changes_outside_of_training():
    assert same(Augmentation("strong")(IMAGES, MASKS, training=False), (IMAGES, MASKS))
    assert same(Augmentation("none")(IMAGES, MASKS), (IMAGES, MASKS))
    model = as_model(Augmentation("strong"))
    assert same(model([IMAGES, MASKS], training=False), (IMAGES, MASKS))
    assert not same(model([IMAGES, MASKS], training=True), (IMAGES, MASKS))


def as_model(layer):
    images, masks = keras.Input((40, 36, 3), dtype="uint8"), keras.Input((40, 36), dtype="uint8")
    return keras.Model([images, masks], layer(images, masks))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_masks_of_any_integer_one_pair_and_patches(dtype):
    masks = MASKS.astype(dtype)
    expected = Augmentation("light", seed=1)(IMAGES, MASKS)
    images, found = Augmentation("light", seed=1)(IMAGES, masks[..., None])
    assert found.dtype == dtype
    assert same((images, found[..., 0]), expected)
    image, mask = Augmentation("light", seed=1)(IMAGES[0], masks[0])
    assert image.shape == IMAGES.shape[1:]
    assert mask.shape == MASKS.shape[1:]
    patches = np.repeat(MASKS[..., None], 8, axis=-1)
    moved, labels = Augmentation(GEOMETRY, seed=1)(patches * 60, patches.astype(dtype))
    assert ((moved.numpy() >= 90) == (labels.numpy() == 3)).mean() > 0.995


def test_inside_tf_data_before_and_after_batching():
    slices = tf.data.Dataset.from_tensor_slices((IMAGES, MASKS))
    for pairs in (slices.batch(4).map(Augmentation("medium", seed=1)), slices.map(Augmentation("medium")).batch(4)):
        images, masks = next(iter(pairs))
        assert images.shape == IMAGES.shape
        assert masks.shape == MASKS.shape
        assert not np.array_equal(images, IMAGES)
    in_map = next(iter(slices.batch(4).map(Augmentation("medium", seed=1))))
    eager = Augmentation("medium", seed=1)(IMAGES, MASKS)
    np.testing.assert_allclose(in_map[0].numpy().astype(int), eager[0], atol=1)
    np.testing.assert_array_equal(in_map[1], eager[1])
    unknown = tf.data.Dataset.from_generator(
        lambda: iter([(IMAGES, MASKS), (IMAGES[:2, :30], MASKS[:2, :30])]),
        output_signature=(tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((None, None, None), tf.uint8)),
    ).map(Augmentation("strong"))
    assert [tuple(images.shape) for images, _ in unknown] == [(4, 40, 36, 3), (2, 30, 36, 3)]


def test_wide_pixels_are_turned_in_millimetres():
    """A square in mm keeps its area; in square pixels it would be sheared beyond its slice."""
    rows, columns = np.indices((81, 81)) - 40
    square = (np.maximum(np.abs(rows), np.abs(columns * 1.92)) < 15).astype(np.uint8)
    masks = np.stack([square] * 8)
    _, turned = Augmentation(replace(NOTHING, rotation_deg=45), aspect=1.92, seed=0)(masks[..., None], masks)
    for mask in turned.numpy():
        inner = np.cov(np.stack([rows[mask > 0], columns[mask > 0] * 1.92]))
        assert inner[0, 0] == pytest.approx(inner[1, 1], rel=0.06)


@pytest.mark.parametrize("strength", ["medium", GEOMETRY])
def test_the_layer_goes_through_a_file(strength, tmp_path):
    layer = Augmentation(strength, aspect=1.5, seed=3, name="changes")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert again.strength == strength
    model = as_model(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(loaded([IMAGES, MASKS], training=True), model([IMAGES, MASKS], training=True))


def test_what_the_layer_cannot_change_is_refused():
    with pytest.raises(ValueError, match="unknown strength 'mild'; there are: none, light, medium, strong"):
        Augmentation("mild")
    with pytest.raises(ValueError, match="aspect must be above 0, got 0"):
        Augmentation(aspect=0)
    with pytest.raises(ValueError, match="images are uint8 with 3 or 4 axes, got"):
        Augmentation()(IMAGES.astype(np.float32), MASKS)


def test_resolution_is_lowered_along_each_axis_by_itself():
    """A pattern of rows and one of columns keep different shares of their contrast, in most of many slices."""
    rows = np.tile(np.array([0, 0, 250, 250], np.uint8)[:, None], (16, 64))
    images = np.stack([rows, rows.T], axis=-1)[None].repeat(40, axis=0)
    strength = replace(NOTHING, often=1.0, coarse=2.5)
    found, _ = Augmentation(strength, seed=1)(images, np.zeros(images.shape[:3], np.uint8))
    contrast = np.asarray(found)[:, 8:-8, 8:-8].astype(float).std(axis=(1, 2))
    assert (contrast < 125).mean() > 0.9
    assert (np.abs(contrast[:, 0] - contrast[:, 1]) > 5).mean() > 0.5


def test_thicker_slices_are_means_over_their_neighbours():
    """Of one bright slice among dark ones; what is bright altogether stays."""
    images = np.zeros((1, 8, 8, 7), np.float32)
    images[..., 3] = 210
    found = np.asarray(augmentation._thicker(tf.constant(images), tf.constant([[1.0]])))[0, 0, 0]
    np.testing.assert_allclose(found, [0, 0, 52.5, 105, 52.5, 0, 0], atol=1e-4)
    ends = np.asarray(augmentation._thicker(tf.constant(np.full((1, 2, 2, 3), 90, np.float32)), tf.constant([[2.0]])))
    np.testing.assert_allclose(ends, 90, atol=1e-4)


def test_one_channel_has_no_neighbours():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), np.uint8)
    found, _ = Augmentation(replace(NOTHING, often=1.0, thick=3), seed=0)(images, images[..., 0])
    np.testing.assert_array_equal(found, images)
