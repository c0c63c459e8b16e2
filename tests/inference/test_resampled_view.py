"""Views on voxels of their own: every voxel of the image once, and what is smooth keeps its place and value."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pytest

from knee3d.geometry.orientation import axis_codes, from_canonical, reorient, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference import resampled_view
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.patch_view import PatchView
from knee3d.inference.prediction import PlaneView
from knee3d.inference.resampled_view import ResampledView

CANONICAL = np.array([[0, 0, -0.7, 30], [0, -0.4, 0, 20], [-0.5, 0, 0, 10], [0, 0, 0, 1.0]])
SHAPE = (44, 50, 23)
SPACINGS = [(0.9, 0.9, 1.4), (0.55, 0.55, 0.7), (0.3, 0.35, 0.5), (0.5, 0.4, 2.5), (3.0, 0.4, 0.3)]


@dataclass(frozen=True)
class Gentle:
    """The brighter, the more likely tissue: linear in the slice itself."""

    classes: int = 3
    context: int = 1
    patch: tuple[int, int, int] = (16, 16, 8)

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = (slices[..., self.context] if slices.shape[-1] == 3 else slices).astype(np.float32) / 255
        return np.stack([1 - tissue, tissue / 2, tissue / 2], axis=-1)


def waves(shape: tuple[int, int, int] = SHAPE, affine: np.ndarray = CANONICAL) -> Volume:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    places = np.meshgrid(*(np.arange(size) * mm for size, mm in zip(shape, spacing, strict=True)), indexing="ij")
    field = 0.5 + sum(np.sin(2 * np.pi * one / 25) for one in places) / 6
    return Volume(np.rint(field * 250).astype(np.uint8), affine)


def all_parts(view, image: Volume, region: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and how often each voxel came."""
    found = np.zeros((*image.shape, view.predictor.classes), np.float32)
    times, steps = np.zeros(image.shape, int), []
    for index, part in view.parts(image, region, steps.append):
        found[index] = part
        times[index] += 1
    assert sum(steps) == view.steps(image)
    return found, times


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("plane", list(Plane))
def test_what_is_smooth_comes_back_and_every_voxel_comes_once(plane, spacing):
    image = waves()
    found, times = all_parts(ResampledView(PlaneView(plane, Gentle()), spacing), image)
    assert (times == 1).all()
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    inside = tuple(slice(round(3 / mm), -round(3 / mm)) for mm in image.spacing_mm)
    limit = 0.01 + 0.25 * (max(spacing) / 25) ** 2 * 12
    assert np.abs(found[..., 1] * 2 - image.array / np.float32(255))[inside].max() < limit


def test_a_volume_network_is_brought_back_too():
    image = waves()
    found, times = all_parts(ResampledView(PatchView(Gentle()), (0.9, 0.7, 1.4)), image)
    assert (times == 1).all()
    assert np.abs(found[..., 1] * 2 - image.array / np.float32(255))[6:-6, 6:-6, 4:-4].max() < 0.03


@pytest.mark.parametrize("plane", list(Plane))
def test_the_same_voxels_give_the_same_bits(plane):
    image, view = waves(), PlaneView(plane, Gentle())
    expected, _ = all_parts(view, image)
    found, _ = all_parts(ResampledView(view, (0.5, 0.4, 0.7)), image)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("plane", list(Plane))
def test_a_region_is_predicted_as_in_the_whole(plane, spacing):
    image, view = waves(), ResampledView(PlaneView(plane, Gentle()), spacing)
    region = np.zeros(SHAPE, bool)
    region[9:31, 20:33, 4:17] = True
    region[9, 20] = False
    whole, _ = all_parts(view, image)
    found, times = all_parts(view, image, region)
    assert (times[9:31, 20:33, 4:17] == 1).all()
    assert times.sum() == 22 * 13 * 13
    np.testing.assert_allclose(found[region], whole[region], atol=1e-5)


def test_no_region_is_nothing():
    view = ResampledView(PlaneView(Plane.SAGITTAL, Gentle()), (0.9, 0.9, 1.4))
    _, times = all_parts(view, waves(), np.zeros(SHAPE, bool))
    assert times.sum() == 0


def test_few_voxels_at_a_time_are_the_same(monkeypatch):
    image, view = waves(), ResampledView(PlaneView(Plane.CORONAL, Gentle()), (0.3, 1.0, 1.1))
    whole, _ = all_parts(view, image)
    monkeypatch.setattr(resampled_view, "BATCH_PIXELS", 1)
    found, times = all_parts(view, image)
    assert (times == 1).all()
    np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 40, 30), (40, 1, 3), (2, 2, 2)])
def test_thin_volumes(shape):
    image = waves(shape)
    for plane in Plane:
        found, times = all_parts(ResampledView(PlaneView(plane, Gentle()), (0.9, 0.9, 1.4)), image)
        assert (times == 1).all()
        assert np.isfinite(found).all()


def test_every_order_of_axes_gives_the_same_labels():
    """48 of them, through canonical axes and back."""
    views = {plane.value: ResampledView(PlaneView(plane, Gentle()), (0.9, 0.9, 1.4)) for plane in Plane}
    ensemble = Ensemble(views, dict.fromkeys(views, 1 / 3))
    image = waves()
    expected = ensemble.predict(image, "").fused.array
    orders = permutations(["RL", "AP", "SI"])
    codes = ["".join(letters) for order in orders for letters in product(*order)]
    assert len(codes) == 48
    for code in codes:
        turned = reorient(image, code)
        found = ensemble.predict(to_canonical(turned), "").fused
        np.testing.assert_allclose(found.array, expected, atol=1e-6)
        back = from_canonical(found, code)
        assert axis_codes(back.affine) == code
        assert back.same_grid(turned)
