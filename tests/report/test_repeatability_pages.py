"""Repeatability and change on a page: rows, tables, plots."""

import csv
import json
import re
import zlib

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from knee3d.morphometry.change import MeasurementChange, SmallestDetectableChange
from knee3d.morphometry.measurement import WHOLE, Measurement
from knee3d.morphometry.repeatability import pair_measurements, repeatability_statistics
from knee3d.records import VERSION, Record
from knee3d.report.bland_altman_figure import bland_altman_figure
from knee3d.report.change import (
    ComparisonResult,
    KneeComparison,
    change_rows,
    change_table,
    knees_change_table,
    write_change_csv,
)
from knee3d.report.repeatability import (
    PairedCases,
    RepeatabilityResult,
    read_repeatability,
    repeatability_rows,
    repeatability_table,
    write_repeatability_csv,
)

FEMUR, AREA = ("femur", WHOLE, "volume"), ("femoral cartilage", "trochlea", "covered_area")


def knee(volume: float, area: float) -> list[Measurement]:
    return [Measurement(*FEMUR, volume), Measurement(*AREA, area)]


@pytest.fixture
def numbers():
    second = [knee(1020, 52), knee(1190, np.nan), knee(905, 54)]
    return pair_measurements([*zip([knee(1000, 50), knee(1200, 60), knee(900, 55)], second, strict=True)])


@pytest.fixture
def found(numbers):
    return {quantity: repeatability_statistics(*pair) for quantity, pair in numbers.items()}


