"""A made-up cohort looks like data from a scanner and an expert."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from jsonschema import Draft202012Validator

from knee3d import choices
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import Side, axis_codes, to_canonical
from knee3d.geometry.volume import Volume
from knee3d.io.image_source import read_image
from knee3d.io.label_names_file import read_label_names
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.phantom.cohort import (
    LOSS,
    RENDERERS,
    CohortConfig,
    CohortRecord,
    cut_out_scan,
    parametric_shape,
    scan_anatomy,
    write_cohort,
)
from knee3d.phantom.parametric_knee import parametric_knee

pytestmark = pytest.mark.slow

SHAPE = (30, 28, 24)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    assert len(list(write_cohort(CohortConfig(2, SHAPE, seed=4), folder, jobs=2))) == 3
    return folder


def test_the_table_lists_right_and_left_and_a_follow_up(cohort):
    knees = read_manifest(cohort / "knees.csv")
    assert [(knee.patient, knee.visit, knee.side) for knee in knees] == [
        ("P001", "baseline", Side.RIGHT),
        ("P002", "baseline", Side.LEFT),
        ("P001", "follow-up", Side.RIGHT),
    ]
    assert read_label_names(str(cohort / "labels.json")).names == LABEL_NAMES["pymskt"].names


def test_images_are_dicom_on_the_masks_grid(cohort):
    for knee in read_manifest(cohort / "knees.csv"):
        image = read_image(knee.image)
        side = image.side
        mask = read_volume(knee.mask)
        assert side is knee.side
        assert to_canonical(image).same_grid(to_canonical(mask))
        header = pydicom.dcmread(next(knee.image.iterdir()))
        assert header.SOPClassUID.name == "MR Image Storage"
        assert header.PixelSpacing[0] != header.PixelSpacing[1]
        oblique = np.abs(image.affine[:3, :3] / image.spacing_mm)
        assert np.sort(oblique.ravel())[-3:].max() < 0.99999
        bright, dark = (to_canonical(image).array[np.isin(to_canonical(mask).array, values)].mean()
                        for values in ((1, 2, 3, 4), (5, 6)))  # fmt: skip
        assert bright > 1.5 * dark


def test_a_left_knee_is_the_mirror_image_of_a_right_one(cohort):
    """Medial lies toward the middle of the body in both: to the left in a right knee, to the right in a left one."""
    for knee in read_manifest(cohort / "knees.csv"):
        mask = read_volume(knee.mask)
        places = {value: (np.argwhere(mask.array == value).mean(axis=0) @ mask.affine[:3, :3].T)[0] for value in (2, 3)}
        assert (places[2] < places[3]) == (knee.side is Side.RIGHT)


def test_the_follow_up_has_lost_what_it_should(cohort):
    baseline, _, later = (to_canonical(read_volume(knee.mask)).array for knee in read_manifest(cohort / "knees.csv"))
    for plate in (1, 2, 3, 4):
        before, after = (np.count_nonzero(labels == plate) for labels in (baseline, later))
        assert before - after == round(LOSS * before) > 0
    np.testing.assert_array_equal(baseline == 5, later == 5)


def test_the_same_cohort_is_the_same_bytes(cohort, tmp_path):
    list(write_cohort(CohortConfig(2, SHAPE, seed=4), tmp_path, jobs=1))
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file())
    assert all((tmp_path / file).read_bytes() == (cohort / file).read_bytes() for file in files)


def test_a_finished_cohort_is_left_alone_and_another_protected(cohort):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert len(list(write_cohort(CohortConfig(2, SHAPE, seed=4), cohort, jobs=1))) == 3
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before
    with pytest.raises(ValueError, match="holds another cohort"):
        list(write_cohort(CohortConfig(3, SHAPE, seed=4), cohort, jobs=1))


def test_label_maps_kept_as_they_are_come_back_voxel_for_voxel(tmp_path):
    source = parametric_knee(SHAPE, 9)
    write_volume(source, tmp_path / "expert.nrrd")
    recipe = CohortConfig(2, sources=(tmp_path / "expert.nrrd",), strength=0)
    list(write_cohort(recipe, tmp_path / "out", jobs=1))
    for knee in read_manifest(tmp_path / "out" / "knees.csv")[:2]:
        mask = to_canonical(read_volume(knee.mask), knee.side)
        np.testing.assert_array_equal(mask.array, source.array)
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
    assert json.loads((tmp_path / "out" / "cohort.json").read_text())["sources"] == ["expert.nrrd"]


def test_the_record_comes_back_from_json_as_its_schema_says(tmp_path):
    for cohort in (CohortConfig(2, SHAPE, seed=4), CohortConfig(3, sources=(Path("a/b.nrrd"),), strength=0, retests=1)):
        cohort.record.write(tmp_path / "cohort.json")
        text = (tmp_path / "cohort.json").read_text()
        assert CohortRecord.from_json(text) == cohort.record
        Draft202012Validator(CohortRecord.json_schema()).validate(json.loads(text))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 1, "knees": "2"}'])
def test_a_record_that_is_none_is_of_another_cohort(tmp_path, text):
    (tmp_path / "cohort.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path} holds another cohort"):
        list(write_cohort(CohortConfig(1, (16, 16, 16)), tmp_path, jobs=1))


def test_other_people_have_other_names(tmp_path):
    list(write_cohort(CohortConfig(1, (16, 16, 16), letter="N"), tmp_path, jobs=1))
    knees = read_manifest(tmp_path / "knees.csv")
    assert [(knee.case, knee.patient) for knee in knees] == [("N001-baseline", "N001"), ("N001-follow-up", "N001")]
    assert json.loads((tmp_path / "cohort.json").read_text())["letter"] == "N"


def test_retests_are_the_same_anatomy_cut_otherwise_with_nothing_lost(cohort, tmp_path):
    recipe = CohortConfig(2, SHAPE, seed=4, retests=2)
    assert len(list(write_cohort(recipe, tmp_path, jobs=2))) == 5
    knees = {knee.case: knee for knee in read_manifest(tmp_path / "knees.csv")}
    assert [*knees][2:] == ["P001-follow-up", "P001-retest", "P002-retest"]
    for path in (cohort / "P001-baseline").rglob("*.*"):  # what was there before retests is what it was
        assert (tmp_path / path.relative_to(cohort)).read_bytes() == path.read_bytes()
    for patient, side in (("P001", Side.RIGHT), ("P002", Side.LEFT)):
        first, again = (knees[f"{patient}-{visit}"] for visit in ("baseline", "retest"))
        assert (again.side, again.patient) == (side, patient)
        before, after = (read_volume(knee.mask) for knee in (first, again))
        assert not before.same_grid(after)
        assert (before.array != after.array).mean() > 0.001
        for plate in (1, 2, 3, 4):
            counts = [np.count_nonzero(mask.array == plate) for mask in (before, after)]
            assert counts[1] == pytest.approx(counts[0], rel=0.07)  # LOSS is more
            middles = [np.argwhere(to_canonical(mask, side).array == plate).mean(axis=0) for mask in (before, after)]
            assert np.abs(middles[0] - middles[1]).max() < 2
        images = [read_image(knee.image).array for knee in (first, again)]
        assert (images[0] != images[1]).mean() > 0.5  # noise of its own
    assert json.loads((tmp_path / "cohort.json").read_text())["retests"] == 2
    with pytest.raises(ValueError, match="holds another cohort"):
        list(write_cohort(CohortConfig(2, SHAPE, seed=4), tmp_path, jobs=1))


def test_retests_of_label_maps_that_are_kept_are_cut_otherwise_too(tmp_path):
    write_volume(parametric_knee(SHAPE, 9), tmp_path / "expert.nrrd")
    recipe = CohortConfig(1, sources=(tmp_path / "expert.nrrd",), strength=0, retests=1)
    list(write_cohort(recipe, tmp_path / "out", jobs=1))
    baseline, _, retest = (read_volume(knee.mask) for knee in read_manifest(tmp_path / "out" / "knees.csv"))
    assert not baseline.same_grid(retest)


def test_renderers_are_those_that_can_be_chosen():
    assert tuple(RENDERERS) == choices.RENDERERS


def test_another_renderer_makes_other_images_of_the_same_anatomy(cohort, tmp_path):
    list(write_cohort(CohortConfig(2, SHAPE, seed=4, renderer="random-fields"), tmp_path, jobs=2))
    for first, second in zip(read_manifest(cohort / "knees.csv"), read_manifest(tmp_path / "knees.csv"), strict=True):
        assert first.mask.read_bytes() == second.mask.read_bytes()
        images = [read_image(knee.image).array for knee in (first, second)]
        assert (images[0] != images[1]).mean() > 0.8
    assert CohortRecord.from_json((tmp_path / "cohort.json").read_bytes()).renderer == "random-fields"
    with pytest.raises(ValueError, match="holds another cohort"):
        list(write_cohort(CohortConfig(2, SHAPE, seed=4), tmp_path, jobs=1))


def test_any_appearance_changes_images_and_no_anatomy(cohort, tmp_path):
    list(write_cohort(CohortConfig(2, SHAPE, seed=4, appearance="any"), tmp_path, jobs=2))
    changed = 0
    for first, second in zip(read_manifest(cohort / "knees.csv"), read_manifest(tmp_path / "knees.csv"), strict=True):
        assert first.mask.read_bytes() == second.mask.read_bytes()
        changed += not np.array_equal(read_image(first.image).array, read_image(second.image).array)
    assert changed
    assert CohortRecord.from_json((tmp_path / "cohort.json").read_bytes()).appearance == "any"


def test_anatomies_vary_in_flexion_and_cartilage_and_the_record_says_so(cohort, tmp_path):
    recipe = CohortConfig(2, SHAPE, seed=4, flexion_deg=15.0, thickness=(0.5, 0.9), defects=0.2)
    list(write_cohort(recipe, tmp_path, jobs=2))
    for first, second in zip(read_manifest(cohort / "knees.csv"), read_manifest(tmp_path / "knees.csv"), strict=True):
        usual, varied = (to_canonical(read_volume(knee.mask), knee.side).array for knee in (first, second))
        assert np.count_nonzero(varied == 1) < np.count_nonzero(usual == 1)
        assert (varied[-4:] != usual[-4:]).any()
    assert CohortRecord.from_json((tmp_path / "cohort.json").read_bytes()) == recipe.record


@pytest.mark.parametrize("seed", range(4))
def test_a_scan_that_is_cut_out_has_its_size_and_all_cartilage_and_lies_where_it_lay(seed):
    labels = parametric_knee(SHAPE, 9)
    image = labels.with_array(np.arange(labels.array.size).reshape(labels.shape))
    extent = labels.spacing_mm * labels.shape
    wanted = (0.75 * extent[0], 0.9 * extent[1], 5 * extent[2])
    cut, kept = cut_out_scan(image, labels, wanted, seed)
    assert cut.same_grid(kept)
    assert kept.shape == (round(0.75 * SHAPE[0]), round(0.9 * SHAPE[1]), SHAPE[2])
    for plate in (1, 2, 3, 4):
        assert np.count_nonzero(kept.array == plate) == np.count_nonzero(labels.array == plate)
    start = np.unravel_index(cut.array.min(), labels.shape)
    np.testing.assert_allclose(cut.affine[:3, 3], (labels.affine @ [*start, 1])[:3])


def test_a_scan_smaller_than_the_cartilage_shows_a_part_of_it():
    labels = parametric_knee(SHAPE, 9)
    _, kept = cut_out_scan(labels, labels, (40.0, 40.0, 40.0), 1)
    share = np.isin(kept.array, (1, 2, 3, 4)).sum() / np.isin(labels.array, (1, 2, 3, 4)).sum()
    assert 0 < share < 1
    with pytest.raises(ValueError, match="there is no cartilage in the label map"):
        cut_out_scan(labels, labels.with_array(np.zeros(SHAPE, np.uint8)), (40.0, 40.0, 40.0), 1)


def test_a_cohort_of_a_field_of_view_has_it_in_image_mask_and_record(tmp_path):
    recipe = CohortConfig(2, SHAPE, seed=4, field_of_view_mm=(75.0, 70.0, 300.0))
    list(write_cohort(recipe, tmp_path, jobs=2))
    sizes = []
    for knee in read_manifest(tmp_path / "knees.csv"):
        mask, image = (to_canonical(volume, knee.side) for volume in (read_volume(knee.mask), read_image(knee.image)))
        assert image.same_grid(mask)
        sizes.append(mask.spacing_mm * mask.shape)
    assert np.allclose(np.array(sizes)[:, :2], (75, 70), atol=2.5)
    assert CohortRecord.from_json((tmp_path / "cohort.json").read_bytes()) == recipe.record


def test_a_record_of_before_there_were_renderers_is_that_of_the_first_one(tmp_path):
    content = json.loads(CohortConfig(2, SHAPE, seed=4).record.to_json())
    for name in ("renderer", "voxel_mm", "appearance", "flexion_deg", "thickness", "defects", "field_of_view_mm"):
        del content[name]
    assert CohortRecord.from_json(json.dumps(content)) == CohortConfig(2, SHAPE, seed=4).record


@pytest.mark.parametrize("renderer", choices.RENDERERS)
def test_a_scan_has_the_voxels_of_its_protocol_and_the_anatomy_of_its_patient(tmp_path, renderer):
    write_volume(parametric_knee((44, 54, 42), 9), tmp_path / "expert.nrrd")
    recipe = CohortConfig(
        2, sources=(tmp_path / "expert.nrrd",), strength=0, renderer=renderer, voxel_mm=(2.0, 3.0, 4.0)
    )
    list(write_cohort(recipe, tmp_path / "out", jobs=2))
    before = read_volume(tmp_path / "expert.nrrd")
    for knee in read_manifest(tmp_path / "out" / "knees.csv")[:2]:
        mask, image = (to_canonical(volume, knee.side) for volume in (read_volume(knee.mask), read_image(knee.image)))
        assert image.same_grid(mask)
        np.testing.assert_allclose(mask.spacing_mm, (2, 3, 4), rtol=1e-4)
        for bone in (5, 6):
            sizes = [np.count_nonzero(one.array == bone) * one.voxel_mm3 for one in (before, mask)]
            assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
            middles = [(one.affine @ [*np.argwhere(one.array == bone).mean(axis=0), 1])[:3] for one in (before, mask)]
            np.testing.assert_allclose(*middles, atol=0.5)
    assert json.loads((tmp_path / "out" / "cohort.json").read_text())["voxel_mm"] == [2, 3, 4]


def test_the_parametric_knee_is_as_fine_as_its_scan():
    assert parametric_shape((0.5, 3.0, 3.0)) == (176, 128, 96)
    assert parametric_shape(None) == (128, 128, 96)


def test_voxels_of_the_anatomy_may_be_twice_as_long_as_those_of_the_scan_and_no_longer():
    labels = parametric_knee(SHAPE, 9)
    image, scanned = scan_anatomy(labels, 1, "random-fields", tuple((labels.spacing_mm / 2).tolist()))
    assert image.shape == scanned.shape == tuple(2 * size for size in SHAPE)
    with pytest.raises(ValueError, match="more than twice as long"):
        scan_anatomy(labels, 1, "random-fields", (0.5, 2.0, 2.0))
    with pytest.raises(ValueError, match="more than twice as long"):
        CohortConfig(1, SHAPE, voxel_mm=(0.5, 2.0, 2.0))  # before anything is written


def test_what_cannot_be_made_is_refused(tmp_path):
    for retests in (-1, 3):
        with pytest.raises(ValueError, match="has 0 to 2 retests"):
            CohortConfig(2, retests=retests)
    for wrong in ({"knees": 0}, {"knees": 1, "shape": (8, 64, 64)}, {"knees": 1, "strength": -1.0}):
        with pytest.raises(ValueError, match="a cohort needs"):
            CohortConfig(**wrong)
    with pytest.raises(ValueError, match="unknown renderer 'legs'; there are: leg, random-fields"):
        CohortConfig(1, renderer="legs")
    with pytest.raises(ValueError, match="unknown appearance 't1'; there are: dess, any"):
        CohortConfig(1, appearance="t1")
    for wrong in ({"flexion_deg": 45.0}, {"thickness": (2.0, 1.0)}, {"thickness": (0.0, 1.0)}, {"defects": 1.0}):
        with pytest.raises(ValueError, match="knees are bent|factors of thickness|share of cartilage"):
            CohortConfig(1, **wrong)
    for view in ((100.0, 100.0), (100.0, 100.0, 5.0), (100.0, float("inf"), 100.0)):
        with pytest.raises(ValueError, match="a field of view has three sizes of 20 mm or more"):
            CohortConfig(1, field_of_view_mm=view)
    with pytest.raises(ValueError, match="random-fields has the contrast of DESS only"):
        CohortConfig(1, renderer="random-fields", appearance="any")
    for sizes in ((0.0, 1.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="three sizes in mm"):
            CohortConfig(1, voxel_mm=sizes)
    odd = Volume(np.full(SHAPE, 77, np.uint8), np.eye(4))
    assert axis_codes(odd.affine) == "RAS"
    write_volume(odd, tmp_path / "odd.nrrd")
    with pytest.raises(ValueError, match=r"odd\.nrrd"):
        list(write_cohort(CohortConfig(1, sources=(tmp_path / "odd.nrrd",)), tmp_path / "out", jobs=1))
    assert not (tmp_path / "out" / "knees.csv").exists()
