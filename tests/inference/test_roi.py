"""The quick look: the region it makes, and when it is not certain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.inference.roi import (
    MARGIN_MM,
    SURVEY_MM,
    RegionOfInterest,
    localize_roi,
    localizer_slices,
    surveying_view,
    touches_edge,
)
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES

REAL = Path(__file__).parents[3] / "shared" / "data" / "labels"
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


def localized(image: Volume, plane: Plane, advance=lambda slices: None, **limits: int) -> RegionOfInterest:
    return localize_roi(image, plane.value, views(**limits)[plane.value], ["cartilage"], advance)


JOINT = knee(((30, 30, 28), 14), ((22, 12, 28), 5))


def oblique_plate() -> Volume:
    """A plate that is oblique to all axes."""
    array = np.zeros(SHAPE, np.uint8)
    for step in range(40):
        array[20 + step : 26 + step, 30 + step : 36 + step, 20 + step // 2 : 24 + step // 2] = 200
    return JOINT.with_array(array)


PLATE = oblique_plate()


@pytest.mark.parametrize("plane", list(Plane))
def test_the_region_holds_all_tissue_with_a_margin_and_little_else(plane):
    found = localized(PLATE, plane)
    assert found.doubt == ""
    where = np.array(np.nonzero(PLATE.array))
    margin = np.floor((MARGIN_MM - SURVEY_MM / 2) / SPACING).astype(int)
    for axis in range(3):
        for step in (-1, 1):
            moved = where.copy()
            moved[axis] = np.clip(moved[axis] + step * margin[axis], 0, SHAPE[axis] - 1)
            assert found.region[tuple(moved)].all()
    assert found.region.mean() < 0.3
    assert not touches_edge(PLATE.with_array((PLATE.array > 0).astype(np.uint8)), found.region)


@pytest.mark.parametrize("plane", list(Plane))
def test_labels_are_those_of_the_whole_knee(plane):
    ensemble = Ensemble(views(), dict.fromkeys(views(), 1 / 3))
    region = localized(JOINT, plane).region
    fast, whole = ensemble.predict(JOINT, "fast", region), ensemble.predict(JOINT, "whole")
    np.testing.assert_array_equal(fast.labels.array, whole.labels.array)


def test_one_network_looks_and_its_slices_are_not_computed_again():
    seen = []

    class Counting(Bright):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            seen.append(len(slices))
            return super().__call__(slices)

    counted = {name: PlaneView(view.plane, Counting()) for name, view in views().items()}
    looked = Plane.CORONAL.value
    found = localize_roi(JOINT, looked, counted[looked], ["cartilage"])
    assert sum(seen) == len(found.known.slices) == len(localizer_slices(JOINT, Plane.CORONAL.axis))
    weights = dict.fromkeys(counted, 1 / 3)
    whole = Ensemble(counted, weights).predict(JOINT, "whole")
    seen.clear()
    again = Ensemble(found.views(counted), weights).predict(JOINT, "whole, with what is known")
    assert sum(seen) == sum(SHAPE) - len(found.known.slices)
    np.testing.assert_array_equal(again.fused.array, whole.fused.array)
    seen.clear()
    part = Ensemble(found.views(counted), weights).predict(JOINT, "region, with what is known", found.region)
    assert sum(seen) < sum(np.count_nonzero(found.region.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    np.testing.assert_array_equal(part.labels.array, whole.labels.array)


def test_the_sagittal_view_looks_where_there_is_one():
    assert surveying_view(views()) == "sagittal"
    assert surveying_view({name: view for name, view in views().items() if name != "sagittal"}) == "coronal"
    assert surveying_view({"axial": views()["axial"]}) == "axial"


def test_slices_are_spread_over_the_image():
    for plane, count in zip(Plane, (15, 15, 13), strict=True):
        told = []
        localized(JOINT, plane, told.append)
        assert sum(told) == len(localizer_slices(JOINT, plane.axis)) == count
    thick = Volume(np.zeros((3, 4, 5), np.uint8), np.diag([9.0, 9, 9, 1]))
    assert [list(localizer_slices(thick, axis)) for axis in range(3)] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (knee(), f"finds no cartilage in the {Plane.CORONAL.value} view"),
        (Volume(np.full(SHAPE, 200, np.uint8), JOINT.affine), "all over"),
    ],
)
def test_what_is_not_certain_is_said(image, words):
    found = localized(image, Plane.CORONAL)
    assert found.region is None
    assert words in found.doubt


def test_a_region_without_one_of_the_tissues_is_not_certain():
    class TwoTissues(Bright):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            grey = slices[..., 0]
            dim, bright = (grey > 100) & (grey < 180), grey >= 180
            return np.stack([~(dim | bright), dim, bright], axis=-1).astype(np.float32)

    view, names = PlaneView(Plane.SAGITTAL, TwoTissues(classes=3)), ["femoral cartilage", "patellar cartilage"]
    found = localize_roi(JOINT, "sagittal", view, names)
    assert found.region is None
    assert found.doubt == "the quick look finds no femoral cartilage in the sagittal view"
    both = JOINT.array.copy()
    both[90:110, 60:80, 30:50] = 150
    assert localize_roi(JOINT.with_array(both), "sagittal", view, names).doubt == ""


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
    spotted = localized(JOINT.with_array(array), Plane.AXIAL)
    np.testing.assert_array_equal(spotted.region, localized(JOINT, Plane.AXIAL).region)


@dataclass(frozen=True)
class Perfect:
    """A network that reads the label from the pixel."""

    classes: int = 4
    context: int = 0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        return np.eye(self.classes, dtype=np.float32)[slices[..., 0]]


@pytest.mark.skipif(not REAL.is_dir(), reason="no label maps under ../shared")
@pytest.mark.parametrize("knee", ["knee_a_label.nrrd", "knee_b_label.nrrd"])
def test_a_sagittal_survey_of_a_real_knee_loses_nothing(knee):
    source = to_canonical(read_volume(REAL / knee))
    scheme = SCHEMES["compartments"]
    labels = source.with_array(labels_to_classes(source.array, LABEL_NAMES["pymskt"], scheme).astype(np.uint8))
    lost = {}
    for plane in Plane:
        found = localize_roi(labels, plane.value, PlaneView(plane, Perfect()), scheme.names)
        lost[plane] = np.count_nonzero(labels.array[~found.region]) / np.count_nonzero(labels.array)
    assert lost[Plane.SAGITTAL] == 0
    assert 0 < max(lost.values()) < 0.005
