import csv
import json

import numpy as np
import pytest

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES
from knee3d.postprocess.confusion import Scores
from knee3d.report.tables import evaluation_summary, scores_table, write_json, write_scores_csv, write_volumes_csv

PLANES = [plane.value for plane in Plane]
NAMES = ("femoral cartilage", "patellar cartilage")
GOOD = Scores(np.array([[90, 1, 0], [1, 8, 0], [0, 0, 0]]), NAMES)
BAD = Scores(np.array([[88, 3, 0], [3, 6, 0], [0, 0, 0]]), NAMES)


@pytest.fixture
def summary():
    one = dict(zip(PLANES, (GOOD, BAD, BAD), strict=True))
    return evaluation_summary({"a": {**one, "fused": GOOD}, "b": {**one, "fused": BAD}})


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_counted_by_hand(summary):
    fused = summary["fused"]
    assert list(summary["planes"]) == PLANES
    assert fused["dice"]["femoral cartilage"] == pytest.approx(2 * 14 / (2 * 14 + 4 + 4))
    assert fused["iou"]["foreground"] == fused["miou_foreground"] == pytest.approx(14 / 22)
    assert fused["miou_classes"] == pytest.approx((14 / 22 + 178 / 186) / 2)
    assert fused["confusion_matrix"] == [[178, 4, 0], [4, 14, 0], [0, 0, 0]]
    assert summary["cases"]["a"]["fused"]["dice"]["mean"] == pytest.approx(16 / 18)


def test_foreground_iou_is_neither_mean():
    numbers = evaluation_summary({"a": {"fused": Scores(np.array([[90, 2, 0], [2, 6, 2], [0, 0, 8]]), NAMES)}})["fused"]
    assert numbers["miou_foreground"] == numbers["iou"]["foreground"] == pytest.approx(16 / 20)
    assert numbers["iou"]["mean"] == pytest.approx((6 / 12 + 8 / 10) / 2)
    assert numbers["miou_classes"] == pytest.approx((90 / 94 + 6 / 12 + 8 / 10) / 3)


def test_an_absent_tissue_is_null_in_json_empty_in_csv_and_a_dash_in_the_table(summary, tmp_path):
    assert summary["fused"]["dice"]["patellar cartilage"] is None
    write_json(summary, tmp_path / "new" / "scores.json")
    assert json.loads((tmp_path / "new" / "scores.json").read_text()) == summary
    write_scores_csv(summary, tmp_path / "scores.csv")
    absent = [row["value"] for row in read(tmp_path / "scores.csv") if row["tissue"] == "patellar cartilage"]
    assert set(absent) == {""}
    assert set(scores_table(summary).columns[1].cells) >= {"-"}


def test_json_takes_numpy_and_writes_nan_as_null(tmp_path):
    write_json({"a": np.array([1.5, np.nan]), "b": np.int64(3), "c": (float("inf"), True)}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": 3, "c": [None, True]}


def test_csv_is_long_with_the_pooled_rows_last(summary, tmp_path):
    write_scores_csv(summary, tmp_path / "scores.csv")
    rows = read(tmp_path / "scores.csv")
    assert list(rows[0]) == ["case", "view", "tissue", "measure", "value"]
    assert len(rows) == 3 * 4 * (2 * (len(NAMES) + 2) + 2)
    assert [row["case"] for row in rows] == ["a"] * 40 + ["b"] * 40 + ["pooled"] * 40
    wanted = {"case": "pooled", "view": "fused", "tissue": "femoral cartilage", "measure": "dice"}
    [row] = [row for row in rows if wanted.items() <= row.items()]
    assert float(row["value"]) == summary["fused"]["dice"]["femoral cartilage"]


def test_table_has_planes_and_fused_with_the_best_in_bold(summary):
    table = scores_table(summary)
    assert [column.header for column in table.columns] == ["tissue", *PLANES, "fused"]
    assert list(table.columns[0].cells) == [*NAMES, "foreground", "mean"]
    assert [next(iter(column.cells)) for column in table.columns[1:]] == [
        f"[bold]{16 / 18:.4f}[/bold]", f"{12 / 18:.4f}", f"{12 / 18:.4f}", f"{28 / 36:.4f}",
    ]  # fmt: skip


def test_one_view_is_enough(tmp_path):
    summary = evaluation_summary({"a": {PLANES[0]: GOOD}})
    assert summary["fused"] is None
    assert len(scores_table(summary).columns) == 2
    write_scores_csv(summary, tmp_path / "scores.csv")


def test_cases_that_cannot_be_pooled_are_refused(summary, tmp_path):
    with pytest.raises(ValueError, match="no case"):
        evaluation_summary({})
    with pytest.raises(ValueError, match="views"):
        evaluation_summary({"a": {"fused": GOOD}, "b": {PLANES[0]: GOOD}})
    with pytest.raises(ValueError, match="pool"):
        write_scores_csv(evaluation_summary({"pooled": {"fused": GOOD}}), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


def test_volumes_csv_names_the_tissues(tmp_path):
    scheme = SCHEMES["compartments"]
    write_volumes_csv(tmp_path / "volumes.csv", "knee_a", scheme, np.array([1.5, 0.0, 2.25]))
    rows = read(tmp_path / "volumes.csv")
    assert [(row["case"], row["tissue"], float(row["volume_mm3"])) for row in rows] == [
        ("knee_a", name, volume) for name, volume in zip(scheme.names, (1.5, 0.0, 2.25), strict=True)
    ]
    with pytest.raises(ValueError, match="shorter"):
        write_volumes_csv(tmp_path / "volumes.csv", "knee_a", scheme, np.array([1.5]))


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    write_json({"good": 1}, path)
    with pytest.raises(TypeError):
        write_json({"bad": object()}, path)
    with pytest.raises(UnicodeEncodeError):
        write_json({"bad": "\ud800"}, path)
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]
