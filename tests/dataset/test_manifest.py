"""knees.csv: wrong rows are refused with their line."""

import json
from pathlib import Path

import pytest

from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import COLUMNS, ManifestRow, read_manifest, write_manifest
from knee3d.geometry.orientation import Side
from knee3d.io.label_names_file import read_label_names, write_label_names
from knee3d.labels.label_scheme import SCHEMES
from knee3d.report.label_tables import write_freesurfer_table, write_itksnap_table

HEADER = ",".join(COLUMNS)


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    for name in ("a.nii", "b.nii", "m.nii"):
        (folder / name).touch()
    path = folder / "knees.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rows_become_knees_with_paths_relative_to_the_table(tmp_path):
    path = table(tmp_path, "k1,p1,baseline,L,a.nii,m.nii", "k2, p1 ,,,b.nii,")
    first, second = read_manifest(path)
    assert first == ManifestRow("k1", "p1", "baseline", Side.LEFT, tmp_path / "a.nii", tmp_path / "m.nii")
    assert second == ManifestRow("k2", "p1", "", Side.UNKNOWN, tmp_path / "b.nii", None)


def test_a_split_column_is_taken(tmp_path):
    path = table(tmp_path, "k1,p1,,R,a.nii,m.nii,val", "k2,p2,,R,b.nii,,", header=f"{HEADER},split")
    assert [knee.split for knee in read_manifest(path)] == [Split.VAL, Split.NONE]


def test_what_is_written_is_read(tmp_path):
    knees = read_manifest(table(tmp_path, "k1,p1,baseline,L,a.nii,m.nii", "k2,p1,,R,b.nii,"))
    write_manifest(tmp_path / "again.csv", knees)
    assert read_manifest(tmp_path / "again.csv") == knees


