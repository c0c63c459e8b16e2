"""Knees become cases: right side up, on one grid, in one split, whole or not at all."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import savemat

from knee3d.cli import main
from knee3d.dataset import preparation as room
from knee3d.dataset.case_collection import Case, CaseCollection, Split, save_cases
from knee3d.dataset.manifest import ManifestRow
from knee3d.dataset.png_slices import read_slices
from knee3d.dataset.preparation import PrepareConfig, assign_splits, load_finished_case, prepare_knee, prepare_knees
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, mirror_left_right, reorient, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.segmentation import write_segmentation
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import ReadOptions
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES

PREPARATION = PrepareConfig(SCHEMES["iwoai"], LABEL_NAMES["pymskt"])
AFFINE = np.array([[0, 0, 0.7, -5], [-0.4, 0, 0, 6], [0, -0.3, 0, 7], [0, 0, 0, 1.0]])  # P, I, R


def right_knee() -> tuple[Volume, Volume]:
    """Image and labels in an order that is not canonical; the medial plate is smaller than the lateral one."""
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[2:7, 3, 1:4] = 2
    labels[2:7, 3, 5:10] = 3
    labels[3:6, 1, 2:9] = 1
    image = (labels * 100 + rng.normal(0, 10, labels.shape)).astype(np.int16)
    return Volume(image, AFFINE), Volume(labels, AFFINE)


def write_knee(
    folder: Path, image: Volume, labels: Volume | None, side: Side = Side.RIGHT, name: str = "k"
) -> ManifestRow:
    write_volume(image, folder / f"{name}.nii.gz")
    mask = None
    if labels is not None:
        mask = folder / f"{name}_mask.nii.gz"
        write_volume(labels, mask)
    return ManifestRow(name, f"patient of {name}", "", side, folder / f"{name}.nii.gz", mask)


def dataset(folder: Path, *cases: Case) -> CaseCollection:
    return CaseCollection(folder, PREPARATION.scheme, cases)


def mask_counts(folder: Path, case: Case) -> list[int]:
    return np.bincount(dataset(folder, case).mask(case).array.ravel(), minlength=7).tolist()


def test_slices_on_disk_are_the_canonical_volume(tmp_path):
    image, labels = right_knee()
    case = prepare_knee(write_knee(tmp_path, image, labels), tmp_path / "d", PREPARATION)
    expected = to_canonical(labels).with_array(
        labels_to_classes(to_canonical(labels).array, PREPARATION.label_names, PREPARATION.scheme)
    )
    assert case.source_axes == "PIR"
    np.testing.assert_allclose(case.affine, expected.affine, atol=1e-4)
    for plane in Plane:
        paths = dataset(tmp_path / "d", case).slice_paths(case, plane, "mask")
        np.testing.assert_array_equal(read_slices(paths), to_slices(expected, plane))
        paths = dataset(tmp_path / "d", case).slice_paths(case, plane, "image")
        assert read_slices(paths).shape == to_slices(expected, plane).shape


def test_a_mask_in_another_order_of_axes_is_on_the_same_grid(tmp_path):
    image, labels = right_knee()
    plain = prepare_knee(write_knee(tmp_path, image, labels), tmp_path / "d", PREPARATION)
    turned = prepare_knee(write_knee(tmp_path, image, reorient(labels, "RAS"), name="t"), tmp_path / "d", PREPARATION)
    before, after = (dataset(tmp_path / "d", case).mask(case) for case in (plain, turned))
    np.testing.assert_array_equal(before.array, after.array)


def test_a_left_knee_has_the_medial_and_lateral_volumes_of_its_mirror_image(tmp_path):
    image, labels = right_knee()
    right = prepare_knee(write_knee(tmp_path, image, labels), tmp_path / "d", PREPARATION)
    other = write_knee(tmp_path, mirror_left_right(image), mirror_left_right(labels), Side.LEFT, "left")
    left = prepare_knee(other, tmp_path / "d", PREPARATION)
    assert mask_counts(tmp_path / "d", left) == mask_counts(tmp_path / "d", right)
    arrays = [dataset(tmp_path / "d", case).image(case).array for case in (left, right)]
    np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize("move", [np.diag([1, 1, 1.01, 1]), np.eye(4) + 0.3 * np.eye(4, k=3), np.diag([1, 1, -1, 1.0])])
def test_a_mask_of_the_same_shape_elsewhere_is_refused(tmp_path, move):
    image, labels = right_knee()
    knee = write_knee(tmp_path, image, Volume(labels.array, labels.affine @ move))
    with pytest.raises(ValueError, match=r"k_mask\.nii\.gz is not on the image's grid"):
        prepare_knee(knee, tmp_path / "d", PREPARATION)
    assert not list((tmp_path / "d").glob("*"))


def test_masks_that_mean_nothing_are_refused(tmp_path):
    image, labels = right_knee()
    empty = write_knee(tmp_path, image, labels.with_array(np.zeros_like(labels.array)), name="empty")
    with pytest.raises(ValueError, match=r"case empty .*empty_mask\.nii\.gz has no tissue"):
        prepare_knee(empty, tmp_path / "d", PREPARATION)
    unknown = write_knee(tmp_path, image, labels.with_array(labels.array * 9), name="unknown")
    with pytest.raises(ValueError, match=r"unknown_mask\.nii\.gz: label values \[18, 27\] have no name"):
        prepare_knee(unknown, tmp_path / "d", PREPARATION)
    with pytest.raises(ValueError, match="give --labels"):
        prepare_knee(write_knee(tmp_path, image, labels), tmp_path / "d", replace(PREPARATION, label_names=None))


def test_images_that_show_nothing_are_refused(tmp_path):
    """Written as NRRD: the NIfTI library under SimpleITK reads NaN as 0."""
    image, _ = right_knee()
    spoiled = image.array.astype(np.float32)
    spoiled[3, 3, 3] = np.nan
    write_volume(image.with_array(spoiled), tmp_path / "k.nrrd")
    knee = ManifestRow("k", "p", "", Side.RIGHT, tmp_path / "k.nrrd", None)
    with pytest.raises(ValueError, match=r"case k .*k\.nrrd.*1 voxels are NaN"):
        prepare_knee(knee, tmp_path / "d", PREPARATION)


def test_a_mask_on_the_wrong_side_is_refused_and_one_alone_is_believed(tmp_path):
    image, labels = right_knee()
    with pytest.raises(ValueError, match="case k .*the side is L, but the mask's .* as in a right knee"):
        prepare_knee(write_knee(tmp_path, image, labels, Side.LEFT), tmp_path / "d", PREPARATION)
    told = prepare_knee(
        write_knee(tmp_path, mirror_left_right(image), mirror_left_right(labels), Side.UNKNOWN),
        tmp_path / "d",
        PREPARATION,
    )
    assert told.side is Side.LEFT
    right = prepare_knee(write_knee(tmp_path, image, labels, name="r"), tmp_path / "d", PREPARATION)
    assert mask_counts(tmp_path / "d", told) == mask_counts(tmp_path / "d", right)


def test_an_iwoai_knee_is_the_knee(tmp_path):
    """Image and channels in HDF5, tiny floats; the spacing comes from the user."""
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[4, 2:7, 1:4], labels[4, 2:7, 6:10], labels[2, 3:6, 2:9] = 2, 3, 1  # medial is to the left
    channels = np.stack([labels == value for value in range(1, 7)], axis=-1)
    for name, array in (("k.im", labels * np.float32(1e-8)), ("k.seg", channels.astype(np.uint8))):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = array
    knee = ManifestRow("k", "p", "", Side.RIGHT, tmp_path / "k.im", tmp_path / "k.seg")
    told = PrepareConfig(SCHEMES["iwoai"], LABEL_NAMES["iwoai"], choice=ReadOptions(spacing_mm=(0.3, 0.4, 0.7)))
    with pytest.raises(ValueError, match="as in a right knee"):
        prepare_knee(replace(knee, side=Side.LEFT), tmp_path / "d", told)
    case = prepare_knee(replace(knee, side=Side.RIGHT), tmp_path / "d", told)
    assert mask_counts(tmp_path / "d", case) == np.bincount(labels.ravel(), minlength=7).tolist()
    np.testing.assert_allclose(np.linalg.norm(case.affine[:3, :3], axis=0), [0.3, 0.4, 0.7])
    assert len(np.unique(dataset(tmp_path / "d", case).image(case).array)) == 4


@pytest.mark.parametrize("side", [Side.RIGHT, Side.LEFT])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_way_back_ends_where_the_knee_lay(tmp_path, side, bits):
    """Oblique, in another order of axes, mirrored in between: grid, mask and intensities come back."""
    turn = np.eye(4)
    turn[:2, :2] = [[0.99, -0.141], [0.141, 0.99]]
    image, labels = (Volume(one.array, turn @ one.affine) for one in right_knee())
    if side is Side.LEFT:
        image, labels = mirror_left_right(image), mirror_left_right(labels)
    case = prepare_knee(write_knee(tmp_path, image, labels, side), tmp_path / "d", replace(PREPARATION, bits=bits))
    save_cases(dataset(tmp_path / "d", case))
    for extra in ([], ["--mask"]):
        out = tmp_path / f"back{len(extra)}.nii.gz"
        done = CliRunner().invoke(main, ["restore", str(tmp_path / "d"), "k", "-o", str(out), *extra])
        assert done.exit_code == 0, done.output
    back, mask = read_volume(tmp_path / "back0.nii.gz"), read_volume(tmp_path / "back1.nii.gz")
    assert back.same_grid(image)
    assert axis_codes(back.affine) == axis_codes(image.affine)
    assert mask.same_grid(labels)
    np.testing.assert_array_equal(
        mask.array, labels_to_classes(labels.array, PREPARATION.label_names, PREPARATION.scheme)
    )
    low, high = case.window.low, case.window.high
    error = np.abs(back.array - np.clip(image.array, low, high)).max()
    assert error <= (high - low) / 255 * (0.501 if bits == 8 else 0.002)


def test_sixteen_bits_are_the_same_to_networks(tmp_path):
    image, labels = right_knee()
    knee = write_knee(tmp_path, image, labels)
    plain, fine = (
        dataset(tmp_path / str(bits), prepare_knee(knee, tmp_path / str(bits), replace(PREPARATION, bits=bits)))
        for bits in (8, 16)
    )
    np.testing.assert_array_equal(plain.image(plain.cases[0]).array, fine.image(fine.cases[0]).array)
    path = fine.slice_paths(fine.cases[0], next(iter(Plane)), "image")[0]
    assert read_slices([path]).dtype == np.uint16
    assert plain.cases[0].fingerprint != fine.cases[0].fingerprint


def test_what_cannot_be_restored_is_said(tmp_path):
    image, labels = right_knee()
    bare = prepare_knee(write_knee(tmp_path, image, None), tmp_path / "d", PREPARATION)
    full = prepare_knee(write_knee(tmp_path, image, labels, name="full"), tmp_path / "d", PREPARATION)
    saved = dataset(tmp_path / "d", bare, full)
    save_cases(saved)
    spoilt = saved.slice_paths(full, next(iter(Plane)), "mask")
    for plane in Plane:
        for path in saved.slice_paths(full, plane, "mask"):
            path.write_bytes(spoilt[0].read_bytes()[:50])
    for arguments, message in (
        (["nobody", "-o", str(tmp_path / "x.nii.gz")], "has no case nobody; it has full, k"),
        (["k", "--mask", "-o", str(tmp_path / "x.nii.gz")], "case k .* has no mask"),
        (["k", "-o", str(tmp_path / "x.jpg")], r"x\.jpg"),
        (["full", "--mask", "-o", str(tmp_path / "x.nii.gz")], r"0000\.png is not a readable grey PNG"),
    ):
        done = CliRunner().invoke(main, ["restore", str(tmp_path / "d"), *arguments])
        assert done.exit_code == 1
        assert re.search(message, done.output), done.output
    assert not list(tmp_path.glob("x.*"))


def test_a_segmentation_tells_what_its_numbers_mean(tmp_path):
    """The names in DICOM-SEG win over those of labels.json, and are enough without."""
    image, labels = right_knee()
    write_series(to_canonical(image), tmp_path / "dicom", Side.RIGHT, patient="p", description="d", seed=0)
    plain = write_knee(tmp_path, image, labels)
    expected = mask_counts(tmp_path / "d", prepare_knee(plain, tmp_path / "d", PREPARATION))
    classes = labels_to_classes(to_canonical(labels).array, PREPARATION.label_names, PREPARATION.scheme)
    grids = find_slice_grids(tmp_path / "dicom")
    stored = reorient(to_canonical(labels).with_array(classes), axis_codes(grids[0].affine))
    write_segmentation(stored, PREPARATION.scheme, Side.RIGHT, grids, tmp_path / "labels.dcm", "k")
    knee = ManifestRow("seg", "p", "", Side.UNKNOWN, tmp_path / "dicom", tmp_path / "labels.dcm")
    for label_names in (None, LABEL_NAMES["oai-zib"]):
        case = prepare_knee(knee, tmp_path / "d", replace(PREPARATION, label_names=label_names))
        assert mask_counts(tmp_path / "d", case) == expected


def test_outlines_are_filled_on_the_image(tmp_path):
    """iMorphics' numbers differ from those of labels.json; the outlines' own names count."""
    image, _ = right_knee()
    rows, columns, slices = to_canonical(image).shape
    square = [[2, 3], [7, 3], [7, 6], [2, 6]]
    entries = np.zeros((1, slices), [("MedialTibialCartilage", object), ("LateralTibialCartilage", object)])
    for number in range(slices):
        name = {1: "MedialTibialCartilage", 6: "LateralTibialCartilage", 7: "LateralTibialCartilage"}.get(number)
        for field in entries.dtype.names:
            entries[field][0, number] = np.array(square if field == name else np.zeros((0, 0)), float)
    savemat(tmp_path / "o.mat", {"datastruct": entries})
    write_volume(image, tmp_path / "k.nrrd")
    knee = ManifestRow("k", "p", "", Side.RIGHT, tmp_path / "k.nrrd", tmp_path / "o.mat")
    case = prepare_knee(knee, tmp_path / "d", PREPARATION)
    mask = dataset(tmp_path / "d", case).mask(case).array
    expected = np.zeros((rows, columns, slices), np.uint8)
    expected[rows - 6 : rows - 3, 2:7, [slices - 2]] = 2  # medial is last in canonical axes
    expected[rows - 6 : rows - 3, 2:7, slices - 8 : slices - 6] = 3
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(ValueError, match=r"o\.mat: slices may count from either side, and there is no side"):
        prepare_knee(replace(knee, side=Side.UNKNOWN), tmp_path / "d", PREPARATION)


def test_finished_knees_are_kept_and_changed_ones_done_again(tmp_path, monkeypatch):
    image, labels = right_knee()
    knees = [write_knee(tmp_path, image, labels, name=name) for name in ("a", "b")]
    list(prepare_knees(knees, tmp_path / "d", PREPARATION, jobs=2))
    done = []
    original = room.prepare_knee
    monkeypatch.setattr(room, "prepare_knee", lambda knee, *rest: done.append(knee.case) or original(knee, *rest))
    again = list(prepare_knees(knees, tmp_path / "d", PREPARATION, jobs=2))
    assert not done
    assert {case.name for case in again} == {"a", "b"}
    write_volume(image.with_array(image.array + 1), knees[1].image)
    list(prepare_knees(knees, tmp_path / "d", PREPARATION, jobs=2))
    assert done == ["b"]
    list(prepare_knees(knees, tmp_path / "d", replace(PREPARATION, scheme=SCHEMES["bones"]), jobs=1))
    assert done == ["b", "a", "b"]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"version": 0}'])
def test_a_case_whose_record_is_lost_is_done_again_and_a_folder_of_others_stays(tmp_path, content):
    image, labels = right_knee()
    knee = write_knee(tmp_path, image, labels)
    case = prepare_knee(knee, tmp_path / "d", PREPARATION)
    known = load_finished_case(knee, tmp_path / "d", PREPARATION)
    assert (known.fingerprint, known.window, known.shape) == (case.fingerprint, case.window, case.shape)
    record = tmp_path / "d" / "k" / "case.json"
    record.unlink() if content is None else record.write_text(content)
    assert load_finished_case(knee, tmp_path / "d", PREPARATION) is None
    (outcome,) = prepare_knees([knee], tmp_path / "d", PREPARATION, jobs=1)
    if content is None:  # not made here, as far as anyone can tell
        assert "give another folder" in str(outcome)
        assert list((tmp_path / "d" / "k").rglob("*.png"))
    else:
        assert load_finished_case(knee, tmp_path / "d", PREPARATION).fingerprint == outcome.fingerprint


def test_one_bad_knee_does_not_stop_the_others(tmp_path):
    image, labels = right_knee()
    knees = [write_knee(tmp_path, image, labels, name=name) for name in ("a", "b", "c")]
    knees[1].image.write_bytes(b"no image")
    outcomes = list(prepare_knees(knees, tmp_path / "d", PREPARATION, jobs=2))
    assert sorted(case.name for case in outcomes if isinstance(case, Case)) == ["a", "c"]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert len(errors) == 1
    assert "b.nii.gz" in str(errors[0])


def test_a_knee_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    image, labels = right_knee()
    calls = []

    def full(*_: object) -> list:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return []

    monkeypatch.setattr(room, "write_slices_in_background", full)
    with pytest.raises(OSError, match="No space"):
        prepare_knee(write_knee(tmp_path, image, labels), tmp_path / "d", PREPARATION)
    assert not list((tmp_path / "d").iterdir())


def cases(patients: list[str], labelled: bool = True) -> list[Case]:
    return [
        Case(str(i), patient, "", Side.RIGHT, Split.NONE, (1, 1, 1), np.eye(4), "RAS", None, labelled, "")
        for i, patient in enumerate(patients)
    ]


def test_visits_of_a_patient_stay_together_and_unlabelled_knees_outside():
    prepared = [*cases(list("abcdeabcde")), replace(cases(["a"], labelled=False)[0], name="x")]
    knees = [ManifestRow(case.name, case.patient, "", Side.RIGHT, Path(), None) for case in prepared]
    assigned = assign_splits(prepared, knees, replace(PREPARATION, fractions=(0.6, 0.2, 0.2)))
    for patient in "abcde":
        assert len({case.split for case in assigned if case.patient == patient and case.labelled}) == 1
    assert assigned[-1].split is Split.NONE
    assert {case.split for case in assigned[:-1]} == {Split.TRAIN, Split.VAL, Split.TEST}


def test_a_leak_in_the_table_is_refused():
    prepared = cases(["a", "a", "b"])
    splits = (Split.TRAIN, Split.TEST, Split.VAL)
    knees = [ManifestRow(case.name, case.patient, "", Side.RIGHT, Path(), None, split)
             for case, split in zip(prepared, splits, strict=True)]  # fmt: skip
    with pytest.raises(ValueError, match=r"a \(test, train\)"):
        assign_splits(prepared, knees, PREPARATION)
    fine = [replace(knee, split=Split.TRAIN) if knee.case == "1" else knee for knee in knees]
    assert [case.split for case in assign_splits(prepared, fine, PREPARATION)] == [Split.TRAIN, Split.TRAIN, Split.VAL]


def test_a_fault_of_ours_costs_one_knee(tmp_path, monkeypatch):
    image, labels = right_knee()
    good, bad = (write_knee(tmp_path, image, labels, name=name) for name in ("good", "bad"))
    start = room.to_network_input

    def broken(source, bits):
        if "bad" in source.name:
            raise IndexError("surprise")
        return start(source, bits)

    monkeypatch.setattr(room, "to_network_input", broken)
    outcomes = list(prepare_knees([bad, good], tmp_path / "d", PREPARATION, 1))
    (error,) = [one for one in outcomes if isinstance(one, ValueError)]
    assert "case bad" in str(error)
    assert "surprise" in str(error)
    assert len(outcomes) == 2


def test_an_image_of_true_and_false_is_refused(tmp_path):
    image, _ = right_knee()
    with pytest.raises(ValueError, match="is it a mask"):
        room.to_network_input(KneeImage(image.array > 0, image.affine, Side.RIGHT))
