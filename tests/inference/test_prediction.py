"""Slices go through the predictor and come back to their places."""

from dataclasses import dataclass

import numpy as np
import pytest

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference import prediction
from knee3d.inference.prediction import PlaneView, predict_volume, stack_neighbours

IMAGE = Volume(np.random.default_rng(0).integers(0, 256, (5, 6, 7)).astype(np.uint8), np.diag([1.0, 2, 3, 1]))


@dataclass(frozen=True)
class Grey:
    """Says how bright the middle channel is."""

    context: int
    classes: int = 2

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        assert slices.dtype == np.uint8
        assert slices.shape[-1] == 2 * self.context + 1
        bright = slices[..., self.context].astype(np.float32) / 255
        return np.stack([1 - bright, bright], axis=-1)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("plane", Plane)
def test_every_voxel_comes_back_to_its_place(plane, context, batch_size, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH_PIXELS", batch_size * 36)
    volume = predict_volume(IMAGE, plane, Grey(context))
    np.testing.assert_allclose(volume.array[..., 1], IMAGE.array / 255, rtol=1e-6)
    np.testing.assert_array_equal(volume.affine, IMAGE.affine)
    told, view = [], PlaneView(plane, Grey(context))
    for index, part in view.parts(IMAGE, advance=told.append):
        np.testing.assert_array_equal(part, volume.array[index])
    assert sum(told) == IMAGE.shape[plane.axis] == view.steps(IMAGE)


@pytest.mark.parametrize("plane", Plane)
def test_of_a_region_no_slice_beyond_it_is_computed(plane):
    region = np.zeros(IMAGE.shape, dtype=bool)
    region[2:4, 1:4, 3:6] = True
    told, seen = [], np.zeros(IMAGE.shape, dtype=bool)
    for index, part in PlaneView(plane, Grey(1)).parts(IMAGE, region, told.append):
        np.testing.assert_allclose(part[..., 1], IMAGE.array[index] / 255, rtol=1e-6)
        seen[index] = True
    np.testing.assert_array_equal(seen, region)  # it is a box
    assert sum(told) == IMAGE.shape[plane.axis]


def test_neighbours_are_channels_and_ends_repeat():
    stack = np.arange(4, dtype=np.uint8)[:, None, None]
    windows = stack_neighbours(stack, range(4), 1)[:, 0, 0]
    assert windows.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert stack_neighbours(stack, [2], 2)[:, 0, 0].tolist() == [[0, 1, 2, 3, 3]]


def test_wrong_input_and_wrong_output_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        predict_volume(IMAGE.with_array(IMAGE.array.astype(float)), Plane.AXIAL, Grey(0))
    with pytest.raises(ValueError, match="returned"):
        predict_volume(IMAGE, Plane.AXIAL, Grey(0, classes=3))
