"""The quick look: the region it makes, and when it is not certain."""

from dataclasses import dataclass

import numpy as np
import pytest

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.inference.roi import MARGIN_MM, localize_roi, localizer_slices, touches_edge

SPACING = np.array([0.5, 0.4, 0.7])
SHAPE = (120, 150, 80)


@dataclass(frozen=True)
class Bright:
    """Tissue is what is brighter than a limit."""

    limit: int = 128
    context: int = 0
    classes: int = 2

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = (slices[..., 0] > self.limit).astype(np.float32)
        return np.stack([1 - tissue, tissue], axis=-1)


def knee(*balls: tuple[tuple[float, float, float], float], shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Bright balls, their centres and radii in mm, one of them hollow like cartilage around bone."""
    places = np.indices(shape) * SPACING[:, None, None, None]
    array = np.zeros(shape, np.uint8)
    for centre, radius in balls:
        away = np.linalg.norm(places - np.array(centre)[:, None, None, None], axis=0)
        array[(away < radius) & (away > radius - 3)] = 200
    return Volume(array, np.diag([*SPACING, 1]))


def views(**limits: int) -> dict[str, PlaneView]:
    return {plane.value: PlaneView(plane, Bright(limits.get(plane.value, 128))) for plane in Plane}


JOINT = knee(((30, 30, 28), 14), ((22, 12, 28), 5))


def test_the_region_holds_all_tissue_with_a_margin_and_little_else():
    found = localize_roi(JOINT, views())
    assert found.doubt == ""
    where = np.array(np.nonzero(JOINT.array))
    margin = np.floor(MARGIN_MM / SPACING).astype(int)
    for axis in range(3):
        for step in (-1, 1):
            moved = where.copy()
            moved[axis] = np.clip(moved[axis] + step * margin[axis], 0, SHAPE[axis] - 1)
            assert found.region[tuple(moved)].all()
    assert found.region.mean() < 0.3
    assert not touches_edge(JOINT.with_array((JOINT.array > 0).astype(np.uint8)), found.region)


def test_labels_are_those_of_the_whole_knee():
    ensemble = Ensemble(views(), dict.fromkeys(views(), 1 / 3))
    region = localize_roi(JOINT, views()).region
    fast, whole = ensemble.predict(JOINT, "fast", region), ensemble.predict(JOINT, "whole")
    np.testing.assert_array_equal(fast.labels.array, whole.labels.array)


def test_slices_that_were_looked_at_are_not_computed_again():
    seen = []

    class Counting(Bright):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            seen.append(len(slices))
            return super().__call__(slices)

    counted = {name: PlaneView(view.plane, Counting()) for name, view in views().items()}
    found = localize_roi(JOINT, counted)
    assert sum(seen) == sum(len(known.slices) for known in found.known.values())
    weights = dict.fromkeys(counted, 1 / 3)
    whole = Ensemble(counted, weights).predict(JOINT, "whole")
    seen.clear()
    again = Ensemble(found.views(counted), weights).predict(JOINT, "whole, with what is known")
    complete = [
        known
        for name, known in found.known.items()
        if [side.stop - side.start for side in known.rectangle] == np.delete(SHAPE, Plane(name).axis).tolist()
    ]
    assert complete
    assert sum(seen) == sum(SHAPE) - sum(len(known.slices) for known in complete)
    np.testing.assert_array_equal(again.fused.array, whole.fused.array)
    seen.clear()
    part = Ensemble(found.views(counted), weights).predict(JOINT, "region, with what is known", found.region)
    assert sum(seen) < sum(np.count_nonzero(found.region.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    np.testing.assert_array_equal(part.labels.array, whole.labels.array)


def test_later_views_look_around_what_the_first_finds():
    image = knee(((20, 20, 20), 10), shape=(220, 220, 120))
    known = localize_roi(image, views()).known
    pixels = {name: np.prod(next(iter(one.slices.values())).shape[:2]) for name, one in known.items()}
    whole = {name: np.prod(np.delete(image.shape, view.plane.axis)) for name, view in views().items()}
    first, *others = known
    assert pixels[first] == whole[first]
    for other in others:
        assert pixels[other] < whole[other]
        assert len(known[other].slices) < len(localizer_slices(image, Plane(other).axis))


def test_slices_are_spread_over_the_image():
    told = []
    localize_roi(JOINT, views(), told.append)
    assert sum(told) == sum(len(localizer_slices(JOINT, axis)) for axis in range(3))
    assert [len(localizer_slices(JOINT, axis)) for axis in range(3)] == [10, 10, 9]
    thick = Volume(np.zeros((3, 4, 5), np.uint8), np.diag([9.0, 9, 9, 1]))
    assert [list(localizer_slices(thick, axis)) for axis in range(3)] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("image", "limits", "words"),
    [
        (knee(), {}, "finds no tissue"),
        (JOINT, {Plane.CORONAL.value: 250}, f"finds no tissue in the {Plane.CORONAL.value} view"),
        (Volume(np.full(SHAPE, 200, np.uint8), JOINT.affine), {}, "all over"),
    ],
)
def test_what_is_not_certain_is_said(image, limits, words):
    found = localize_roi(image, views(**limits))
    assert found.region is None
    assert words in found.doubt


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((slice(80, 110), slice(90, 130), slice(50, 75)), "finds no tissue"),
        ((slice(30, 80), slice(44, 80), slice(10, 40)), "different places"),
        ((slice(60, 90), slice(60, 90), slice(44, 60)), "beyond"),
    ],
)
def test_views_that_find_different_places_are_not_believed(other, words):
    array = np.zeros(SHAPE, np.uint8)
    array[20:50, 20:50, 10:40] = 150
    array[other] = 220
    first, *others = localize_roi(JOINT, views()).known
    seen = views(**{first: 180}) | {name: PlaneView(Plane(name), Dim()) for name in others}
    found = localize_roi(Volume(array, JOINT.affine), seen)
    assert found.region is None
    assert words in found.doubt


class Dim(Bright):
    """Tissue is what is neither dark nor very bright."""

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = ((slices[..., 0] > 100) & (slices[..., 0] < 180)).astype(np.float32)
        return np.stack([1 - tissue, tissue], axis=-1)


def test_tissue_at_the_edge_of_the_region_is_noticed():
    region = np.zeros((40, 40, 40), dtype=bool)
    region[5:35, 5:35, :] = True
    labels = np.zeros(region.shape, np.uint8)

    def touches() -> bool:
        return touches_edge(Volume(labels, np.diag([0.5, 0.4, 0.7, 1])), region)

    assert not touches()
    labels[10:20, 10:20, :] = 1  # touches the image's border, where there is nothing more
    assert not touches()
    labels[5, 30, 20] = 1  # a speck
    labels[5, 6:12, 1:5] = 1  # 24 faces of 0.28 mm2
    assert not touches()
    labels[5, 6:12, 1:8] = 2  # 42 faces: more than 10 mm2
    assert touches()


def test_specks_do_not_make_a_region():
    array = JOINT.array.copy()
    array[localizer_slices(JOINT, 0)[0], 140:144, 70:74] = 255
    spotted = localize_roi(JOINT.with_array(array), views())
    np.testing.assert_array_equal(spotted.region, localize_roi(JOINT, views()).region)
