"""measures.csv and measures.json come back as they were written, and damaged ones are refused with line or field."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from knee3d.geometry.orientation import Side
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.knee_measurements import KneeMeasurements
from knee3d.morphometry.measurement import UNITS, WHOLE, Measurement
from knee3d.report.measures_files import (
    COLUMNS,
    MEASURES_JSON,
    MeasureRow,
    MeasuresRecord,
    measures_record,
    read_measures_csv,
    read_measures_json,
    write_measures_csv,
)

HEADER = ",".join(COLUMNS)
ROW = "knee_a,femoral cartilage,whole,volume,mm3,123.5"


def written(tmp_path, *lines, name="measures.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_measures_come_back_digit_for_digit(tmp_path):
    knees = {
        "knee_b": [
            Measurement("femur", WHOLE, "volume", 1 / 3),
            Measurement("femur", 'a, "b"', "covered_area", 1e-300),
        ],
        "knee_a": [Measurement("femur", WHOLE, name, number) for number, name in enumerate(UNITS)],
    }
    path = tmp_path / "new" / "measures.csv"
    write_measures_csv(path, knees)
    assert read_measures_csv(path) == knees
    assert [*read_measures_csv(path)] == ["knee_b", "knee_a"]
    assert [*path.parent.iterdir()] == [path]


def test_what_is_not_known_is_empty(tmp_path):
    path = tmp_path / "measures.csv"
    write_measures_csv(path, {"k": [Measurement("femur", WHOLE, "volume", math.nan)]})
    assert path.read_text().splitlines() == [HEADER, "k,femur,whole,volume,mm3,"]
    ((one,),) = read_measures_csv(path).values()
    assert math.isnan(one.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_measures_csv(path, {"k": [Measurement("femur", WHOLE, "volume", value)]})
    assert read_measures_csv(path)["k"][0].value == value


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "measures.csv"
    path.write_bytes(
        b"\xef\xbb\xbfvalue,unit,measure,region,tissue,case,note\r\n2,mm,thickness_mean,whole,femur,k,x\r\n"
    )
    assert read_measures_csv(path) == {"k": [Measurement("femur", WHOLE, "thickness_mean", 2)]}


def test_a_table_without_rows_has_no_knee(tmp_path):
    assert read_measures_csv(written(tmp_path, HEADER)) == {}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((HEADER, ROW, ROW), "line 3: knee_a femoral cartilage whole volume is there already"),
        ((HEADER, ROW, ROW.replace("volume", "weight")), "line 3: unknown measure 'weight'; there are: volume"),
        ((HEADER, ROW.replace("mm3", "cm3")), "line 2: volume is in mm3, not in 'cm3'"),
        ((HEADER, ROW.replace("123.5", "many")), "line 2: 'many' is not a number"),
        ((HEADER, ROW.replace("123.5", "nan")), "line 2: 'nan' is not a number"),
        ((HEADER, ROW.replace("123.5", "inf")), "line 2: 'inf' is not a number"),
        ((HEADER, ROW.replace("123.5", "1_0")), "line 2: '1_0' is not a number"),
        ((HEADER, ROW.replace("knee_a", "")), "line 2: the case is empty"),
        ((HEADER, ROW.replace("whole", "")), "line 2: the region is empty"),
        ((HEADER, ROW + ",5"), "line 2: it has more or fewer cells"),
        ((HEADER, "knee_a,femur"), "line 2: it has more or fewer cells"),
        (("case,tissue,volume_mm3", "k,femur,3"), "lacks the columns region, measure, unit, value"),
        (("",), "is no table of measures"),
        ((HEADER, 'knee_a,"femur'), "is not a CSV file"),
    ],
)
def test_what_is_no_table_of_measures_is_refused(tmp_path, lines, words):
    path = written(tmp_path, *lines)
    with pytest.raises(ValueError, match=r"measures\.csv") as refused:
        read_measures_csv(path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "image.csv").write_bytes(b"\x93NUMPY\x00\xff")
    with pytest.raises(ValueError, match=r"image\.csv is not a CSV file"):
        read_measures_csv(tmp_path / "image.csv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_measures_csv(tmp_path / "none.csv")


RECORD = MeasuresRecord(
    knee3d="0.1.0",
    case="k",
    side=Side.LEFT,
    scheme="compartments",
    interfaces={"femur": "bone", "tibia": "inferred"},
    subregion_axes="knee",
    notes=("a note",),
    measures=(MeasureRow("femur", WHOLE, "volume", "mm3", 1 / 3),),
)


def changed(**content: object) -> str:
    return json.dumps(json.loads(RECORD.to_json()) | content)


def changed_row(**content: object) -> str:
    (row,) = json.loads(RECORD.to_json())["measures"]
    return changed(measures=[row | content])


def test_the_json_comes_back_and_is_as_its_schema_says(tmp_path):
    RECORD.write(tmp_path / MEASURES_JSON)
    assert read_measures_json(tmp_path / MEASURES_JSON) == RECORD
    schema = MeasuresRecord.json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(RECORD.to_json()))
    wrong_rows = changed_row(unit="cm"), changed_row(measure="weight"), changed_row(tissue="")
    wrong_fields = changed(side="right"), changed(subregion_axes="scanner"), changed(interfaces={"femur": "guessed"})
    for wrong in (*wrong_rows, *wrong_fields, changed(version=2)):
        assert not Draft202012Validator(schema).is_valid(json.loads(wrong)), wrong


def test_a_measure_that_is_not_known_is_null_in_the_json():
    found = KneeMeasurements((Measurement("femur", WHOLE, "thickness_mean", math.nan),), {}, None, ())
    text = measures_record("k", Side.RIGHT, SCHEMES["compartments"], found).to_json()
    assert json.loads(text)["measures"][0]["value"] is None
    assert json.loads(text)["subregion_axes"] is None
    assert math.isnan(MeasuresRecord.from_json(text).measures[0].value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed_row(unit="cm"), "measures.0: volume is in mm3, not in 'cm'"),
        (changed_row(measure="weight"), "measures.0: there is no measure 'weight'"),
        (changed_row(value="many"), "measures.0.value: "),
        (changed(side="right"), "side: "),
        (changed(subregion_axes="scanner"), "subregion_axes: "),
        (changed(interfaces={"femur": "guessed"}), "interfaces.femur: "),
        ("{", "Expecting"),
    ],
)
def test_a_damaged_json_is_refused_in_one_line_with_file_and_field(tmp_path, text, words):
    (tmp_path / MEASURES_JSON).write_text(text)
    with pytest.raises(ValueError, match=r"measures\.json is damaged") as refused:
        read_measures_json(tmp_path / MEASURES_JSON)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
