"""Common layouts become tables, and doubt stays empty."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread, dcmwrite

from knee3d.cli import main
from knee3d.dataset.discovery import discover_cases
from knee3d.dataset.input_case import find_cases
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.segmentation import write_segmentation
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import read_image
from knee3d.labels.label_scheme import SCHEMES

IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])


IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])


def noise(slices: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 500, (4, 5, slices)).astype(np.int16)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def dicom(folder: Path, side: Side) -> None:
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    write_series(volume, folder, side, patient="P", description="DESS", seed=0)


def rows(folder: Path) -> list[tuple]:
    """Case, patient, visit, side, image, mask and split, sorted."""
    found = discover_cases(folder).knees
    place = lambda path: path.relative_to(folder).as_posix() if path else ""  # noqa: E731
    return sorted(
        (one.case, one.patient, one.visit, one.side.value, place(one.image), place(one.mask), one.split or "")
        for one in found
    )


def test_a_folder_for_each_patient_and_visit(tmp_path):
    dicom(tmp_path / "9001" / "00" / "dess", Side.RIGHT)
    dicom(tmp_path / "9001" / "12" / "dess", Side.UNKNOWN)
    dicom(tmp_path / "9002" / "00", Side.LEFT)
    touch(tmp_path, "9001/00/mask.nii.gz", "9002/00/knee_seg.nrrd", "9001/notes.txt")
    assert rows(tmp_path) == [
        ("9001-00", "9001", "00", "R", "9001/00/dess", "9001/00/mask.nii.gz", ""),
        ("9001-12", "9001", "12", "", "9001/12/dess", "", ""),
        ("9002-00", "9002", "00", "L", "9002/00", "9002/00/knee_seg.nrrd", ""),
    ]


def test_patient_and_visit_in_one_name(tmp_path):
    """As the phantom has them; and numbers, which may count patients, stay what they are."""
    for name in ("P001-baseline", "P001-follow-up", "P002-baseline", "X-1", "X-2"):
        dicom(tmp_path / name / "dicom", Side.RIGHT)
    assert [row[:3] for row in rows(tmp_path)] == [
        ("P001-baseline", "P001", "baseline"),
        ("P001-follow-up", "P001", "follow-up"),
        ("P002-baseline", "P002", "baseline"),
        ("X-1", "X-1", ""),
        ("X-2", "X-2", ""),
    ]
    assert "knees: 5, patients: 4; patients and visits are guessed" in discover_cases(tmp_path).notes[0]


def test_what_looks_like_a_visit_of_nobody_else_is_a_name(tmp_path):
    touch(tmp_path, "anna_v1.nii.gz", "bert_v1.nii.gz", "bert.v.nii.gz")
    assert [row[:3] for row in rows(tmp_path)] == [
        ("anna_v1", "anna_v1", ""),
        ("bert.v", "bert.v", ""),
        ("bert_v1", "bert_v1", ""),
    ]


def test_outlines_and_segmentations_beside_dicom(tmp_path):
    """A DICOM-SEG file is a mask, also within the folder of its images, and no folder of images by itself."""
    for patient in ("1", "2", "3"):
        dicom(tmp_path / patient / "00" / "dess", Side.RIGHT)
    touch(tmp_path, "1/00/outlines.mat")
    for name in ("2/00/dess/labels.dcm", "3/00/segmentations/knee.dcm"):
        grid = find_slice_grids(tmp_path / name[0] / "00" / "dess")
        labels = Volume(np.ones(grid[0].shape, np.uint8), grid[0].affine)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_segmentation(labels, SCHEMES["cartilage"], Side.RIGHT, grid, tmp_path / name, "x")
    assert [(row[4], row[5]) for row in rows(tmp_path)] == [
        ("1/00/dess", "1/00/outlines.mat"),
        ("2/00/dess", "2/00/dess/labels.dcm"),
        ("3/00/dess", "3/00/segmentations/knee.dcm"),
    ]


def test_nnunet(tmp_path):
    touch(tmp_path, "imagesTr/knee_01_0000.nii.gz", "imagesTr/knee_02_0000.nii.gz", "imagesTs/knee_03_0000.nii.gz")
    touch(tmp_path, "labelsTr/knee_01.nii.gz", "labelsTr/knee_02.nii.gz", "dataset.json")
    assert rows(tmp_path) == [
        ("knee_01", "knee_01", "", "", "imagesTr/knee_01_0000.nii.gz", "labelsTr/knee_01.nii.gz", ""),
        ("knee_02", "knee_02", "", "", "imagesTr/knee_02_0000.nii.gz", "labelsTr/knee_02.nii.gz", ""),
        ("knee_03", "knee_03", "", "", "imagesTs/knee_03_0000.nii.gz", "", ""),
    ]


def test_iwoai(tmp_path):
    touch(tmp_path, "train/train_001_V00.im", "train/train_001_V00.seg", "train/train_001_V01.im")
    touch(tmp_path, "valid/valid_002_V00.im", "valid/valid_002_V00.seg", "test/test_003_V01.im")
    assert rows(tmp_path) == [
        ("test_003-V01", "test_003", "V01", "", "test/test_003_V01.im", "", "test"),
        ("train_001-V00", "train_001", "V00", "", "train/train_001_V00.im", "train/train_001_V00.seg", "train"),
        ("train_001-V01", "train_001", "V01", "", "train/train_001_V01.im", "", "train"),
        ("valid_002-V00", "valid_002", "V00", "", "valid/valid_002_V00.im", "valid/valid_002_V00.seg", "val"),
    ]


def test_bids(tmp_path):
    touch(tmp_path, "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_dseg.nii.gz")
    touch(tmp_path, "sub-02/anat/sub-02_side-left_T2w.nii.gz")
    assert rows(tmp_path) == [
        ("01-a", "01", "a", "", "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
         "sub-01/ses-a/anat/sub-01_ses-a_dseg.nii.gz", ""),
        ("02", "02", "", "L", "sub-02/anat/sub-02_side-left_T2w.nii.gz", "", ""),
    ]  # fmt: skip


def test_flat(tmp_path):
    touch(tmp_path, "a_left.nrrd", "a_left_mask.nrrd", "a_right.nrrd", "a_right-label.nrrd", "b.mha", "orphan_seg.mha")
    assert rows(tmp_path) == [
        ("a_left", "a_left", "", "L", "a_left.nrrd", "a_left_mask.nrrd", ""),
        ("a_right", "a_right", "", "R", "a_right.nrrd", "a_right-label.nrrd", ""),
        ("b", "b", "", "", "b.mha", "", ""),
    ]
    notes = " ".join(discover_cases(tmp_path).notes)
    for text in ("knees: 3, patients: 3", "1 right 1 left 1 of unknown side", "1 without a mask: b", "orphan_seg.mha"):
        assert text in notes


def test_two_masks_or_two_images_are_no_pair(tmp_path):
    touch(tmp_path, "p/v/one.nii", "p/v/two.nii", "p/v/mask.nii", "q/v/knee.nii", "q/v/mask.nii", "q/v/seg.nii")
    assert [row[5] for row in rows(tmp_path)] == ["", "", ""]


def test_names_are_told_apart_and_fit_for_folders(tmp_path):
    touch(tmp_path, "p 1/v/one.nii", "p 1/v/two.nii", "..odd/v/x.nii", "é/v/x.nii")
    cases = [row[0] for row in rows(tmp_path)]
    assert cases == ["odd-v", "p-1-v-one", "p-1-v-two", "v"]


def test_nothing_is_said(tmp_path):
    with pytest.raises(ValueError, match="no DICOM folder, zip or volume file"):
        discover_cases(tmp_path)
    with pytest.raises(NotADirectoryError):
        discover_cases(tmp_path / "nowhere")


def test_the_command_writes_a_table_that_can_be_read(tmp_path):
    dicom(tmp_path / "in" / "9001" / "00", Side.RIGHT)
    touch(tmp_path, "in/train_001_V00.im")
    out = tmp_path / "tables" / "knees.csv"
    done = CliRunner().invoke(main, ["table", str(tmp_path / "in"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "please check it" in done.output
    with out.open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"", "train"}
    assert {knee.case for knee in read_manifest(out)} == {"9001-00", "train_001-V00"}
    again = CliRunner().invoke(main, ["table", str(tmp_path / "in"), "-o", str(out)])
    assert again.exit_code == 1
    assert "may have been corrected by hand" in again.output


@pytest.mark.parametrize("slices", [1, 4], ids=["a folder for each slice", "a folder for each four"])
def test_a_series_in_several_folders_is_one_knee(tmp_path, slices):
    for name in ("P1", "P2"):
        write_series(
            Volume(noise(12), IPL),
            tmp_path / "made" / name,
            Side.RIGHT,
            patient=name,
            description="d",
            seed=int(name[1]),
        )
        for number, path in enumerate(sorted((tmp_path / "made" / name).iterdir())):
            place = tmp_path / "knees" / name / "dess" / f"{number // slices:03d}" / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    touch(tmp_path / "knees", "P1/mask.nii.gz")
    found = discover_cases(tmp_path / "knees")
    assert [(knee.case, knee.patient) for knee in found.knees] == [("P1", "P1"), ("P2", "P2")]
    assert [knee.image.relative_to(tmp_path).as_posix() for knee in found.knees] == ["knees/P1/dess", "knees/P2/dess"]
    assert [knee.side for knee in found.knees] == [Side.RIGHT] * 2
    assert [knee.mask for knee in found.knees] == [tmp_path / "knees/P1/mask.nii.gz", None]
    assert found.without_knee == ()
    for knee in found.knees:
        assert read_image(knee.image).shape == (5, 4, 12)
    (alone,) = find_cases(tmp_path / "knees" / "P1")
    assert read_image(alone.source.path).shape == (5, 4, 12)


def test_copies_and_series_beside_each_other_stay_apart(tmp_path):
    for place, seed in (("a/1", 1), ("a/2", 1), ("b/1", 2), ("b/2", 3)):
        write_series(Volume(noise(3), IPL), tmp_path / place, Side.RIGHT, patient="P", description="d", seed=seed)
    assert len(discover_cases(tmp_path).knees) == 4


def test_knees_whose_series_have_the_same_identifier_stay_apart(tmp_path):
    """As some programs that remove names leave them; they lie at nearly the same place."""
    for number in (1, 2, 3):
        moved = IPL.copy()
        moved[:3, 3] += 0.2 * number
        write_series(
            Volume(noise(6), moved), tmp_path / str(number), Side.RIGHT, patient="P", description="d", seed=number
        )
        for path in (tmp_path / str(number)).iterdir():
            image = dcmread(path)
            image.SeriesInstanceUID = "1.2.3"
            dcmwrite(path, image, enforce_file_format=True)
    assert len(discover_cases(tmp_path).knees) == 3


def test_a_series_in_several_folders_whose_parts_are_lost_is_one_knee(tmp_path):
    """Else what is left of it would pass as one shorter knee, or two."""
    write_series(Volume(noise(9), IPL), tmp_path / "made", Side.RIGHT, patient="P", description="d", seed=1)
    for number, path in enumerate(sorted((tmp_path / "made").iterdir())):
        place = tmp_path / "knees" / str(number // 3) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes() if number != 8 else b"")
    (knee,) = discover_cases(tmp_path / "knees").knees
    with pytest.raises(DicomError, match=r"IM0009\.dcm is empty, cut off"):
        read_image(knee.image)


def of_study(folder: Path, side: Side, uid: str) -> None:
    dicom(folder, side)
    for path in folder.iterdir():
        image = dcmread(path)
        image.StudyInstanceUID = uid
        image.SeriesInstanceUID = f"{uid}.{len(side)}.{ord(side[0]) if side else 0}"
        dcmwrite(path, image)


def test_series_of_one_study_are_of_one_patient(tmp_path):
    """Whatever their folders are called; where the folder around them holds others too, the first one names them."""
    of_study(tmp_path / "A_right", Side.RIGHT, "1.2.1")
    of_study(tmp_path / "A_left", Side.LEFT, "1.2.1")
    of_study(tmp_path / "B" / "V00" / "one", Side.RIGHT, "1.2.2")
    of_study(tmp_path / "B" / "V00" / "two", Side.LEFT, "1.2.2")
    of_study(tmp_path / "B" / "V12" / "one", Side.RIGHT, "1.2.3")
    assert [row[1:4] for row in rows(tmp_path)] == [
        ("A_left", "", "L"),
        ("A_left", "", "R"),
        ("B", "V00", "R"),
        ("B", "V00", "L"),
        ("B", "V12", "R"),
    ]
    notes = " ".join(discover_cases(tmp_path).notes)
    assert "2 series of one study, taken as of one patient: A_left (L), A_right (R)" in notes
    assert "knees: 5, patients: 2" in notes


def test_both_knees_of_a_study_alone_in_a_folder(tmp_path):
    of_study(tmp_path / "9001" / "right", Side.RIGHT, "1.2.1")
    of_study(tmp_path / "9001" / "left", Side.LEFT, "1.2.1")
    assert {row[1:3] for row in rows(tmp_path / "9001")} == {("9001", "")}


def spread(folder: Path, places: dict[str, list[int]], sides: str = "", study: str = "1.2.1") -> None:
    """One series of 12 slices, of which each of some folders has some."""
    write_series(Volume(noise(12), IPL), folder / "whole", Side.RIGHT, patient="P", description="DESS", seed=0)
    for number, (place, slices) in enumerate(places.items()):
        (folder / place).mkdir(parents=True)
        for k in slices:
            image = dcmread(folder / "whole" / f"IM{k + 1:04d}.dcm")
            image.StudyInstanceUID = study.split()[number % len(study.split())]
            image.Laterality = sides[number] if sides else "R"
            dcmwrite(folder / place / f"IM{k}.dcm", image)
    shutil.rmtree(folder / "whole")


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_interleaved_slices_in_several_folders_are_one_knee(tmp_path, parts):
    """Also where one is lost, which reading says; not those of two studies or of two sides."""
    places = {f"P/{n}": list(range(n, 12, parts)) for n in range(parts)}
    spread(tmp_path / "a", places)
    (one,) = discover_cases(tmp_path / "a").knees
    assert read_image(one.image).shape[2] == 12
    spread(tmp_path / "b", {**places, "P/0": places["P/0"][1:]})
    assert len(discover_cases(tmp_path / "b").knees) == 1
    if parts == 2:
        spread(tmp_path / "c", places, sides="RL")
        spread(tmp_path / "d", places, study="1.2.1 1.2.2")
        assert [len(discover_cases(tmp_path / name).knees) for name in "cd"] == [2, 2]


def test_knees_far_apart_in_one_series_are_two(tmp_path):
    spread(tmp_path, {"P/one": [0, 1], "P/two": [10, 11]})
    assert len(discover_cases(tmp_path).knees) == 1
    spread(tmp_path / "far", {"P/one": [0, 1], "P/two": [10, 11]})
    for path in (tmp_path / "far" / "P" / "two").iterdir():
        image = dcmread(path)
        image.ImagePositionPatient = [float(x) + 178 * (n == 0) for n, x in enumerate(image.ImagePositionPatient)]
        dcmwrite(path, image)
    assert len(discover_cases(tmp_path / "far").knees) == 2


def test_visits_that_names_tell_stay_where_all_have_one_study(tmp_path):
    for visit in ("00", "12"):
        of_study(tmp_path / "9001" / visit, Side.RIGHT, "1.2.1")
        for path in (tmp_path / "9001" / visit).iterdir():
            image = dcmread(path)
            image.SeriesInstanceUID = f"1.2.1.{int(visit) + 1}"
            dcmwrite(path, image)
    assert {row[1:3] for row in rows(tmp_path)} == {("9001", "00"), ("9001", "12")}


def test_a_directory_of_dicom_is_no_image(tmp_path):
    dicom(tmp_path / "9001", Side.LEFT)
    directory = dcmread(next((tmp_path / "9001").iterdir()), stop_before_pixels=True)
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.Laterality = ""
    for place in (tmp_path, tmp_path / "9001"):
        dcmwrite(place / "DICOMDIR", directory)
    assert [row[3] for row in rows(tmp_path)] == ["L"]


def test_many_arrays_in_a_folder_are_as_many_patients(tmp_path):
    """As in MRNet."""
    touch(tmp_path, *(f"valid/axial/{number}.npy" for number in range(1130, 1134)))
    assert [row[:3] for row in rows(tmp_path)] == [(str(n), str(n), "") for n in range(1130, 1134)]