def shown(table) -> str:
    console = Console(width=300, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    console.file.close()
    return console.export_text()


def pages(path) -> list[str]:
    """The streams of a PDF that draw, with text as its glyphs' hex or characters."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", path.read_bytes(), re.DOTALL)
    texts = []
    for stream in streams:
        try:
            text = zlib.decompress(stream)
        except zlib.error:
            continue
        if b" Tf" in text:
            texts.append(text.decode("latin-1"))
    return texts


def test_rows_are_all_there_is_and_files_hold_them(found, tmp_path):
    rows = repeatability_rows(found)
    assert [(row.tissue, row.region, row.measure, row.unit) for row in rows] == [
        ("femur", "whole", "volume", "mm3"),
        ("femoral cartilage", "trochlea", "covered_area", "mm2"),
    ]
    one = found[FEMUR]
    assert (rows[0].sdc, rows[0].sdc_low, rows[0].limits_high) == (one.sdc, one.sdc_interval[0], one.limits[1])
    assert (rows[1].pairs, rows[1].left_out) == (2, 1)
    write_repeatability_csv(rows, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open() as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["rms_cv_percent"]) == pytest.approx(one.rms_cv)
    assert read[1]["left_out"] == "1"


def test_the_error_comes_back_from_json(found, tmp_path):
    single = {FEMUR: found[FEMUR], AREA: repeatability_statistics([1], [2])}
    result_of(single).write(tmp_path / "r.json")
    read = read_repeatability(tmp_path / "r.json")
    smallest = read.smallest_detectable_changes
    assert smallest[FEMUR] == SmallestDetectableChange(found[FEMUR].sdc, *found[FEMUR].sdc_interval, 3)
    assert np.isnan(smallest[AREA].sdc)
    assert read.made_by == {"network x": "abc"}


def result_of(found) -> RepeatabilityResult:
    pairs = (PairedCases("a", "b"),)
    return RepeatabilityResult("0.1.0", pairs, 1, {"line 3": "gone"}, ("few",), {"network x": "abc"},
                               repeatability_rows(found))  # fmt: skip


def check_record(record: Record, tmp_path) -> None:
    """It comes back from its file, and the file is as its schema says."""
    record.write(tmp_path / "record.json")
    text = (tmp_path / "record.json").read_text()
    assert type(record).from_json(text).to_json() == record.to_json()
    assert json.loads(text)[VERSION] == 1
    schema = type(record).json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(text))


def test_results_come_back_from_json_as_their_schemas_say(found, tmp_path):
    check_record(result_of({FEMUR: found[FEMUR], AREA: repeatability_statistics([1], [2])}), tmp_path)
    rows = change_rows([MeasurementChange(FEMUR, 1000, 900), MeasurementChange(AREA, 50, np.nan)],
                       {FEMUR: SmallestDetectableChange(60, 40, 80, 6)})  # fmt: skip
    knee_of = KneeComparison("a", "b", ("a note",), rows)
    check_record(ComparisonResult("0.1.0", True, (knee_of,), {"c": "is at baseline only"}), tmp_path)
    check_record(ComparisonResult("0.1.0", False, (), {}), tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"measures": 3, "made_by": {}}', '{"measures": [{"tissue": "femur"}], "made_by": {}}',
     '{"measures": [{"tissue": "f", "region": "w", "measure": "weight", "unit": "kg"}], "made_by": {}}',
     '{"measures": [], "made_by": []}', '{"version": 1}', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_error_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r"r\.json is no repeatability\.json") as caught:
        read_repeatability(tmp_path / "r.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="knee3d repeatability"):
        read_repeatability(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"measures": 3}, "measures: input should be a valid"),
        ({"made_by": []}, "made_by: input should be"),
        ({"version": 2}, "a later version of knee3d"),
        ({"unit": "kg"}, "measures.0: volume is in mm3, not in 'kg'"),
        ({"measure": "weight"}, "measures.0: unknown measure 'weight'"),
        ({"sdc": "1.5"}, "measures.0.sdc: input should be a valid number"),
        ({"pairs": None}, "measures.0.pairs: input should be a valid integer"),
    ],
)
def test_what_is_wrong_in_a_result_is_named(found, tmp_path, changed, words):
    content = json.loads(result_of(found).to_json())
    inner = content["measures"][0] if next(iter(changed)) in ("unit", "measure", "sdc", "pairs") else content
    inner |= changed
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words) as caught:
        read_repeatability(tmp_path / "r.json")
    assert str(caught.value).startswith(f"{tmp_path / 'r.json'} is no repeatability.json")
    assert "\n" not in str(caught.value)


def test_the_table_says_what_the_pairs_say(found):
    text = shown(repeatability_table(repeatability_rows(found)))
    femur = next(line for line in text.splitlines() if "femur" in line)
    one = found[FEMUR]
    assert f"{one.bias:,.1f}" in femur
    assert f"{one.limits[0]:,.1f} to {one.limits[1]:,.1f}" in femur
    assert f"{one.rms_cv:.2f} %" in femur
    assert f"{one.sdc_interval[0]:,.1f} to {one.sdc_interval[1]:,.1f}" in femur
    assert "2 of 3" in text
    assert "below 0" not in text
    alone = shown(repeatability_table(repeatability_rows({FEMUR: repeatability_statistics([1], [2])})))
    assert next(line for line in alone.splitlines() if "femur" in line).count(" - ") == 4  # limits, SDC twice, ICC
    apart = shown(repeatability_table(repeatability_rows({FEMUR: repeatability_statistics([1, 2, 1.1], [2, 1, 1])})))
    assert re.search(r"-\d\.\d{3} \*", apart)
    assert "* below 0" in apart


def test_plots_are_vectors_with_text_as_text(numbers, found, tmp_path):
    path = tmp_path / "plots.pdf"
    bland_altman_figure(numbers, found, path)
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/Image" not in content.replace(b"/ImageB", b"").replace(b"/ImageC", b"").replace(b"/ImageI", b"")
    assert b"/Type3" not in content
    assert b"/FontFile2" in content
    assert len(pages(path)) == 1
    bland_altman_figure(numbers, found, tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [tmp_path / "again.pdf", path]


def test_many_measures_make_several_pages_and_none_is_refused(tmp_path):
    pair = np.array([10.0, 11, 12]), np.array([10.5, 11, 11])
    many = {("femur", f"part {number}", "volume"): pair for number in range(7)}
    found = {quantity: repeatability_statistics(*one) for quantity, one in many.items()}
    bland_altman_figure(many, found, tmp_path / "many.pdf")
    assert len(pages(tmp_path / "many.pdf")) == 2
    nothing = {FEMUR: (np.array([np.nan]), np.array([1.0]))}
    with pytest.raises(ValueError, match="no pair"):
        bland_altman_figure(nothing, {FEMUR: repeatability_statistics(*nothing[FEMUR])}, tmp_path / "none.pdf")
    assert not (tmp_path / "none.pdf").exists()


def test_lines_and_labels_stand_where_the_numbers_are(numbers, found):
    from matplotlib.figure import Figure

    from knee3d.report.bland_altman_figure import _panel

    axes = Figure().subplots()
    _panel(axes, FEMUR, numbers[FEMUR], found[FEMUR])
    points, *lines = axes.lines
    np.testing.assert_allclose(points.get_xdata(), [1010, 1195, 902.5])
    np.testing.assert_allclose(points.get_ydata(), [20, -10, 5])
    one = found[FEMUR]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([one.bias, *one.limits])
    assert [text.get_position()[1] for text in axes.texts] == pytest.approx([one.bias, *one.limits])
    assert axes.get_xlabel() == "mean of both (mm\N{SUPERSCRIPT THREE})"
    assert "mm\N{SUPERSCRIPT THREE}" in axes.get_ylabel()
    assert "n = 3" in axes.get_title()


@pytest.mark.parametrize("second", [[11, 23], [10, 20], [12, np.nan]])
def test_points_fill_the_plot_whatever_few_pairs_say_of_their_limits(second):
    from matplotlib.figure import Figure

    from knee3d.report.bland_altman_figure import _panel

    pair, axes = (np.array([10.0, 20]), np.array(second, dtype=float)), Figure().subplots()
    _panel(axes, FEMUR, pair, repeatability_statistics(*pair))
    low, high = axes.get_ylim()
    known = np.isfinite(pair[1])
    assert (low < (pair[1] - pair[0])[known]).all()
    assert ((pair[1] - pair[0])[known] < high).all()
    assert high - low < 20


def test_changes_in_words_and_numbers(tmp_path):
    found = [MeasurementChange(FEMUR, 1000, 900), MeasurementChange(AREA, 50, np.nan)]
    rows = change_rows(found, {FEMUR: SmallestDetectableChange(60, 40, 80, 6)})
    assert (rows[0].change, rows[0].change_percent, rows[0].verdict) == (-100, -10, "beyond error")
    assert (rows[0].smallest_detectable_change, rows[0].pairs) == (60, 6)
    assert rows[1].verdict == "cannot tell"
    text = shown(change_table("a [b]", rows))
    assert "a [b]" in text
    assert "beyond error" in text
    assert "-10.00" in text
    assert "1 of 1 changes are larger than their SDC" in text
    assert "Narrowly" not in text
    narrow = shown(
        change_table(
            "a",
            change_rows([MeasurementChange(FEMUR, 1000, 950)], {FEMUR: SmallestDetectableChange(60, 40, 80, 6)}),
        )
    )
    assert "0 of 1 changes" in narrow
    assert "Narrowly: the change lies within the 95 % interval of the SDC" in narrow
    without = shown(change_table("a", change_rows(found)))
    assert "SDC" not in without
    assert "error" not in without
    write_change_csv([KneeComparison("a", "b", (), rows)], tmp_path / "c.csv")
    with (tmp_path / "c.csv").open() as file:
        read = list(csv.DictReader(file))
    assert (read[0]["baseline_case"], read[0]["followup_case"], read[0]["change"]) == ("a", "b", "-100")
    assert read[1]["followup"] == ""


@pytest.mark.parametrize("table", [lambda rows: change_table("a", rows), lambda rows: knees_change_table([rows])])
def test_what_no_visit_has_is_left_out_and_counted(table):
    rows = change_rows([MeasurementChange(FEMUR, 1000, 900), MeasurementChange(AREA, np.nan, np.nan)])
    text = shown(table(rows))
    assert "femur" in text
    assert text.count("area") == 0
    assert "Left out: 1 measures that no visit has." in text
    assert "Left out" not in shown(
        table(change_rows([MeasurementChange(FEMUR, 1000, 900), MeasurementChange(AREA, 50, np.nan)]))
    )


def test_many_knees_are_counted():
    smallest = {FEMUR: SmallestDetectableChange(60, 40, 80, 6)}
    knees = [change_rows([MeasurementChange(FEMUR, 1000, later)], smallest) for later in (900, 930, 1010, 1100, np.nan)]
    text = shown(knees_change_table(knees))
    line = next(line for line in text.splitlines() if "femur" in line)
    cells = [cell.strip() for cell in re.split("[│|]", line)]
    assert cells[4:6] == ["4", "1,000.0"]
    assert cells[6] == f"{np.mean([-100, -70, 10, 100]):,.1f}"
    assert cells[9:12] == ["2", "1", "1"]
    assert "3 of 4 changes are larger than their SDC" in text
