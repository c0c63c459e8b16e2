"""One window for a volume."""

import math

import numpy as np
import pytest

from knee3d.dataset.intensity import (
    SHARE,
    IntensityWindow,
    check_one_knee,
    find_window,
    replace_padding,
    to_intensities,
    to_pixels,
)
from knee3d.geometry.volume import Volume


def volume(array: np.ndarray) -> Volume:
    return Volume(np.asarray(array).reshape(1, 1, -1), np.eye(4))


def naive(array: np.ndarray) -> tuple[float, float]:
    """The same window from sorted voxels, one step after the other; of an array with even sides."""
    i, j, k = array.shape
    means = array.reshape(i // 2, 2, j // 2, 2, k // 2, 2).astype(float).mean(axis=(1, 3, 5)).astype(np.float32)
    blocks = np.sort(means.ravel()).astype(float)
    darkest = blocks[int(1e-4 * blocks.size)]
    level, before = blocks.mean() - darkest, np.nan
    while level != before:
        bright = blocks[blocks > darkest + level]
        before, level = level, (bright[math.ceil(bright.size / 2) - 1] - darkest) / 2
    inside = np.sort(array[np.kron(means > darkest + level, np.ones((2, 2, 2))) > 0]).astype(float)
    high, low = inside[math.ceil(SHARE * inside.size) - 1], np.sort(array.ravel())[int((1 - SHARE) * inside.size)]
    return 0 if -high / 20 <= low <= high / 4 else low, high


def ball(rng: np.random.Generator, air: str, margin: int = 0, size: int = 40) -> np.ndarray:
    """A ball of tissues like those of a knee, and around it air of some kind, as much as one wants."""
    shape = np.array([size, size, size])
    away = np.linalg.norm(np.indices(shape).T - size / 2, axis=-1).T
    tissue = rng.choice([20, 60, 150, 300], p=[0.4, 0.2, 0.3, 0.1], size=shape) + rng.normal(0, 8, shape)
    array = np.where(away < size / 2, tissue, AIR[air](rng, shape))
    wide = AIR[air](rng, shape + [2 * margin, 0, 0])
    wide[margin : margin + size] = array
    return wide


AIR = {
    "zeros": lambda rng, shape: np.zeros(shape),
    "noise": lambda rng, shape: rng.rayleigh(6, shape),
    "ghosts": lambda rng, shape: rng.rayleigh(6, shape) + 25 * (rng.random(shape) < 0.02),
}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("offset", [0, 1000, -500])
@pytest.mark.parametrize("air", AIR)
def test_the_window_does_not_depend_on_how_much_air_there_is(air, offset, dtype):
    """With 0, 30, 60 and 300 % more of it, the window is the same within 2 % of its width."""
    windows = []
    for margin in (0, 6, 12, 60):
        array = ball(np.random.default_rng(3), air, margin) + offset
        windows.append(find_window(Volume(array.round().astype(dtype), np.eye(4))))
    width = windows[0].high - windows[0].low
    for window in windows[1:]:
        assert abs(window.low - windows[0].low) < 0.02 * width
        assert abs(window.high - windows[0].high) < 0.02 * width
    assert windows[0].low <= offset + 10
    assert offset + 300 < windows[0].high < offset + 330


@pytest.mark.parametrize("noise", [6, 15, 30])
def test_nor_where_noise_is_strong(noise):
    """Up to a tenth of the brightest tissue, as at low field; as scanners have it, in real and imaginary parts."""
    windows = []
    for margin in (0, 6, 12):
        rng = np.random.default_rng(3)
        array = ball(rng, "zeros", margin)
        noisy = np.hypot(array + rng.normal(0, noise, array.shape), rng.normal(0, noise, array.shape))
        windows.append(find_window(Volume(noisy.astype(np.int16), np.eye(4))))
    width = windows[0].high - windows[0].low
    assert max(abs(one.low - windows[0].low) for one in windows) < 0.02 * width
    assert max(abs(one.high - windows[0].high) for one in windows) < 0.02 * width


def test_a_few_negative_voxels_do_not_move_the_window():
    """As cubic resampling leaves them beside bright edges; a whole image around 0, as of z-scores, is another thing."""
    array = ball(np.random.default_rng(3), "zeros")
    window = find_window(Volume(array, np.eye(4)))
    assert window.low == 0
    ringing = array.copy()
    ringing[::7, ::7, ::7] = -12
    assert find_window(Volume(ringing, np.eye(4))).low == 0
    scored = (array - array.mean()) / array.std()
    assert find_window(Volume(scored, np.eye(4))).low < -0.5


@pytest.mark.parametrize("mm", [0.0004, 400.0])
def test_voxels_in_another_unit_are_refused(mm):
    with pytest.raises(ValueError, match="another unit than mm"):
        check_one_knee(Volume(np.zeros((4, 4, 4)), np.diag([mm, mm, mm, 1])))


def test_outliers_are_clipped_and_what_is_between_keeps_its_order():
    array = ball(np.random.default_rng(1), "noise").astype(np.int16)
    array.flat[:3] = 30000, 30000, -3000
    window = find_window(Volume(array, np.eye(4)))
    assert window.high < 400
    ramp = np.arange(-100, 500)
    grey = to_pixels(volume(ramp), window).array.ravel()
    assert grey.dtype == np.uint8
    assert (grey[0], grey[-1]) == (0, 255)
    assert (np.diff(grey.astype(int)) >= 0).all()


PADDING = {
    "below all others": (-1024, 0),
    "far below": (-32768, 0),
    "above": (4095, 0),
    "0, where images begin at 1000": (0, 1000),
    "floats": (-5.0, -1.5),
}


@pytest.mark.parametrize(("value", "begin"), PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("sides", [1, 6])
def test_a_border_of_one_value_far_from_all_others_is_padding(value, begin, sides, caplog):
    knee = ball(np.random.default_rng(2), "noise")
    array = (knee / 100 + begin).astype(np.float32) if isinstance(value, float) else (knee + begin).astype(np.int16)
    array[20, 20, 20] = 20000 if value <= begin else 0  # an outlier at the other end
    rim = np.zeros(array.shape, bool)
    rim[:2] = True
    if sides == 6:
        rim[2:-2, 2:-2, 2:-2] = False
        for axis in range(3):
            np.moveaxis(rim, axis, 0)[[0, 1, -1, -2]] = True
    padded = np.where(rim, array.dtype.type(value), array)
    found = replace_padding(Volume(padded, np.eye(4))).array
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, np.where(rim, array[~rim].min(), array))
    assert len(caplog.records) == 1
    window, plain = find_window(Volume(found, np.eye(4))), find_window(Volume(array, np.eye(4)))
    assert abs(window.high - plain.high) < 0.02 * (plain.high - plain.low)


NO_PADDING = {
    "air of 0": lambda array: np.where(array < 12, 0, array),
    "saturated": lambda array: np.minimum(array, 300),
    "a few voxels": lambda array: np.where(np.arange(array.size).reshape(array.shape) < 20, -1024, array),
    "within": lambda array: np.where(np.linalg.norm(np.indices(array.shape).T - 20, axis=-1).T < 8, -1024, array),
    "one value": np.zeros_like,
    "one far voxel": lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, 30000, array),
    "two values": lambda array: (array > 100).astype(np.int16),
}


