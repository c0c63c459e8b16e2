"""What a path stands for: a knee, a folder of knees, a table."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread, dcmwrite

from knee3d.dataset.input_case import content_fingerprint, find_cases, stat_fingerprint
from knee3d.dataset.manifest import read_manifest
from knee3d.dataset.preparation import PrepareConfig, prepare_knees
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.writer import write_series
from knee3d.io.image_source import ReadOptions, read_image
from knee3d.io.volume_file import write_volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig

IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def cohort(cohort_of) -> Path:
    return cohort_of(CohortConfig(2, (16, 16, 16))).parent


@pytest.mark.slow
def test_a_table_a_folder_and_single_knees(cohort):
    table = find_cases(cohort / "knees.csv", choice=ReadOptions(echo="1"))
    assert [one.case for one in table] == ["P001-baseline", "P002-baseline", "P001-follow-up"]
    assert {one.source.choice.echo for one in table} == {"1"}
    assert [one.source.side for one in table] == [Side.RIGHT, Side.LEFT, Side.RIGHT]
    found = find_cases(cohort)
    assert {one.case: one.source.path for one in found} == {one.case: one.source.path for one in table}
    (one,) = find_cases(cohort / "P001-baseline" / "dicom", case="someone", side=Side.LEFT)
    assert (one.case, one.source.side) == ("someone", Side.LEFT)


def test_a_folder_with_one_series_below_is_a_single_knee(cohort, tmp_path):
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "an odd, name" / "study" / "series")
    (one,) = find_cases(tmp_path / "an odd, name")
    assert (one.case, one.source.path) == ("an-odd-name", tmp_path / "an odd, name")
    shutil.copytree(cohort / "P002-baseline" / "dicom", tmp_path / "an odd, name" / "study" / "other")
    assert len(find_cases(tmp_path / "an odd, name")) == 2
    (chosen,) = find_cases(tmp_path / "an odd, name", choice=ReadOptions(series="1"))
    assert chosen.source.path == tmp_path / "an odd, name"


def test_a_folder_that_says_only_what_it_holds_has_the_name_of_the_one_above(cohort, tmp_path):
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "A" / "DESS" / "dicom")
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "A" / "image.nii.gz")
    paths = [tmp_path / "A" / "DESS" / "dicom", tmp_path / "A" / "image.nii.gz", cohort / "P002-baseline" / "dicom"]
    assert [find_cases(path)[0].case for path in paths] == ["A", "A", "P002-baseline"]


def test_labels_in_a_folder_are_no_knees(cohort, tmp_path):
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "knee.nii.gz")
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "knee_mask.nii.gz")
    (one,) = find_cases(tmp_path)
    assert one.source.path == tmp_path / "knee.nii.gz"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nowhere", {}, "does not exist"),
        ("knees.csv", {"case": "one"}, "leave --case and --side out"),
        ("knees.csv", {"side": Side.LEFT}, "leave --case and --side out"),
        ("P001-baseline", {"case": "../up"}, "cannot be a folder's name"),
        (".", {"case": "one"}, "holds 3 knees; leave --case and --side out"),
    ],
)
def test_what_makes_no_sense_is_refused(cohort, name, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        find_cases(cohort / name, **options)


def test_zips_links_and_folders_full_of_notes(cohort, tmp_path, caplog):
    """Zips are knees, a link is no second one, notes before the images do not hide them, and what is left is said."""
    dicom = cohort / "P001-baseline" / "dicom"
    shutil.make_archive(str(tmp_path / "zipped"), "zip", dicom)
    shutil.copytree(dicom, tmp_path / "plain")
    (tmp_path / "plain" / "again").symlink_to(tmp_path / "plain")
    for number in range(8):
        (tmp_path / "plain" / f"0note{number}.txt").write_text("read me")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "IM0001.dcm").write_bytes(b"?" * 200)
    found = find_cases(tmp_path)
    assert {one.case: one.source.path.name for one in found} == {"zipped": "zipped.zip", "plain": "plain"}
    assert f"no knee is in 1 folders with files: {tmp_path / 'broken'}" in caplog.text


def test_names_keep_their_dots(cohort, tmp_path):
    for name in ("a.b.nii.gz", "a.c.NII.GZ"):
        shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / name)
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "1.2.840.1")
    paths = [tmp_path / name for name in ("a.b.nii.gz", "a.c.NII.GZ", "1.2.840.1")]
    assert [find_cases(path)[0].case for path in paths] == ["a.b", "a.c", "1.2.840.1"]


def test_a_mark_is_of_the_content_whatever_its_name(cohort, tmp_path):
    original, copy = cohort / "P001-baseline" / "dicom", tmp_path / "copy"
    shutil.copytree(original, copy)
    first = sorted(copy.iterdir())[0]
    first.rename(copy / "other name.dcm")
    (copy / ".hidden").write_text("not read")
    assert content_fingerprint(copy) == content_fingerprint(original)
    changed = sorted(copy.glob("*.dcm"))[0]
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    assert content_fingerprint(copy) != content_fingerprint(original)
    assert content_fingerprint(cohort / "P001-baseline" / "mask.nii.gz") != content_fingerprint(original)


def test_a_knee_behind_linked_folders(cohort, tmp_path):
    """As whoever keeps scans elsewhere points to them, at any depth; a link to a folder above ends somewhere."""
    away = tmp_path / "away" / "study" / "series"
    away.parent.mkdir(parents=True)
    shutil.copytree(cohort / "P001-baseline" / "dicom", away)
    (away / "up").symlink_to(tmp_path / "away")
    (tmp_path / "knees" / "deeper").mkdir(parents=True)
    (tmp_path / "knees" / "deeper" / "mine").symlink_to(tmp_path / "away")
    (entry,) = find_cases(tmp_path / "knees")
    theirs = read_image(cohort / "P001-baseline" / "dicom")
    np.testing.assert_array_equal(read_image(entry.source.path).array, theirs.array)
    assert content_fingerprint(tmp_path / "knees") == content_fingerprint(cohort / "P001-baseline" / "dicom")


def test_a_folder_that_cannot_be_listed_is_no_shorter_knee(cohort, tmp_path, monkeypatch, caplog):
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "knee")
    (tmp_path / "knee" / "closed").mkdir()
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="closed"):
        read_image(tmp_path / "knee")
    assert len(find_cases(tmp_path)) == 1
    assert "closed cannot be listed" in caplog.text


def test_a_mark_counts_the_voxels_beside_a_header(tmp_path):
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([0.5, 0.6, 0.7, 1]))
    write_volume(volume, tmp_path / "one.nrrd")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "one.nrrd")), str(tmp_path / "k[1].mhd"))
    before = content_fingerprint(tmp_path / "k[1].mhd"), stat_fingerprint(tmp_path / "k[1].mhd")
    raw = tmp_path / "k[1].raw"
    raw.write_bytes(bytes(len(raw.read_bytes())))
    after = content_fingerprint(tmp_path / "k[1].mhd"), stat_fingerprint(tmp_path / "k[1].mhd")
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_table_chooses_a_series_where_a_folder_holds_both_knees(tmp_path):
    """All files of a study in one folder, as archives hand them out."""
    volume = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)
    (tmp_path / "study").mkdir()
    for number, side in enumerate(("R", "L"), start=1):
        write_series(volume, tmp_path / side, Side(side), patient="P", description=side, seed=1)
        for path in sorted((tmp_path / side).iterdir()):
            image = dcmread(path)
            image.SeriesNumber, image.StudyInstanceUID = number, "1.2.3"
            dcmwrite(tmp_path / "study" / f"{side}{path.name}", image)
    with pytest.raises(ValueError, match=r"(?s)one series.*column series.*series 1 .*side R.*series 2 .*side L"):
        read_image(tmp_path / "study")
    lines = ["case,patient,visit,side,image,mask,series", *(f"k{n},P,,,study,,{n}" for n in (1, 2))]
    (tmp_path / "knees.csv").write_text("\n".join(lines))
    found = find_cases(tmp_path / "knees.csv")
    assert [read_image(one.source.path, one.source.choice).side for one in found] == [Side.RIGHT, Side.LEFT]
    preparation = PrepareConfig(SCHEMES["cartilage"], None)
    cases = list(prepare_knees(read_manifest(tmp_path / "knees.csv"), tmp_path / "dataset", preparation, 1))
    assert {case.name: case.side for case in cases} == {"k1": Side.RIGHT, "k2": Side.LEFT}


def test_a_mark_of_a_nifti_header_counts_its_voxels_and_no_other_file(tmp_path):
    """Whatever text is in the header, such as who wrote it."""
    image = nib.Nifti1Pair(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([0.5, 0.6, 0.7, 1]))
    image.header["descrip"] = b"FSL:6.0\ndata file: other.raw\n"
    nib.save(image, tmp_path / "k.hdr")
    before = content_fingerprint(tmp_path / "k.hdr")
    (tmp_path / "notes.txt").write_text("hello")
    assert content_fingerprint(tmp_path / "k.hdr") == before
    (tmp_path / "k.img").write_bytes(bytes(120))
    assert content_fingerprint(tmp_path / "k.hdr") != before
