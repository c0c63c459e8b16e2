"""Compare the settings of JSON records across versions of knee3d.

A record keeps every setting, by name, and the version of its own form. A later version of knee3d may know settings that
an older record lacks. Such a setting counts as what the older version did: the default of its dataclass field, or the
field's `metadata["before"]` where the default of the new option changes what was done before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

VERSION = "version"
"""Key of a record for the version of its own form, a whole number that grows when the form changes."""
BEFORE = "before"
"""Key in the metadata of a dataclass field: the value that stands for what was done before the option existed."""


def settings_before(settings: Mapping[str, Any], *options: Any) -> dict[str, Any]:
    """What a record stands for that lacks all settings.

    Args:
        settings: The default of every setting, ready for JSON.
        options: The dataclasses whose fields the settings are; their metadata may name a value `BEFORE`.

    Returns:
        Name of each setting to the value that stands for what was done before the setting existed.
    """
    known = [field for one in options for field in fields(one) if BEFORE in field.metadata]
    return {**settings, **{field.name: field.metadata[BEFORE] for field in known}}


def complete_settings(record: Mapping[str, Any], lacking: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a record, and for each that it lacks the value that stands for what was done then.

    Args:
        record: Settings as they were recorded; settings may lie within settings.
        lacking: Values of those that may be missing, see `settings_before`.

    Returns:
        All settings of both, those of the record first.
    """
    found = {**record, **{name: value for name, value in lacking.items() if name not in record}}
    for name, value in lacking.items():
        if isinstance(value, Mapping) and isinstance(found[name], Mapping):
            found[name] = complete_settings(found[name], value)
    return found


def changed_settings(record: Mapping[str, Any], wanted: Mapping[str, Any], lacking: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which a record is not what is wanted.

    Args:
        record: Settings as they were recorded.
        wanted: Settings of now, ready for JSON.
        lacking: Values of those that the record may lack, see `settings_before`.

    Returns:
        Names, in the order of `wanted`, and then of the settings that only the record has.
    """
    there = complete_settings(record, lacking)
    return [name for name in {**wanted, **there} if name not in wanted or wanted[name] != there.get(name)]


def check_version(record: Any, newest: int) -> None:
    """Refuse a record that this version of knee3d cannot know.

    Args:
        record: What was read from JSON.
        newest: The form that is known.

    Raises:
        ValueError: The record has no version, or a later version of knee3d wrote it.
    """
    version = record.get(VERSION) if isinstance(record, Mapping) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError("it has no version")
    if version > newest:
        raise ValueError(f"a later version of knee3d wrote it (form {version}, known up to {newest}): upgrade knee3d")
