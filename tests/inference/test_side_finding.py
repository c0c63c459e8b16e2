"""The side of a knee that nobody told is found by what the sagittal network says, or it stays unknown."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segment_image import segment_image
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, mirror_left_right
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.inference.side_finding import find_side_by_network
from knee3d.inference.trained_models import TrainedModels
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import LATERAL_TIBIAL, MEDIAL_TIBIAL, SCHEMES, LabelScheme, classes_in, undivided_scheme
from knee3d.phantom.parametric_knee import parametric_knee

KNEE = SCHEMES["knee"]
SHAPE = (48, 46, 40)


def right_knee() -> Volume:
    """Classes of the scheme in canonical axes."""
    labels = parametric_knee(SHAPE, 3)
    return labels.with_array(labels_to_classes(labels.array, LABEL_NAMES["pymskt"], KNEE).astype(np.uint8))


@dataclass(frozen=True)
class ByGrey:
    """Knows the class of each grey value; `swapped` takes the medial for the lateral plateau."""

    table: tuple[int, ...]
    classes: int = KNEE.classes
    context: int = 0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        return np.eye(self.classes, dtype=np.float32)[np.array(self.table)[slices[..., 0]]]


def image_of(classes: Volume, side: Side = Side.UNKNOWN) -> KneeImage:
    """An image whose intensities tell the classes apart."""
    return KneeImage((100 * (1 + classes.array.astype(np.int16))), classes.affine, side, "knee")


def trained(scheme: LabelScheme = KNEE) -> TrainedModels:
    """Networks that know each grey value of `image_of(right_knee())`."""
    classes = right_knee()
    pixels, _ = to_network_input(image_of(classes))
    table = np.zeros(256, int)
    for label in range(scheme.classes):
        table[np.unique(pixels.array[classes.array == label])] = label
    views = {plane.value: PlaneView(plane, ByGrey(tuple(table.tolist()), scheme.classes)) for plane in Plane}
    ensemble = Ensemble(views, dict.fromkeys(views, 1 / 3))
    return TrainedModels(ensemble, scheme, {}, np.array([classes.spacing_mm] * 3), {}, None)


def seen_as(classes: Volume) -> tuple[Side, float]:
    model = trained()
    pixels, _ = to_network_input(image_of(classes))
    found = find_side_by_network(pixels, model.planes[Plane.SAGITTAL.value], KNEE)
    return found.side, found.evidence


def test_a_right_knee_and_a_left_one_are_told_apart():
    assert seen_as(right_knee()) == (Side.RIGHT, pytest.approx(1))
    assert seen_as(mirror_left_right(right_knee())) == (Side.LEFT, pytest.approx(-1))


def test_a_knee_whose_plateaus_the_network_cannot_tell_apart_stays_unknown():
    classes = right_knee()
    medial, lateral = (KNEE.names.index(name) + 1 for name in (MEDIAL_TIBIAL, LATERAL_TIBIAL))
    array = classes.array.copy()
    both = np.isin(array, (medial, lateral))
    array[both] = np.random.default_rng(0).choice([medial, lateral], both.sum())
    side, evidence = seen_as(classes.with_array(array))
    assert side is Side.UNKNOWN
    assert abs(evidence) < 0.2
    one = np.where(both, medial, classes.array)
    assert seen_as(classes.with_array(one)) == (Side.UNKNOWN, 0.0)


def test_another_plane_or_scheme_is_refused():
    model = trained()
    pixels, _ = to_network_input(image_of(right_knee()))
    for view, scheme in (
        (model.planes[Plane.AXIAL.value], KNEE),
        (model.planes[Plane.SAGITTAL.value], SCHEMES["bones"]),
    ):
        with pytest.raises(ValueError, match="is found by the sagittal network, and by a scheme"):
            find_side_by_network(pixels, view, scheme)


@pytest.mark.parametrize("side", [Side.RIGHT, Side.LEFT])
@pytest.mark.parametrize("fast", [False, True])
def test_a_knee_of_unknown_side_is_segmented_as_if_it_had_been_told(side, fast):
    classes = right_knee() if side is Side.RIGHT else mirror_left_right(right_knee())
    told = segment_image(image_of(classes, side), trained(), SegmentConfig(fast=fast))
    found = segment_image(image_of(classes), trained(), SegmentConfig(fast=fast))
    assert found.side is side
    np.testing.assert_array_equal(found.labels.array, told.labels.array)
    np.testing.assert_array_equal(found.labels.array, classes.array)
    assert found.quality.flags[-1].startswith(f"side not told: the networks take it for a {side.name.lower()} knee")
    assert not any("side" in flag for flag in told.quality.flags)


def test_where_the_side_stays_unknown_tibial_cartilage_is_reported_undivided():
    classes = right_knee()
    medial, lateral = (KNEE.names.index(name) + 1 for name in (MEDIAL_TIBIAL, LATERAL_TIBIAL))
    alternating = np.indices(SHAPE)[2] % 2
    array = np.where(np.isin(classes.array, (medial, lateral)), np.where(alternating, medial, lateral), classes.array)
    found = segment_image(image_of(classes.with_array(array.astype(np.uint8))), trained(), SegmentConfig())
    assert found.side is Side.UNKNOWN
    assert found.scheme == SCHEMES["bones"]
    assert found.quality.flags[-1].startswith("side unknown: tibial cartilage is not divided")
    expected = np.array(classes_in(KNEE, SCHEMES["bones"]))[classes.array]
    np.testing.assert_array_equal(found.labels.array, expected)
    assert found.probabilities.array.shape[-1] == SCHEMES["bones"].classes
    assert found.probabilities.array.sum(axis=-1).min() > 250
    assert all(labels.array.max() == 6 for labels in found.view_labels.values())
    assert found.volumes_mm3["tibial cartilage"] == pytest.approx((expected == 5).sum() * classes.voxel_mm3)


def test_a_scheme_that_cannot_go_without_the_side_is_refused_where_it_stays_unknown():
    medial, lateral = (KNEE.names.index(name) + 1 for name in (MEDIAL_TIBIAL, LATERAL_TIBIAL))
    classes = right_knee()
    only_medial = classes.with_array(np.where(classes.array == lateral, medial, classes.array))
    sided = replace(trained(), scheme=replace(KNEE, name="mine"))
    with pytest.raises(ValueError, match="not known, and the networks cannot tell it"):
        segment_image(image_of(only_medial), sided, SegmentConfig())


def test_the_undivided_scheme_holds_every_tissue():
    assert undivided_scheme(KNEE) == SCHEMES["bones"]
    assert undivided_scheme(SCHEMES["iwoai"]) is None
    assert undivided_scheme(replace(KNEE, tissues=KNEE.tissues[:2])) is None
    with pytest.raises(ValueError, match="femur belongs to no class of the scheme iwoai"):
        classes_in(KNEE, SCHEMES["iwoai"])