def test_excels_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = table(tmp_path, "k1,p1,,R,a.nii,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_manifest(path)[0].case == "k1"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("../up,p,,R,a.nii,", "line 2: case '../up' cannot be a folder's name"),
        (",p,,R,a.nii,", "cannot be a folder's name"),
        ("k,,,R,a.nii,", "has no patient"),
        ("k,p,,both,a.nii,", "write L, R or nothing"),
        ("k,p,,R,,", "has no image"),
        ("k,p,,R,c.nii,", "c.nii of case k does not exist"),
        ("k,p,,R,a.nii,c.nii", "c.nii of case k does not exist"),
        ("k,p", "has no image"),
        ("k,p,,R,a.nii,\nK,p,,R,a.nii,", "stands more than once"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, row, word):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_manifest(table(tmp_path, row))
    assert word in str(error.value)
    assert "knees.csv" in str(error.value)


@pytest.mark.parametrize(("split", "word"), [("dev", "write train"), ("", "without a split: k")])
def test_wrong_splits_are_refused(tmp_path, split, word):
    with pytest.raises(ValueError, match=word):
        read_manifest(table(tmp_path, f"k,p,,R,a.nii,m.nii,{split}", header=f"{HEADER},split"))


def test_a_table_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="columns case, patient"):
        read_manifest(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="no rows"):
        read_manifest(table(tmp_path))
    with pytest.raises(ValueError, match="lacks the columns patient"):
        read_manifest(table(tmp_path, "k,,R,a.nii,", header="case,visit,side,image,mask"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\x00\xff\xfe" * 50)
    with pytest.raises(ValueError, match="not a CSV file"):
        read_manifest(binary)


EXCEL = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs in UTF-16": lambda text: text.replace(",", "\t").encode("utf-16"),
    "byte order mark, CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "a line for Excel": lambda text: f"sep=;\n{text.replace(',', ';')}".encode(),
    "empty rows": lambda text: f"{text},,,,,\n\n,,,,,\n".encode(),
    "empty rows between": lambda text: text.replace("\n", "\n\n,,\n").encode(),
    "capitals and blanks": lambda text: text.replace(HEADER, HEADER.title().replace(",", " , ")).encode(),
    "sides in words": lambda text: text.replace(",L,", ",Left,").replace(",R,", ",right,").encode(),
    "small sides": lambda text: text.replace(",L,", ",l,").replace(",R,", ",r,").encode(),
    "quotes": lambda text: "\n".join(f'"{line}"'.replace(",", '","') for line in text.splitlines()).encode(),
    "more columns": lambda text: text.replace("\n", ",,of mine\n").replace("mask,,of mine", "mask,,comment").encode(),
    "backslashes": lambda text: text.replace("sub/", "sub\\").encode(),
}


@pytest.mark.parametrize("write", EXCEL.values(), ids=EXCEL)
def test_tables_of_other_programs_are_read(tmp_path, write):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.nii").touch()
    path = table(tmp_path, "k1,p1,baseline,L,sub/c.nii,m.nii", "k2,p1,,R,b.nii,")
    expected = read_manifest(path)
    path.write_bytes(write(path.read_text()))
    assert read_manifest(path) == expected


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = table(tmp_path, "", ",,,,,", "k,p,,X,a.nii,", header=f"sep=,\n{HEADER}")
    with pytest.raises(ValueError, match=r"knees\.csv line 5: side of k is 'X'"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [(f"{HEADER},mask", "k,p,,R,a.nii,m.nii,b.nii", "more than one column mask"),
     (HEADER, "k,p,,R,a.nii,,m.nii", "line 2 has more cells than there are columns")],
)  # fmt: skip
def test_cells_that_would_be_lost_are_refused(tmp_path, header, row, said):
    with pytest.raises(ValueError, match=f"knees.csv.*{said}"):
        read_manifest(table(tmp_path, row, header=header))


def test_a_code_page_is_said_with_the_way_out(tmp_path):
    path = table(tmp_path, "k,p,x,R,a.nii,", "l,q,März,R,b.nii,")
    path.write_bytes(path.read_text().encode("cp1252"))
    with pytest.raises(ValueError, match=r"knees\.csv is not a CSV file in UTF-8 .*line 3.*save it as CSV UTF-8"):
        read_manifest(path)


def test_cells_may_hold_lines_and_odd_blanks(tmp_path):
    path = table(tmp_path, '"k",p,"first\nvisit",R,a.nii,', "l,q,a\u2028b\x1cc,R,b.nii,")
    assert [knee.visit for knee in read_manifest(path)] == ["first\nvisit", "a\u2028b\x1cc"]
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert [knee.case for knee in read_manifest(path)] == ["k", "l"]


def test_numberings_come_by_name_or_file(tmp_path):
    assert read_label_names("pymskt").names[1] == "femoral cartilage"
    path = tmp_path / "labels.json"
    write_label_names(path, {3: "femur", 7: "tibia"})
    assert dict(read_label_names(str(path)).names) == {3: "femur", 7: "tibia"}
    path.write_text(json.dumps({"0": "background", "1": "femur"}))
    assert dict(read_label_names(str(path)).names) == {1: "femur"}


LABEL_FILES = {
    "nnunet2.json": '{"labels": {"background": 0, "Femoral Cartilage": 1, "tibia": 4}, "file_ending": ".nii.gz"}',
    "nnunet1.json": '{"labels": {"0": "background", "1": "femoral_cartilage", "4": "tibia"}}',
    "itksnap.txt": '# ITK-SNAP\n    0     0    0    0        0  0  0    "Clear Label"\n'
                   '    1   255    0    0        1  1  1    "femoral cartilage"\n    4 0 9 0 0.5 1 1 "Tibia"\n',
    "freesurfer.txt": "#No. Label Name: R G B A\n0 Unknown 0 0 0 0\n1 femoral_cartilage 255 0 0 0\n4 tibia 1 2 3 0\n",
    "slicer.ctbl": "# Color table file\n0 Background 0 0 0 0\n1 Femoral_Cartilage 255 0 0 255\n4 tibia 1 2 3 255\n",
}  # fmt: skip


@pytest.mark.parametrize("name", LABEL_FILES)
def test_label_files_of_other_programs_are_read(tmp_path, name):
    (tmp_path / name).write_text(LABEL_FILES[name])
    assert dict(read_label_names(str(tmp_path / name)).names) == {1: "femoral cartilage", 4: "tibia"}


@pytest.mark.parametrize("write", [write_itksnap_table, write_freesurfer_table])
def test_label_files_that_reports_have_are_read(tmp_path, write):
    scheme = SCHEMES["iwoai"]
    write(tmp_path / "labels.txt", scheme)
    assert dict(read_label_names(str(tmp_path / "labels.txt")).names) == dict(enumerate(scheme.names, start=1))


@pytest.mark.parametrize("content", ["", "1 2 3", "# nothing", "1 thigh_bone 1 2 3 4", "femur 1"])
def test_tables_that_are_no_label_files_are_refused(tmp_path, content):
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(ValueError, match=r"labels\.txt is not a label table"):
        read_label_names(str(tmp_path / "labels.txt"))


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"one": "femur"}', '{"1": "thigh bone"}'])
def test_label_files_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"labels\.json is not a label table"):
        read_label_names(str(path))
    with pytest.raises(FileNotFoundError, match="neither a label file nor a built-in"):
        read_label_names("nonsense")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"1": "femur", "1": "tibia"}', "twice what 1 means"),
        ("a.json", '{"labels": {"femur": 1, "tibia": 1}}', "twice what 1 means"),
        ("a.json", '{"femur": true}', "one number and one name"),
        ("a.json", '{"labels": {"background": 0, "whole": [1, 2]}}', "regions"),
        ("a.json", "[1, 2]", "no object of names"),
        ("a.txt", '1 0 0 0 1 1 1 "femur"\n1 0 0 0 1 1 1 "tibia"\n', "twice what 1 means"),
    ],
)
def test_label_files_that_contradict_themselves_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}.*{words}"):
        read_label_names(str(tmp_path / name))


def test_a_byte_order_mark_is_no_letter(tmp_path):
    (tmp_path / "a.json").write_text('{"1": "femur"}', encoding="utf-8-sig")
    assert dict(read_label_names(str(tmp_path / "a.json")).names) == {1: "femur"}


def test_one_image_of_two_patients_is_a_leak(tmp_path):
    """Two readers' masks of one image are none, nor are two series of a folder."""
    (tmp_path / "k.nii").touch()
    head = "case,patient,visit,side,image,mask,series\n"
    (tmp_path / "t.csv").write_text(head + "a,P,,,k.nii,,\nb,P,,,./k.nii,,\nc,Q,,,k.nii,,2\n")
    assert len(read_manifest(tmp_path / "t.csv")) == 3
    (tmp_path / "t.csv").write_text(head + "a,P,,,k.nii,,\nb,Q,,,./k.nii,,\n")
    with pytest.raises(ValueError, match="a and b of two patients have the same image"):
        read_manifest(tmp_path / "t.csv")
