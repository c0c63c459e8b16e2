import csv
import json

import numpy as np
import pytest

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.postprocess.assessment import CaseAssessment, assess_case
from knee3d.postprocess.confusion_matrix import BY_CLASS, OverlapScores
from knee3d.report.tables import (
    evaluation_summary,
    means_table,
    scores_table,
    write_csv,
    write_json,
    write_scores_csv,
    write_volumes_csv,
)

PLANES = [plane.value for plane in Plane]
NAMES = ("femoral cartilage", "patellar cartilage")
GOOD = CaseAssessment(OverlapScores(np.array([[90, 1, 0], [1, 8, 0], [0, 0, 0]]), NAMES), {})
BAD = CaseAssessment(OverlapScores(np.array([[88, 3, 0], [3, 6, 0], [0, 0, 0]]), NAMES), {})


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
    scores = OverlapScores(np.array([[90, 2, 0], [2, 6, 2], [0, 0, 8]]), NAMES)
    numbers = evaluation_summary({"a": {"fused": CaseAssessment(scores, {})}})["fused"]
    assert numbers["miou_foreground"] == numbers["iou"]["foreground"] == pytest.approx(16 / 20)
    assert numbers["iou"]["mean"] == pytest.approx((6 / 12 + 8 / 10) / 2)
    assert numbers["miou_classes"] == pytest.approx((90 / 94 + 6 / 12 + 8 / 10) / 3)


def test_an_absent_tissue_is_null_in_json_and_empty_in_csv(summary, tmp_path):
    assert summary["fused"]["dice"]["patellar cartilage"] is None
    write_json(summary, tmp_path / "new" / "scores.json")
    assert json.loads((tmp_path / "new" / "scores.json").read_text()) == summary
    write_scores_csv(summary, tmp_path / "scores.csv")
    wanted = {"tissue": "patellar cartilage", "measure": "dice"}
    absent = [row["value"] for row in read(tmp_path / "scores.csv") if wanted.items() <= row.items()]
    assert set(absent) == {""}


