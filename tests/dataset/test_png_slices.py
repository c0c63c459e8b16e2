"""Pixels on disk are the pixels that were given."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from knee3d.dataset.png_slices import read_slices, slice_name, write_slices_in_background


def write_slices(slices, folder):
    with ThreadPoolExecutor(2) as pool:
        for written in write_slices_in_background(slices, folder, pool):
            written.result()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (12, 33, 2)])
def test_what_is_written_is_read(tmp_path, shape):
    for dtype in (np.uint8, np.uint16):
        slices = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        write_slices(slices, tmp_path)
        read = read_slices(sorted(tmp_path.iterdir()))
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, slices)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flipped", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_slices_may_lie_in_memory_in_any_way(tmp_path, dtype, order, flipped):
    for shape in ((5, 6, 7), (1, 4, 5), (4, 1, 5), (4, 5, 1), (1, 1, 1)):
        array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
        slices = np.flip(array.transpose(order), flipped)
        folder = tmp_path / str(shape)
        write_slices(slices, folder)
        np.testing.assert_array_equal(read_slices(sorted(folder.iterdir())), slices)


def test_names_sort_as_slices_do():
    names = [slice_name(index) for index in range(1200)]
    assert sorted(names) == names


@pytest.mark.slow
def test_tensorflow_decodes_the_same_pixels(tmp_path):
    import tensorflow as tf

    slices = np.random.default_rng(0).integers(0, 65536, (1, 9, 8)).astype(np.uint16)
    upper = (slices >> 8).astype(np.uint8)
    for kind, written in (("16", slices), ("8", upper)):
        write_slices(written, tmp_path / kind)
        data = (tmp_path / kind / slice_name(0)).read_bytes()
        np.testing.assert_array_equal(tf.io.decode_png(data, channels=1)[..., 0], upper[0])


def test_files_that_are_no_slices_are_refused(tmp_path):
    write_slices(np.zeros((2, 3, 4), np.uint8), tmp_path)
    paths = sorted(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        read_slices([*paths, tmp_path / "0007.png"])
    cv2.imwrite(str(paths[1]), np.zeros((3, 5), np.uint8))
    with pytest.raises(ValueError, match="differ in height, width or bits"):
        read_slices(paths)
    cv2.imwrite(str(paths[1]), np.zeros((3, 4), np.uint16))
    with pytest.raises(ValueError, match="differ in height, width or bits"):
        read_slices(paths)
    cv2.imwrite(str(paths[1]), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0001\.png is not a readable grey PNG"):
        read_slices(paths)
    paths[1].write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"0001\.png is not"):
        read_slices(paths)
