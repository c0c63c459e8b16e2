"""Scores of an evaluation: as they are counted, as files and as tables."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.postprocess.assessment import CaseAssessment, assess_case
from knee3d.postprocess.confusion_matrix import BY_CLASS, OverlapScores
from knee3d.postprocess.quality import QualityReport
from knee3d.report.evaluation_scores import (
    Evaluation,
    MeanScore,
    QualityRecord,
    means_table,
    scores_table,
    summarise_cases,
    write_scores_csv,
)

PLANES = [plane.value for plane in Plane]
NAMES = ("femoral cartilage", "patellar cartilage")
GOOD = CaseAssessment(OverlapScores(np.array([[90, 1, 0], [1, 8, 0], [0, 0, 0]]), NAMES), {})
BAD = CaseAssessment(OverlapScores(np.array([[88, 3, 0], [3, 6, 0], [0, 0, 0]]), NAMES), {})


@pytest.fixture
def evaluation():
    one = dict(zip(PLANES, (GOOD, BAD, BAD), strict=True))
    return summarise_cases({"a": {**one, "fused": GOOD}, "b": {**one, "fused": BAD}})


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_counted_by_hand(evaluation):
    fused = evaluation.fused
    assert list(evaluation.pooled) == [*PLANES, "fused"]
    assert (
        fused.dice["femoral cartilage"]
        == evaluation.dice["femoral cartilage"]
        == pytest.approx(2 * 14 / (2 * 14 + 4 + 4))
    )
    assert fused.measures["iou"]["foreground"] == fused.miou_foreground == pytest.approx(14 / 22)
    assert fused.miou_classes == pytest.approx((14 / 22 + 178 / 186) / 2)
    assert fused.confusion_matrix == ((178, 4, 0), (4, 14, 0), (0, 0, 0))
    assert evaluation.cases["a"]["fused"].dice["mean"] == pytest.approx(16 / 18)


def test_foreground_iou_is_neither_mean():
    scores = OverlapScores(np.array([[90, 2, 0], [2, 6, 2], [0, 0, 8]]), NAMES)
    numbers = summarise_cases({"a": {"fused": CaseAssessment(scores, {})}}).fused
    assert numbers.miou_foreground == numbers.measures["iou"]["foreground"] == pytest.approx(16 / 20)
    assert numbers.measures["iou"]["mean"] == pytest.approx((6 / 12 + 8 / 10) / 2)
    assert numbers.miou_classes == pytest.approx((90 / 94 + 6 / 12 + 8 / 10) / 3)


def test_an_absent_tissue_is_null_in_json_and_empty_in_csv(evaluation, tmp_path):
    assert math.isnan(evaluation.dice["patellar cartilage"])
    evaluation.write(tmp_path / "new" / "scores.json")
    content = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert content["pooled"]["fused"]["measures"]["dice"]["patellar cartilage"] is None
    write_scores_csv(evaluation, tmp_path / "scores.csv")
    wanted = {"tissue": "patellar cartilage", "measure": "dice"}
    absent = [row["value"] for row in read(tmp_path / "scores.csv") if wanted.items() <= row.items()]
    assert set(absent) == {""}


def test_csv_is_long_with_the_pooled_rows_and_the_means_last(evaluation, tmp_path):
    write_scores_csv(evaluation, tmp_path / "scores.csv")
    rows = read(tmp_path / "scores.csv")
    assert list(rows[0]) == ["case", "view", "tissue", "measure", "value", "low", "high"]
    of_tissues, of_all = len(BY_CLASS) * (len(NAMES) + 2), 4
    each = 4 * (of_tissues + of_all)
    assert [row["case"] for row in rows] == ["a"] * each + ["b"] * each + ["pooled"] * each + ["mean"] * 4 * of_tissues
    assert {row["low"] for row in rows if row["case"] != "mean"} == {""}
    wanted = {"view": "fused", "tissue": "femoral cartilage", "measure": "dice"}
    values = {row["case"]: float(row["value"]) for row in rows if wanted.items() <= row.items()}
    assert values["pooled"] == pytest.approx(evaluation.dice["femoral cartilage"])
    assert values["mean"] == pytest.approx((values["a"] + values["b"]) / 2)


def test_means_have_intervals_over_patients(evaluation):
    found = evaluation.means["fused"]["dice"]["femoral cartilage"]
    assert found == MeanScore(pytest.approx((16 + 12) / 36), 12 / 18, 16 / 18, 2)
    one = summarise_cases({"a": {"fused": GOOD}, "b": {"fused": BAD}}, {"a": "p", "b": "p"})
    assert math.isnan(one.means["fused"]["dice"]["femoral cartilage"].low)
    cells = [list(column.cells) for column in means_table(evaluation).columns]
    assert cells[0] == [*NAMES, "foreground", "mean"]
    assert cells[1][0] == f"{14 / 18:.3f}\n{12 / 18:.3f} to {16 / 18:.3f}"
    assert cells[1][1] == "-"
    assert next(iter(means_table(one).columns[1].cells)) == f"{14 / 18:.3f}"


def test_surfaces_are_measured_or_the_reason_said(tmp_path):
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[3:9, 3:9, 3:9], truth[10:, 10:, 10:] = 1, 2
    labels = np.roll(np.where(truth == 1, 1, 0), 1, 0).astype(np.uint8)
    found = assess_case(Volume(truth, np.eye(4)), Volume(labels, np.eye(4)), NAMES)
    evaluation = summarise_cases({"a": {"fused": found}})
    case = evaluation.cases["a"]["fused"]
    assert 0 < case.measures["assd_mm"]["femoral cartilage"] < 1
    assert case.measures["hd95_mm"]["mean"] == case.measures["hd95_mm"]["femoral cartilage"]
    assert case.measures["nsd_1mm"]["femoral cartilage"] == 1
    assert math.isnan(case.measures["assd_mm"]["patellar cartilage"])
    assert case.absent == {"patellar cartilage": "absent from prediction"}
    assert "assd_mm" not in evaluation.fused.measures
    assert evaluation.means["fused"]["assd_mm"]["femoral cartilage"].cases == 1
    write_scores_csv(evaluation, tmp_path / "scores.csv")
    assert not [row for row in read(tmp_path / "scores.csv") if row["measure"] == "absent"]
    assert [column.header for column in means_table(evaluation).columns][-2:] == ["ASSD mm", "HD95 mm"]


def test_table_has_planes_and_fused_with_the_best_in_bold(evaluation):
    table = scores_table(evaluation)
    assert [column.header for column in table.columns] == ["", *NAMES, "foreground", "mean"]
    assert list(table.columns[0].cells) == [*PLANES, "fused"]
    assert list(table.columns[1].cells) == [
        f"[bold]{16 / 18:.4f}[/bold]", f"{12 / 18:.4f}", f"{12 / 18:.4f}", f"{28 / 36:.4f}",
    ]  # fmt: skip
    assert set(table.columns[2].cells) == {"-"}


def test_one_view_is_enough(tmp_path):
    evaluation = summarise_cases({"a": {PLANES[0]: GOOD}})
    assert evaluation.fused is None
    assert evaluation.dice == {}
    assert scores_table(evaluation).row_count == 1
    write_scores_csv(evaluation, tmp_path / "scores.csv")


def test_cases_that_cannot_be_pooled_are_refused(evaluation, tmp_path):
    with pytest.raises(ValueError, match="no case"):
        summarise_cases({})
    with pytest.raises(ValueError, match="views"):
        summarise_cases({"a": {"fused": GOOD}, "b": {PLANES[0]: GOOD}})
    for name in ("pooled", "mean"):
        with pytest.raises(ValueError, match=f"the {name} rows"):
            write_scores_csv(summarise_cases({name: {"fused": GOOD}}), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("patients", "words"), [(1, "one patient"), (2, "2 patients are few"), (9, "9 patients are few"), (10, "")]
)
def test_intervals_of_few_patients_are_said_to_be_rough(patients, words):
    evaluation = summarise_cases({f"{number}": {"fused": GOOD} for number in range(patients)})
    assert len(evaluation.notes) == bool(words)
    caption = means_table(evaluation).caption or ""
    assert words in caption
    assert bool(words) == bool(caption)
    assert f"over {patients} case{'s' * (patients > 1)} (" in means_table(evaluation).title


def test_an_evaluation_comes_back_from_json_as_its_schema_says(evaluation, tmp_path):
    """A mean, a case and a quality that are not known are in it, and a weight for each class."""
    report = QualityReport({"femur": 3.5}, {"femur": 0.0}, math.nan, 0.25, ("femur missing",), "entropy")
    whole = replace(
        evaluation, split="test", weights={"a": 0.5, "b": (0.25, 0.75)}, other_voxels={"a": "large"},
        quality={"a": QualityRecord.of(report)},
    )  # fmt: skip
    whole.write(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text()
    again = Evaluation.from_json(text)
    assert again.to_json() + "\n" == text
    assert (again.weights, again.cleaning, again.quality["a"].flags) == (whole.weights, whole.cleaning, report.flags)
    assert str(again) == str(whole)
    assert repr(again) == repr(whole)
    pd.testing.assert_frame_equal(again.to_frame(), whole.to_frame())
    schema = Evaluation.json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(text))
    assert json.loads(text)["version"] == 1
    with pytest.raises(ValueError, match="split: input should be a valid string"):
        Evaluation.from_json(text.replace('"test"', "3"))
