"""One window for a volume."""

import numpy as np
import pytest

from knee3d.anatomy.volume import Volume
from knee3d.dataset.intensity import PERCENTILES, Window, to_intensities, to_pixels, window_of


def volume(array: np.ndarray) -> Volume:
    return Volume(np.asarray(array).reshape(1, 1, -1), np.eye(4))


def test_the_window_spans_the_percentiles_and_outliers_are_clipped():
    ramp = np.arange(-1000, 1001, dtype=np.int16)
    window = window_of(volume(ramp))
    assert (window.low, window.high) == (-990, 990)
    grey = to_pixels(volume(ramp), window).array.ravel()
    assert grey.dtype == np.uint8
    assert grey[0] == grey[10] == 0
    assert grey[-1] == grey[-11] == 255
    assert (np.diff(grey.astype(int)) >= 0).all()
    assert grey[1000] in (127, 128)


def test_tiny_floats_are_not_black():
    """IWOAI images are of the order of 1e-4; a cast to uint8 would be all zeros."""
    tiny = np.linspace(0, 3e-4, 500, dtype=np.float32)
    assert len(np.unique(to_pixels(volume(tiny), window_of(volume(tiny))).array)) > 200


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="1 voxels are NaN or infinite"):
        window_of(volume(np.array([1.0, bad, 2.0])))


def test_an_image_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no contrast"):
        window_of(volume(np.full(100, 7)))


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.nan)])
def test_windows_that_span_nothing_are_refused(limits):
    with pytest.raises(ValueError, match="low < high"):
        Window(*limits)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_numpys_for_every_type_and_order_of_axes(dtype, seed):
    """Sixteen bits are counted, and not sorted; the extremes of the type are in it."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo(np.int16)
    array = rng.integers(limits.min, limits.max, rng.integers(3, 9, 3), endpoint=True).astype(dtype)
    array.flat[:2] = limits.min, limits.max
    for seen in (array, array.T, array[::-1, :, ::-1]):
        window = window_of(Volume(seen, np.eye(4)))
        np.testing.assert_allclose([window.low, window.high], np.percentile(array, PERCENTILES), rtol=1e-12)
        pixels = to_pixels(Volume(seen, np.eye(4)), window).array
        scale = np.float32(255 / (window.high - window.low))
        plain = np.floor(np.clip((seen.astype(np.float32) - np.float32(window.low)) * scale, 0, 255) + np.float32(0.5))
        np.testing.assert_array_equal(pixels, plain)


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_bits_are_finer_and_show_eight_the_same(seed):
    rng = np.random.default_rng(seed)
    image = volume(rng.normal(rng.uniform(-500, 500), rng.uniform(0.1, 500), 5000).astype(np.float32))
    window = window_of(image)
    coarse, fine = (to_pixels(image, window, bits).array for bits in (8, 16))
    assert fine.dtype == np.uint16
    np.testing.assert_array_equal(fine >> 8, coarse)
    for pixels, step in ((coarse, 1), (fine, 1 / 256)):
        back = to_intensities(image.with_array(pixels), window).array
        assert back.dtype == np.float32
        unit = (window.high - window.low) / 255
        assert np.abs(back - np.clip(image.array, window.low, window.high)).max() <= unit * (step / 2 + 1e-3)
        assert np.float32(window.low) <= back.min()
        assert back.max() <= np.float32(window.high)


def test_pixels_of_other_types_are_refused():
    with pytest.raises(ValueError, match="8 or 16 bits, not 12"):
        to_pixels(volume(np.arange(5)), Window(0, 1), 12)
