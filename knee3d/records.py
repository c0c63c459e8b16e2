"""Record: the base of frozen dataclasses that are kept as JSON files, with a version and a JSON schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, JsonValue, TypeAdapter, ValidationError, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from knee3d.atomic import whole_file

VERSION = "version"
"""The key of a record for the version of its form."""
MOST_ERRORS = 3
"""Errors of one record that a message names."""

Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""A float that may be unknown: NaN in Python, null in JSON."""
Settings = Mapping[str, JsonValue]
"""Settings by name, as a record keeps them: what JSON can hold, and no Python objects."""


class Record:
    """The base of frozen dataclasses that are kept as JSON.

    The JSON has all fields of the dataclass and the version of its form. Later versions of knee3d read what earlier
    ones wrote: a field that is added has a default, and `FORM` grows only when old records mean something else.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Scan(Record):
        ...     name: str
        ...     thickness_mm: Number = math.nan
        >>> print(Scan("knee").to_json())
        {
          "version": 1,
          "name": "knee",
          "thickness_mm": null
        }
        >>> Scan.from_json('{"version": 1, "name": "knee", "thickness_mm": 2}')
        Scan(name='knee', thickness_mm=2.0)
    """

    FORM: ClassVar[int] = 1
    """The version of the form: it grows when a field changes its meaning, and not when one is added."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the JSON of a record.

        Args:
            text: What `to_json` gave, in UTF-8 where it is bytes. Keys that the dataclass does not have are ignored.

        Returns:
            The record. Each value is of the type of its field.

        Raises:
            ValueError: The text is no JSON, a later version of knee3d wrote it, a field is missing, or a value is of
                another type or not possible. The message names the fields, in one line.
        """
        try:
            check_version(parse_json(text), cls.FORM)
            found: Self = cls._adapter().validate_json(text, strict=True)
        except ValidationError as error:
            raise ValueError(_in_one_line(error)) from error
        except (TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"a value is of another type than it must be ({error})") from error
        return found

    def to_json(self) -> str:
        """The record as JSON, indented; floats that are NaN or infinite become null.

        A name of a file that is not UTF-8 is written as Python's `os.fsdecode` and `ascii` write it.
        """
        content = {VERSION: self.FORM, **_with_null(self._adapter().dump_python(self, mode="json"))}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        return text if _is_utf8(text) else json.dumps(content, indent=2)

    def write(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        with whole_file(path) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of what `to_json` writes."""
        found = cls._adapter().json_schema(mode="serialization", schema_generator=_SchemaWithNull)
        version = {"description": "The version of the form of this file.", "type": "integer", "const": cls.FORM}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **found,
            "properties": {VERSION: version, **found["properties"]},
            "required": [VERSION, *found.get("required", [])],
        }

    @classmethod
    @cache
    def _adapter(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)


class _SchemaWithNull(GenerateJsonSchema):
    """Defaults that are NaN are null, as JSON has no NaN."""

    def encode_default(self, dft: Any) -> Any:
        found = super().encode_default(dft)
        return None if isinstance(found, float) and math.isnan(found) else found


class LaterVersionError(ValueError):
    """A later version of knee3d wrote a record: it is to be upgraded, and nothing is to be made again."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, and refuse what the standard does not allow or does not define.

    Args:
        text: In UTF-8 where it is bytes.

    Raises:
        ValueError: It is no JSON, a key stands twice in one object, a number is NaN or too large, or it is nested too
            deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return float(text)


def check_version(content: object, newest: int) -> None:
    """Refuse a record that this version of knee3d cannot know.

    Args:
        content: What was read from JSON.
        newest: The newest form that is known.

    Raises:
        ValueError: The record has no version.
        LaterVersionError: A later version of knee3d wrote it.
    """
    version = content.get(VERSION) if isinstance(content, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError("it has no version")
    if version > newest:
        raise LaterVersionError(
            f"a later version of knee3d wrote it (form {version}, known up to {newest}): upgrade knee3d"
        )


def _with_null(content: Any) -> Any:
    """What can be JSON, with None for floats that are NaN or infinite."""
    if isinstance(content, dict):
        return {key: _with_null(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _in_one_line(error: ValidationError) -> str:
    """The first errors of a record: the place of each and what is wrong there."""
    found = [f"{_place(one['loc'])}: {_words(one['msg'])}" for one in error.errors(include_url=False)]
    more = len(found) - MOST_ERRORS
    return "; ".join(found[:MOST_ERRORS]) + (f"; and {more} more" if more > 0 else "")


def _place(parts: Sequence[int | str]) -> str:
    return ".".join(map(str, parts)) or "the record"


def _words(message: str) -> str:
    """A message of pydantic as the end of a sentence."""
    words = " ".join(message.removeprefix("Value error, ").split())
    return words[:1].lower() + words[1:]
