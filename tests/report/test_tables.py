import csv
import json

import numpy as np
import pytest

from knee3d.labels.label_scheme import SCHEMES
from knee3d.report.tables import write_csv, write_json, write_volumes_csv


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_json_takes_numpy_and_writes_nan_as_null(tmp_path):
    write_json({"a": np.array([1.5, np.nan]), "b": np.int64(3), "c": (float("inf"), True)}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1.5, None], "b": 3, "c": [None, True]}


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


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    write_json({"good": 1}, path)
    with pytest.raises(TypeError):
        write_json({"bad": object()}, path)
    with pytest.raises(UnicodeEncodeError):
        write_json({"bad": "\ud800"}, path)
    assert json.loads(path.read_text()) == {"good": 1}
    assert list(tmp_path.iterdir()) == [path]
