"""Compare the settings in records that different versions of knee3d wrote.

A record keeps every setting by name. A later version of knee3d may know settings that an older record lacks. Such a
setting counts as what the older version did: the default of its dataclass field, or the field's
`metadata["when_missing"]` where the default of the new setting changes what was done before.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import JsonValue

from knee3d.records import Settings

WHEN_MISSING = "when_missing"
"""Key in the metadata of a dataclass field: the value of the setting in records that were written before it existed."""


def old_defaults(settings: Settings, *options: Any) -> dict[str, JsonValue]:
    """The values that hold for settings which an old record does not have.

    Args:
        settings: The default of every setting, ready for JSON.
        options: The dataclasses whose fields the settings are; their metadata may name a value `WHEN_MISSING`.

    Returns:
        Name of each setting to the value that stands for what was done before the setting existed.
    """
    known = [field for one in options for field in fields(one) if WHEN_MISSING in field.metadata]
    return {**settings, **{field.name: field.metadata[WHEN_MISSING] for field in known}}


def complete_settings(record: Settings, lacking: Settings) -> dict[str, JsonValue]:
    """The settings of a record, and for each that it lacks the value that stands for what was done then.

    Args:
        record: Settings as they were recorded; settings may lie within settings.
        lacking: Values of those that may be missing, see `old_defaults`.

    Returns:
        All settings of both, those of the record first.
    """
    found = {**record, **{name: value for name, value in lacking.items() if name not in record}}
    for name, value in lacking.items():
        known = found[name]
        if isinstance(value, dict) and isinstance(known, dict):
            found[name] = complete_settings(known, value)
    return found


def changed_settings(record: Settings, wanted: Settings, lacking: Settings) -> list[str]:
    """Names of the settings in which a record is not what is wanted.

    Args:
        record: Settings as they were recorded.
        wanted: Settings of now, ready for JSON.
        lacking: Values of those that the record may lack, see `old_defaults`.

    Returns:
        Names, in the order of `wanted`, and then of the settings that only the record has.
    """
    there = complete_settings(record, lacking)
    return [name for name in {**wanted, **there} if name not in wanted or wanted[name] != there.get(name)]