@pytest.mark.parametrize("change", NO_PADDING.values(), ids=NO_PADDING)
def test_what_else_may_be_one_value_is_not_padding(change, caplog):
    image = Volume(change(ball(np.random.default_rng(2), "noise").astype(np.int16)), np.eye(4))
    assert replace_padding(image) is image
    assert not caplog.records


def test_tiny_floats_are_not_black():
    """IWOAI images are of the order of 1e-4; a cast to uint8 would be all zeros."""
    tiny = np.linspace(0, 3e-4, 500, dtype=np.float32)
    assert len(np.unique(to_pixels(volume(tiny), find_window(volume(tiny))).array)) > 200


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="1 voxels are NaN or infinite"):
        replace_padding(volume(np.array([1.0, bad, 2.0])))


def test_an_image_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no contrast"):
        find_window(volume(np.full(100, 7)))


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.nan)])
def test_windows_that_span_nothing_are_refused(limits):
    with pytest.raises(ValueError, match="low < high"):
        IntensityWindow(*limits)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("seed", range(5))
def test_windows_are_those_of_sorted_voxels_for_every_type_and_order_of_axes(dtype, seed):
    """Sixteen bits are counted, and not sorted; the extremes of the type are in it."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo(np.int16)
    array = rng.integers(limits.min, limits.max, 2 * rng.integers(2, 5, 3), endpoint=True).astype(dtype)
    array.flat[:2] = limits.min, limits.max
    for seen in (array, array.T, array[::-1, :, ::-1]):
        window = find_window(Volume(seen, np.eye(4)))
        assert (window.low, window.high) == naive(array)
        pixels = to_pixels(Volume(seen, np.eye(4)), window).array
        scale = np.float32(255 / (window.high - window.low))
        plain = np.floor(np.clip((seen.astype(np.float32) - np.float32(window.low)) * scale, 0, 255) + np.float32(0.5))
        np.testing.assert_array_equal(pixels, plain)


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_bits_are_finer_and_show_eight_the_same(seed):
    rng = np.random.default_rng(seed)
    image = volume(rng.normal(rng.uniform(-500, 500), rng.uniform(0.1, 500), 5000).astype(np.float32))
    window = find_window(image)
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
        to_pixels(volume(np.arange(5)), IntensityWindow(0, 1), 12)


@pytest.mark.parametrize(("width", "gap"), [(110, 20), (150, 0)])
def test_two_knees_in_one_image_are_refused_and_one_with_much_air_is_not(width, gap):
    """Legs may touch; noise around a single knee counts for nothing."""
    rng = np.random.default_rng(0)
    wide = rng.rayleigh(6, (12, 12, 400))
    start = 200 - gap // 2 - width
    wide[:, :, start : start + width] += 200
    check_one_knee(Volume(wide, np.eye(4)))
    wide[:, :, 200 + gap // 2 : 200 + gap // 2 + width] += 200
    with pytest.raises(ValueError, match=f"{2 * width + gap} mm from right to left, so both knees; crop"):
        check_one_knee(Volume(wide, np.eye(4)))
    check_one_knee(Volume(wide, np.diag([1, 1, 0.4, 1])))


def test_a_single_slice_is_no_volume():
    with pytest.raises(ValueError, match="single slice"):
        check_one_knee(Volume(np.zeros((5, 1, 5)), np.eye(4)))
