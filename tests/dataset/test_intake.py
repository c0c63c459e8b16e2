"""What a path stands for: a knee, a folder of knees, a table."""

import shutil
from pathlib import Path

import pytest

from knee3d import workflow
from knee3d.anatomy.orientation import Side
from knee3d.dataset.intake import content_mark, knees_at
from knee3d.dataset.phantom.cohort import Cohort
from knee3d.dataset.source import Choice


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    workflow.phantom(Cohort(2, (16, 16, 16)), folder, jobs=2)
    return folder


@pytest.mark.slow
def test_a_table_a_folder_and_single_knees(cohort):
    table = knees_at(cohort / "knees.csv", choice=Choice(echo="1"))
    assert [one.case for one in table] == ["P001-baseline", "P002-baseline", "P001-follow-up"]
    assert {one.source.choice.echo for one in table} == {"1"}
    assert [one.source.side for one in table] == [Side.RIGHT, Side.LEFT, Side.RIGHT]
    found = knees_at(cohort)
    assert {one.case: one.source.path for one in found} == {one.case: one.source.path for one in table}
    (one,) = knees_at(cohort / "P001-baseline" / "dicom", case="someone", side=Side.LEFT)
    assert (one.case, one.source.side) == ("someone", Side.LEFT)


def test_a_folder_with_one_series_below_is_a_single_knee(cohort, tmp_path):
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "an odd, name" / "study" / "series")
    (one,) = knees_at(tmp_path / "an odd, name")
    assert (one.case, one.source.path) == ("an-odd-name", tmp_path / "an odd, name")
    shutil.copytree(cohort / "P002-baseline" / "dicom", tmp_path / "an odd, name" / "study" / "other")
    assert len(knees_at(tmp_path / "an odd, name")) == 2
    (chosen,) = knees_at(tmp_path / "an odd, name", choice=Choice(series="1"))
    assert chosen.source.path == tmp_path / "an odd, name"


def test_a_folder_that_says_only_what_it_holds_has_the_name_of_the_one_above(cohort, tmp_path):
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "A" / "DESS" / "dicom")
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "A" / "image.nii.gz")
    paths = [tmp_path / "A" / "DESS" / "dicom", tmp_path / "A" / "image.nii.gz", cohort / "P002-baseline" / "dicom"]
    assert [knees_at(path)[0].case for path in paths] == ["A", "A", "P002-baseline"]


def test_labels_in_a_folder_are_no_knees(cohort, tmp_path):
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "knee.nii.gz")
    shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / "knee_mask.nii.gz")
    (one,) = knees_at(tmp_path)
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
        knees_at(cohort / name, **options)


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
    found = knees_at(tmp_path)
    assert {one.case: one.source.path.name for one in found} == {"zipped": "zipped.zip", "plain": "plain"}
    assert f"no knee is in 1 folders with files: {tmp_path / 'broken'}" in caplog.text


def test_names_keep_their_dots(cohort, tmp_path):
    for name in ("a.b.nii.gz", "a.c.NII.GZ"):
        shutil.copy(cohort / "P001-baseline" / "mask.nii.gz", tmp_path / name)
    shutil.copytree(cohort / "P001-baseline" / "dicom", tmp_path / "1.2.840.1")
    paths = [tmp_path / name for name in ("a.b.nii.gz", "a.c.NII.GZ", "1.2.840.1")]
    assert [knees_at(path)[0].case for path in paths] == ["a.b", "a.c", "1.2.840.1"]


def test_a_mark_is_of_the_content_whatever_its_name(cohort, tmp_path):
    original, copy = cohort / "P001-baseline" / "dicom", tmp_path / "copy"
    shutil.copytree(original, copy)
    first = sorted(copy.iterdir())[0]
    first.rename(copy / "other name.dcm")
    (copy / ".hidden").write_text("not read")
    assert content_mark(copy) == content_mark(original)
    changed = sorted(copy.glob("*.dcm"))[0]
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    assert content_mark(copy) != content_mark(original)
    assert content_mark(cohort / "P001-baseline" / "mask.nii.gz") != content_mark(original)
