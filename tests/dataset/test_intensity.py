"""One window for a volume."""

import numpy as np
import pytest

from knee3d.anatomy.volume import Volume
from knee3d.dataset.intensity import PERCENTILES, Window, to_uint8, window_of


def volume(array: np.ndarray) -> Volume:
    return Volume(np.asarray(array).reshape(1, 1, -1), np.eye(4))


def test_the_window_spans_the_percentiles_and_outliers_are_clipped():
    ramp = np.arange(-1000, 1001, dtype=np.int16)
    window = window_of(volume(ramp))
    assert (window.low, window.high) == (-990, 990)
    grey = to_uint8(volume(ramp), window).array.ravel()
    assert grey.dtype == np.uint8
    assert grey[0] == grey[10] == 0
    assert grey[-1] == grey[-11] == 255
    assert (np.diff(grey.astype(int)) >= 0).all()
    assert grey[1000] in (127, 128)


def test_tiny_floats_are_not_black():
    """IWOAI images are of the order of 1e-4; a cast to uint8 would be all zeros."""
    tiny = np.linspace(0, 3e-4, 500, dtype=np.float32)
    assert len(np.unique(to_uint8(volume(tiny), window_of(volume(tiny))).array)) > 200


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
        pixels = to_uint8(Volume(seen, np.eye(4)), window).array
        scale = np.float32(255 / (window.high - window.low))
        plain = np.clip(np.rint((seen.astype(np.float32) - np.float32(window.low)) * scale), 0, 255)
        np.testing.assert_array_equal(pixels, plain)
