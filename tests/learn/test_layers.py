"""Raw pixels of any size in, the same size out."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
layers = pytest.importorskip("knee3d.learn.networks.layers")


def test_grey_becomes_what_keras_vgg_expects():
    grey = np.array([[[[7, 7, 7]]]], dtype=np.uint8)
    colours = np.full((1, 1, 1, 3), 7.0)
    expected = keras.applications.vgg16.preprocess_input(colours)
    np.testing.assert_allclose(layers.ToEncoder()(grey), expected, rtol=1e-6)


def test_neighbours_stay_apart():
    window = np.array([[[[1, 2, 3]]]], dtype=np.uint8)
    np.testing.assert_allclose(layers.ToEncoder()(window)[0, 0, 0] + layers.IMAGENET_MEANS, [1, 2, 3], rtol=1e-5)


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
    padded = layers.PadToStride(32)(layers.ToEncoder()(slices))
    model = keras.Model(slices, [padded, layers.CropLike()([padded, slices])])
    model.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    for network in (model, keras.models.load_model(tmp_path / "model.keras")):
        inside, back = network(pixels)
        assert inside.shape[1] % 32 == inside.shape[2] % 32 == 0
        assert back.shape[1:3] == size
        np.testing.assert_array_equal(back, layers.ToEncoder()(pixels))
        assert not np.asarray(inside)[:, size[0] :].any()
        assert not np.asarray(inside)[:, :, size[1] :].any()
