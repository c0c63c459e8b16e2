"""Raw pixels of any size in, the same size out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from knee3d.networks import layers
from knee3d.networks.encoder import PixelScaling, scale_for_encoder

MEANS = (103.939, 116.779, 123.68)


def test_grey_becomes_what_keras_vgg_expects():
    grey = np.array([[[[7, 7, 7]]]], dtype=np.uint8)
    colours = np.full((1, 1, 1, 3), 7.0)
    expected = keras.applications.vgg16.preprocess_input(colours)
    np.testing.assert_allclose(scale_for_encoder(PixelScaling(MEANS))(grey), expected, rtol=1e-6)


def test_neighbours_stay_apart():
    window = np.array([[[[1, 2, 3]]]], dtype=np.uint8)
    np.testing.assert_allclose(scale_for_encoder(PixelScaling(MEANS))(window)[0, 0, 0] + MEANS, [1, 2, 3], rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 5, 7])
def test_other_channel_counts_start_as_the_middle_three(channels):
    stem = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer=layers.MiddleSlices())
    window = np.arange(1, channels + 1, dtype=np.float32)[None, None, None]
    middle = channels // 2 + 1
    expected = [middle - 1, middle, middle + 1] if channels > 1 else [1, 1, 1]
    np.testing.assert_allclose(stem(window)[0, 0, 0], expected)


@pytest.mark.parametrize("size", [(1, 1), (31, 32), (33, 64), (50, 97)])
def test_padding_is_undone(size, tmp_path):
    slices = keras.Input((None, None, 3), dtype="uint8")
    padded = layers.PadToStride(32)(scale_for_encoder(PixelScaling(MEANS))(slices))
    model = keras.Model(slices, [padded, layers.CropLike()([padded, slices])])
    model.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    for network in (model, keras.models.load_model(tmp_path / "model.keras")):
        inside, back = network(pixels)
        assert inside.shape[1] % 32 == inside.shape[2] % 32 == 0
        assert back.shape[1:3] == size
        np.testing.assert_array_equal(back, scale_for_encoder(PixelScaling(MEANS))(pixels))
        assert not np.asarray(inside)[:, size[0] :].any()
        assert not np.asarray(inside)[:, :, size[1] :].any()


@pytest.mark.parametrize("compiled", ["eager", "graph", "xla"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_pooled_returns_to_its_pixel(compiled, dtype):
    pixels = tf.cast(np.random.default_rng(0).integers(0, 9, (2, 6, 10, 3)), dtype)  # many are equal

    def there_and_back(pixels):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            pooled, where = layers.PoolWithIndices(dtype=dtype)(pixels)
            back = layers.UnpoolWithIndices(dtype=dtype)([pooled, where])
            total = tf.reduce_sum(back * back)
        return pooled, back, tape.gradient(total, pixels)

    run = there_and_back if compiled == "eager" else tf.function(there_and_back, jit_compile=compiled == "xla")
    pooled, back, slope = run(pixels)
    plain, flat = tf.nn.max_pool_with_argmax(tf.cast(pixels, "float32"), 2, 2, "SAME", include_batch_in_index=True)
    expected = np.zeros(pixels.shape, np.float32)
    expected.ravel()[np.asarray(flat).ravel()] = np.asarray(plain).ravel()
    np.testing.assert_array_equal(tf.cast(pooled, "float32"), plain)
    np.testing.assert_array_equal(tf.cast(back, "float32"), expected)
    np.testing.assert_array_equal(tf.cast(slope, "float32"), 2 * expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_upsampling_is_keras_own(interpolation):
    features = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = keras.layers.UpSampling2D((2, 4), interpolation=interpolation)(features)
    ours = layers.UpSample((2, 4), interpolation)
    np.testing.assert_allclose(ours(features), expected, atol=1e-6)
    np.testing.assert_allclose(layers.UpSample.from_config(ours.get_config())(features), expected, atol=1e-6)


def test_a_grid_of_means():
    features = np.random.default_rng(0).normal(size=(2, 6, 12, 3)).astype(np.float32)
    expected = features.reshape(2, 3, 2, 3, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(layers.PoolToGrid(3)(features), expected, atol=1e-6)


def test_transposed_convolution_starts_as_interpolation():
    ramp = np.arange(8, dtype=np.float32)[None, :, None, None] * np.ones((1, 8, 8, 2), np.float32)
    up = keras.layers.Conv2DTranspose(2, 4, 2, "same", use_bias=False, kernel_initializer=layers.Bilinear())
    inside = np.asarray(up(ramp))[0, 4:-4, 4:-4]
    expected = np.broadcast_to(((np.arange(16) - 0.5) / 2)[4:-4, None, None], inside.shape)
    np.testing.assert_allclose(inside, expected, atol=1e-5)
