"""Overlapping patches give each voxel one answer, in pieces, wherever the volume ends."""

from dataclasses import dataclass

import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.patch_view import PatchView, gaussian_weights


@dataclass(frozen=True)
class Brightness:
    """Knows tissue by its brightness; at the rim of a patch it is wrong, as networks are."""

    patch: tuple[int, int, int] = (8, 6, 10)
    rim: float = 0.0
    classes: int = 2

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        assert patches.dtype == np.uint8
        assert patches.shape[1:] == self.patch
        tissue = patches / np.float32(255)
        for axis in (1, 2, 3):
            for edge in (0, -1):
                np.moveaxis(tissue, axis, 0)[edge] += self.rim
        return np.stack([1 - tissue, tissue], axis=-1)


def image_of(*shape: int) -> Volume:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Volume(array, np.diag([0.5, 0.4, 0.7, 1.0]))


def put_together(view, image, region=None):
    found = np.full((*image.shape, 2), np.nan, np.float32)
    steps = []
    for index, part in view.parts(image, region, steps.append):
        assert np.isnan(found[index]).all(), "a voxel came twice"
        found[index] = part
    assert sum(steps) == view.steps(image)
    return found


@pytest.mark.parametrize("shape", [(8, 6, 10), (21, 17, 23), (5, 30, 4), (16, 12, 20), (9, 7, 11), (1, 1, 1)])
def test_every_voxel_comes_once_with_its_own_answer(shape):
    image = image_of(*shape)
    found = put_together(PatchView(Brightness()), image)
    np.testing.assert_allclose(found[..., 1], image.array / 255, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_the_rim_of_a_patch_hardly_counts_where_others_see_more():
    image = image_of(24, 24, 30)
    inner = (slice(4, -4), slice(3, -3), slice(5, -5))
    off = np.abs(put_together(PatchView(Brightness(rim=0.5)), image)[..., 1] - image.array / 255)[inner]
    assert off.mean() < 0.05
    assert off.max() < 0.5


@pytest.mark.parametrize("box", [np.s_[3:9, 2:5, 4:20], np.s_[20:21, 16:17, 22:23], np.s_[0:21, 0:1, 0:23]])
def test_of_a_region_its_box_is_computed(box):
    image, region = image_of(21, 17, 23), np.zeros((21, 17, 23), bool)
    region[box] = True
    found = put_together(PatchView(Brightness()), image, region)
    np.testing.assert_allclose(found[box][..., 1], image.array[box] / 255, atol=1e-5)
    assert np.isnan(found[~region]).all()
    opinion = Ensemble({"volume": PatchView(Brightness())}, {"volume": 1.0}).predict(image, "looking", region)
    np.testing.assert_array_equal(opinion.labels.array, region & (image.array > 127))


def test_nothing_wanted_is_nothing_computed():
    assert np.isnan(put_together(PatchView(Brightness()), image_of(8, 8, 8), np.zeros((8, 8, 8), bool))).all()


def test_weights_are_a_gaussian_and_never_nothing():
    weight = gaussian_weights((8, 6, 10))
    assert weight.shape == (8, 6, 10)
    assert weight.max() == 1
    assert weight.min() == pytest.approx(1e-3)
    np.testing.assert_allclose(weight, weight[::-1, ::-1, ::-1])
    across = gaussian_weights((9, 9, 9))[:, 4, 4]
    np.testing.assert_allclose(across[6], np.exp(-((2 / (9 / 8)) ** 2) / 2), rtol=1e-5)


def test_another_shape_is_refused():
    class Wrong(Brightness):
        def __call__(self, patches):
            return np.zeros((1, 2, 2, 2, 2), np.float32)

    with pytest.raises(ValueError, match=r"returned \(1, 2, 2, 2, 2\), not \(1, 8, 6, 10, 2\)"):
        put_together(PatchView(Wrong()), image_of(8, 8, 8))
    with pytest.raises(ValueError, match="3-D uint8"):
        put_together(PatchView(Brightness()), Volume(np.zeros((4, 4, 4)), np.eye(4)))
