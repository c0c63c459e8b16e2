"""knees.csv: wrong rows are refused with their line."""

import json
from pathlib import Path

import pytest

from knee3d.anatomy.orientation import Side
from knee3d.dataset.cases import Split
from knee3d.dataset.table import COLUMNS, Knee, read_numbering, read_table, write_numbering, write_table

HEADER = ",".join(COLUMNS)


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    for name in ("a.nii", "b.nii", "m.nii"):
        (folder / name).touch()
    path = folder / "knees.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rows_become_knees_with_paths_relative_to_the_table(tmp_path):
    path = table(tmp_path, "k1,p1,baseline,L,a.nii,m.nii", "k2, p1 ,,,b.nii,")
    first, second = read_table(path)
    assert first == Knee("k1", "p1", "baseline", Side.LEFT, tmp_path / "a.nii", tmp_path / "m.nii")
    assert second == Knee("k2", "p1", "", Side.UNKNOWN, tmp_path / "b.nii", None)


def test_a_split_column_is_taken(tmp_path):
    path = table(tmp_path, "k1,p1,,R,a.nii,m.nii,val", "k2,p2,,R,b.nii,,", header=f"{HEADER},split")
    assert [knee.split for knee in read_table(path)] == [Split.VAL, Split.NONE]


def test_what_is_written_is_read(tmp_path):
    knees = read_table(table(tmp_path, "k1,p1,baseline,L,a.nii,m.nii", "k2,p1,,R,b.nii,"))
    write_table(tmp_path / "again.csv", knees)
    assert read_table(tmp_path / "again.csv") == knees


def test_excels_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = table(tmp_path, "k1,p1,,R,a.nii,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_table(path)[0].case == "k1"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("../up,p,,R,a.nii,", "line 2: case '../up' cannot be a folder's name"),
        (",p,,R,a.nii,", "cannot be a folder's name"),
        ("k,,,R,a.nii,", "has no patient"),
        ("k,p,,right,a.nii,", "write L, R or nothing"),
        ("k,p,,R,,", "has no image"),
        ("k,p,,R,c.nii,", "c.nii of case k does not exist"),
        ("k,p,,R,a.nii,c.nii", "c.nii of case k does not exist"),
        ("k,p", "has no image"),
        ("k,p,,R,a.nii,\nK,p,,R,a.nii,", "stands more than once"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, row, word):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_table(table(tmp_path, row))
    assert word in str(error.value)
    assert "knees.csv" in str(error.value)


@pytest.mark.parametrize(("split", "word"), [("dev", "write train"), ("", "without a split: k")])
def test_wrong_splits_are_refused(tmp_path, split, word):
    with pytest.raises(ValueError, match=word):
        read_table(table(tmp_path, f"k,p,,R,a.nii,m.nii,{split}", header=f"{HEADER},split"))


def test_a_table_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="columns case, patient"):
        read_table(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="no rows"):
        read_table(table(tmp_path))
    with pytest.raises(ValueError, match="lacks the columns patient"):
        read_table(table(tmp_path, "k,,R,a.nii,", header="case,visit,side,image,mask"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(ValueError, match="not a CSV file"):
        read_table(binary)


def test_numberings_come_by_name_or_file(tmp_path):
    assert read_numbering("pymskt").names[1] == "femoral cartilage"
    path = tmp_path / "labels.json"
    write_numbering(path, {3: "femur", 7: "tibia"})
    assert dict(read_numbering(str(path)).names) == {3: "femur", 7: "tibia"}
    path.write_text(json.dumps({"0": "background", "1": "femur"}))
    assert dict(read_numbering(str(path)).names) == {1: "femur"}


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"one": "femur"}', '{"1": "thigh bone"}'])
def test_label_files_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"labels\.json is not a label table"):
        read_numbering(str(path))
    with pytest.raises(FileNotFoundError, match="neither a label file nor a built-in"):
        read_numbering("nonsense")
