"""All measures of a knee: each tissue and part, and what is said when one is not to be had."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from knee3d.geometry.orientation import Side, mirror_left_right, reorient
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import FEMORAL, PATELLAR, SCHEMES, TIBIAL
from knee3d.morphometry.knee_measurements import measure_knee, thickness_map
from knee3d.morphometry.measurement import UNITS, WHOLE, Measurement
from knee3d.morphometry.subregions import REGIONS
from knee3d.phantom.parametric_knee import FEMORAL_MM, PATELLAR_MM, TIBIAL_MM, parametric_knee

pytestmark = pytest.mark.slow


@cache
def a_knee() -> Volume:
    return parametric_knee((124, 154, 120), seed=1)


def labelled(scheme: str, knee: Volume | None = None) -> Volume:
    knee = knee or a_knee()
    return knee.with_array(labels_to_classes(knee.array, LABEL_NAMES["pymskt"], SCHEMES[scheme]))


def values(findings) -> dict[tuple[str, str, str], float]:
    return {(one.tissue, one.region, one.measure): one.value for one in findings.measures}


@pytest.fixture(scope="module")
def bones():
    return measure_knee(labelled("bones"), SCHEMES["bones"], Side.RIGHT)


@pytest.fixture(scope="module")
def compartments():
    return measure_knee(labelled("compartments"), SCHEMES["compartments"], Side.RIGHT)


@pytest.mark.parametrize(("tissue", "mm"), [(FEMORAL, FEMORAL_MM), (TIBIAL, TIBIAL_MM), (PATELLAR, PATELLAR_MM)])
def test_the_phantom_is_as_thick_as_it_was_made(bones, compartments, tissue, mm):
    """Where plates end it is less, and in the crease of the groove, where two layers meet, more: the median is it."""
    with_bones, without = values(bones), values(compartments)
    for found in (with_bones, without):
        assert found[tissue, WHOLE, "thickness_median"] == pytest.approx(mm, abs=0.2)
        assert found[tissue, WHOLE, "thickness_mean"] == pytest.approx(mm, abs=0.2)
    assert without[tissue, WHOLE, "thickness_mean"] == pytest.approx(
        with_bones[tissue, WHOLE, "thickness_mean"], rel=0.1
    )
    volume = found[tissue, WHOLE, "volume"]
    assert found[tissue, WHOLE, "thickness_mean"] * found[tissue, WHOLE, "covered_area"] == pytest.approx(
        volume, rel=0.2
    )


def test_parts_add_up_to_the_whole(compartments):
    found = values(compartments)
    for tissue, regions in REGIONS.items():
        for measured, within in (("volume", 1e-9), ("covered_area", 1e-9)):
            parts = [found[tissue, region, measured] for region in regions]
            assert sum(parts) == pytest.approx(found[tissue, WHOLE, measured], rel=within)
            assert min(parts) > 0


def test_a_left_knee_measures_as_its_mirror_image(compartments):
    left = measure_knee(labelled("compartments", mirror_left_right(a_knee())), SCHEMES["compartments"], Side.LEFT)
    for key, value in values(compartments).items():
        assert values(left)[key] == pytest.approx(value, rel=1e-5), key
    for name, interface in left.interfaces.items():
        mirror_image = compartments.interfaces[name].points * [-1, 1, 1]
        np.testing.assert_allclose(interface.points, mirror_image, atol=1e-3)


@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSA"])
def test_the_order_of_axes_changes_nothing(compartments, codes):
    other = measure_knee(reorient(labelled("compartments"), codes), SCHEMES["compartments"], Side.RIGHT)
    for key, value in values(compartments).items():
        assert values(other)[key] == pytest.approx(value, rel=1e-5), key


def test_what_is_inferred_and_what_is_missing_is_said(bones, compartments):
    assert bones.notes == ()
    assert any("inferred" in note for note in compartments.notes)
    assert (FEMORAL, WHOLE, "denuded_share") in values(bones)
    assert (FEMORAL, WHOLE, "denuded_share") not in values(compartments)
    one_class = measure_knee(labelled("cartilage"), SCHEMES["cartilage"], Side.UNKNOWN)
    assert {one.measure for one in one_class.measures} == {"volume"}
    assert any("told apart" in note for note in one_class.notes)
    unknown = measure_knee(labelled("compartments"), SCHEMES["compartments"], Side.UNKNOWN)
    assert any("taken as right" in note for note in unknown.notes)


def test_parts_cut_along_the_axes_of_the_image_are_said_to_be(compartments):
    labels = labelled("compartments")
    femoral = np.argwhere(labels.array == 1)
    numbers = compartments.landmarks.region(FEMORAL, femoral @ labels.affine[:3, :3].T + labels.affine[:3, 3])
    array = labels.array.copy()
    array[tuple(femoral[numbers == REGIONS[FEMORAL].index("central medial")].T)] = 0  # bare
    findings = measure_knee(labels.with_array(array), SCHEMES["compartments"], Side.RIGHT)
    assert not findings.landmarks.own_axes
    assert any("axes of the image" in note for note in findings.notes)


def test_a_knee_without_a_tissue_and_an_empty_one():
    labels = labelled("compartments")
    scheme = SCHEMES["compartments"]
    without = measure_knee(labels.with_array(np.where(labels.array == 1, 0, labels.array)), scheme, Side.RIGHT)
    assert values(without)[FEMORAL, WHOLE, "volume"] == 0
    assert FEMORAL not in without.interfaces
    assert without.landmarks is None
    empty = measure_knee(labels.with_array(np.zeros_like(labels.array)), scheme, Side.RIGHT)
    assert {one.value for one in empty.measures} == {0.0}


def test_a_stray_voxel_has_a_volume_and_no_thickness():
    labels = labelled("compartments")
    array = np.where(labels.array == 3, 0, labels.array)
    array[60, 60, 60] = 3
    findings = measure_knee(labels.with_array(array), SCHEMES["compartments"], Side.RIGHT)
    assert values(findings)[PATELLAR, WHOLE, "volume"] == pytest.approx(labels.voxel_mm3)
    assert PATELLAR not in findings.interfaces
    assert any(f"too little {PATELLAR}" in note for note in findings.notes)


def test_probabilities_count_voxels_in_part(compartments):
    labels = labelled("compartments")
    classes = np.stack([labels.array == number for number in range(4)], axis=-1).astype(np.float32)
    smooth = ndimage.gaussian_filter(classes, (0.5, 0.5, 0.5, 0))
    tissue = ndimage.find_objects((labels.array > 0).view(np.uint8))[0]
    box = tuple(slice(side.start - 8, side.stop + 8) for side in tissue)
    box = tuple(slice(max(0, side.start), min(side.stop, size)) for side, size in zip(box, labels.shape, strict=True))
    probabilities = Volume(np.rint(255 * smooth[box]).astype(np.uint8), labels.part(box).affine)
    findings = measure_knee(labels, SCHEMES["compartments"], Side.RIGHT, probabilities)
    found, hard = values(findings), values(compartments)
    for tissue in (FEMORAL, TIBIAL, PATELLAR):
        assert found[tissue, WHOLE, "volume"] == hard[tissue, WHOLE, "volume"]
        assert found[tissue, WHOLE, "partial_volume"] == pytest.approx(hard[tissue, WHOLE, "volume"], rel=0.03)
        mean = hard[tissue, WHOLE, "thickness_mean"]
        assert found[tissue, WHOLE, "thickness_mean"] == pytest.approx(mean, abs=0.1)
    with pytest.raises(ValueError, match="no part"):
        measure_knee(labels, SCHEMES["compartments"], Side.RIGHT, Volume(probabilities.array, np.eye(4)))


def test_the_overlay_has_a_thickness_where_there_is_cartilage(compartments):
    labels = labelled("compartments")
    overlay = thickness_map(labels, SCHEMES["compartments"], compartments.interfaces)
    assert overlay.array.dtype == np.float32
    assert overlay.same_grid(labels)
    np.testing.assert_array_equal(overlay.array > 0, labels.array > 0)
    femoral = overlay.array[labels.array == 1]
    assert femoral.mean() == pytest.approx(values(compartments)[FEMORAL, WHOLE, "thickness_mean"], rel=0.1)


def test_only_known_measures_exist():
    assert {Measurement(FEMORAL, WHOLE, name, 1.0).unit for name in UNITS} == {"mm3", "mm", "mm2", "%"}
    with pytest.raises(ValueError, match="unknown measure"):
        Measurement(FEMORAL, WHOLE, "girth", 1.0)