def test_json_takes_numpy_and_writes_nan_as_null(tmp_path):
    write_json({"a": np.array([1.5, np.nan]), "b": np.int64(3), "c": (float("inf"), True)}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": 3, "c": [None, True]}


def test_csv_is_long_with_the_pooled_rows_and_the_means_last(summary, tmp_path):
    write_scores_csv(summary, tmp_path / "scores.csv")
    rows = read(tmp_path / "scores.csv")
    assert list(rows[0]) == ["case", "view", "tissue", "measure", "value", "low", "high"]
    of_tissues, of_all = len(BY_CLASS) * (len(NAMES) + 2), 4
    each = 4 * (of_tissues + of_all)
    assert [row["case"] for row in rows] == ["a"] * each + ["b"] * each + ["pooled"] * each + ["mean"] * 4 * of_tissues
    assert {row["low"] for row in rows if row["case"] != "mean"} == {""}
    wanted = {"view": "fused", "tissue": "femoral cartilage", "measure": "dice"}
    values = {row["case"]: float(row["value"]) for row in rows if wanted.items() <= row.items()}
    assert values["pooled"] == pytest.approx(summary["fused"]["dice"]["femoral cartilage"])
    assert values["mean"] == pytest.approx((values["a"] + values["b"]) / 2)


def test_means_have_intervals_over_patients(summary):
    found = summary["means"]["fused"]["dice"]["femoral cartilage"]
    assert found == {"mean": pytest.approx((16 + 12) / 36), "low": 12 / 18, "high": 16 / 18, "cases": 2}
    one = evaluation_summary({"a": {"fused": GOOD}, "b": {"fused": BAD}}, {"a": "p", "b": "p"})
    assert one["means"]["fused"]["dice"]["femoral cartilage"]["low"] is None
    cells = [list(column.cells) for column in means_table(summary).columns]
    assert cells[0] == [*NAMES, "foreground", "mean"]
    assert cells[1][0] == f"{14 / 18:.3f}\n{12 / 18:.3f} to {16 / 18:.3f}"
    assert cells[1][1] == "-"
    assert next(iter(means_table(one).columns[1].cells)) == f"{14 / 18:.3f}"


def test_surfaces_are_measured_or_the_reason_said(tmp_path):
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[3:9, 3:9, 3:9], truth[10:, 10:, 10:] = 1, 2
    labels = np.roll(np.where(truth == 1, 1, 0), 1, 0).astype(np.uint8)
    found = assess_case(Volume(truth, np.eye(4)), Volume(labels, np.eye(4)), NAMES)
    summary = evaluation_summary({"a": {"fused": found}})
    case = summary["cases"]["a"]["fused"]
    assert 0 < case["assd_mm"]["femoral cartilage"] < 1
    assert case["hd95_mm"]["mean"] == case["hd95_mm"]["femoral cartilage"]
    assert case["nsd_1mm"]["femoral cartilage"] == 1
    assert case["assd_mm"]["patellar cartilage"] is None
    assert case["absent"] == {"patellar cartilage": "absent from prediction"}
    assert "assd_mm" not in summary["fused"]
    assert summary["means"]["fused"]["assd_mm"]["femoral cartilage"]["cases"] == 1
    write_scores_csv(summary, tmp_path / "scores.csv")
    assert not [row for row in read(tmp_path / "scores.csv") if row["measure"] == "absent"]
    assert [column.header for column in means_table(summary).columns][-2:] == ["ASSD mm", "HD95 mm"]


def test_table_has_planes_and_fused_with_the_best_in_bold(summary):
    table = scores_table(summary)
    assert [column.header for column in table.columns] == ["", *NAMES, "foreground", "mean"]
    assert list(table.columns[0].cells) == [*PLANES, "fused"]
    assert list(table.columns[1].cells) == [
        f"[bold]{16 / 18:.4f}[/bold]", f"{12 / 18:.4f}", f"{12 / 18:.4f}", f"{28 / 36:.4f}",
    ]  # fmt: skip
    assert set(table.columns[2].cells) == {"-"}


def test_one_view_is_enough(tmp_path):
    summary = evaluation_summary({"a": {PLANES[0]: GOOD}})
    assert summary["fused"] is None
    assert scores_table(summary).row_count == 1
    write_scores_csv(summary, tmp_path / "scores.csv")


def test_cases_that_cannot_be_pooled_are_refused(summary, tmp_path):
    with pytest.raises(ValueError, match="no case"):
        evaluation_summary({})
    with pytest.raises(ValueError, match="views"):
        evaluation_summary({"a": {"fused": GOOD}, "b": {PLANES[0]: GOOD}})
    for name in ("pooled", "mean"):
        with pytest.raises(ValueError, match=f"the {name} rows"):
            write_scores_csv(evaluation_summary({name: {"fused": GOOD}}), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


def test_volumes_csv_names_the_tissues(tmp_path):
    scheme = SCHEMES["compartments"]
    volumes = dict(zip(scheme.names, (1.5, 0.0, 2.25), strict=True))
    write_volumes_csv(tmp_path / "volumes.csv", {"knee_a": volumes, "knee_b": volumes})
    rows = read(tmp_path / "volumes.csv")
    assert [(row["case"], row["tissue"], float(row["volume_mm3"])) for row in rows] == [
        (case, name, volume) for case in ("knee_a", "knee_b") for name, volume in volumes.items()
    ]


def test_numbers_in_csv_have_digits_that_mean_something(tmp_path):
    row = (
        1 / 3,
        152345.678912345,
        12345678.9,
        0.1 + 0.2,
        -1e-9 / 3,
        1.0,
        12345678901,
        float("nan"),
        None,
        "text",
        True,
    )
    write_csv(tmp_path / "x.csv", [str(number) for number in range(len(row))], [row])
    cells = (tmp_path / "x.csv").read_text().splitlines()[1].split(",")
    assert cells == [
        "0.3333333",
        "152345.7",
        "12345679",
        "0.3",
        "-3.333333e-10",
        "1",
        "12345678901",
        "",
        "",
        "text",
        "True",
    ]


@pytest.mark.parametrize(
    ("patients", "words"), [(1, "one patient"), (2, "2 patients are few"), (9, "9 patients are few"), (10, "")]
)
def test_intervals_of_few_patients_are_said_to_be_rough(patients, words):
    summary = evaluation_summary({f"{number}": {"fused": GOOD} for number in range(patients)})
    assert len(summary["notes"]) == bool(words)
    caption = means_table(summary).caption or ""
    assert words in caption
    assert bool(words) == bool(caption)
    assert f"over {patients} case{'s' * (patients > 1)} (" in means_table(summary).title


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    write_json({"good": 1}, path)
    with pytest.raises(TypeError):
        write_json({"bad": object()}, path)
    with pytest.raises(UnicodeEncodeError):
        write_json({"bad": "\ud800"}, path)
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]
