"""Records come back from JSON as they were, and what is damaged is refused with the names of the fields."""

import json
import math
import os
from dataclasses import dataclass, field, replace

import pytest
from jsonschema import Draft202012Validator

from knee3d.records import VERSION, Number, Record, Settings, check_version


@dataclass(frozen=True)
class Part:
    size: float

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("the size is below 0")


@dataclass(frozen=True)
class Whole(Record):
    """A record.

    Attributes:
        name: Of it.
        part: In it.
        number: Perhaps unknown.
        settings: By name.
    """

    name: str
    part: Part
    number: Number = math.nan
    settings: Settings = field(default_factory=dict)


WHOLE = Whole("knee", Part(2.0), 1.5, {"a": [1, {"b": None}]})


def changed(**content: object) -> str:
    return json.dumps(json.loads(WHOLE.to_json()) | content)


def test_a_record_comes_back_from_json():
    assert Whole.from_json(WHOLE.to_json()) == WHOLE


def test_what_is_not_known_is_null():
    text = Whole("knee", Part(2.0), math.inf).to_json()
    assert json.loads(text)["number"] is None
    assert math.isnan(Whole.from_json(text).number)


@pytest.mark.parametrize("name", ["Knie \u00e4", os.fsdecode(b"knee \xff")])
def test_names_of_any_file_can_be_written(name):
    text = replace(WHOLE, name=name).to_json()
    assert json.loads(text)["name"] == name
    assert text.encode()


def test_a_later_version_may_add_fields_of_which_this_one_takes_no_notice():
    assert Whole.from_json(changed(new=3)) == WHOLE


def test_a_field_with_a_default_may_be_missing():
    assert Whole.from_json('{"version": 1, "name": "knee", "part": {"size": 1}}').settings == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed(name=3), "name: input should be a valid string"),
        (changed(part={"size": -1}), "part: the size is below 0"),
        (changed(part={"size": "2"}), "part.size: input should be a valid number"),
        (changed(part={}), "part.size: field required"),
        (changed(settings=3), "settings: input should be an object"),
        (changed(version=2), "a later version of knee3d"),
        (changed(version=True), "no version"),
        ("[]", "no version"),
        ("{", "Expecting"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        Whole.from_json(text)
    assert "\n" not in str(caught.value)


def test_of_many_errors_the_first_are_named():
    with pytest.raises(ValueError, match="and 1 more$"):
        Whole.from_json(changed(name=1, part=1, number="a", settings=1))


@pytest.mark.parametrize(
    ("version", "known"), [(1, True), (2, True), (3, False), (0, False), (None, False), ("1", False)]
)
def test_a_record_of_a_later_version_is_refused(version, known):
    if known:
        check_version({VERSION: version}, 2)
    else:
        with pytest.raises(ValueError, match="version"):
            check_version({VERSION: version}, 2)


def test_what_is_written_is_as_the_schema_says():
    schema = Draft202012Validator(Whole.json_schema())
    schema.validate(json.loads(WHOLE.to_json()))
    json.dumps(Whole.json_schema(), allow_nan=False)
    assert not schema.is_valid(json.loads(changed(version=2)))
    assert not schema.is_valid(json.loads(changed(name=2)))


def test_a_file_appears_whole(tmp_path):
    WHOLE.write(tmp_path / "folder" / "record.json")
    assert Whole.from_json((tmp_path / "folder" / "record.json").read_bytes()) == WHOLE
