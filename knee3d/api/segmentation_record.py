"""segmentation.json: the record of what the results of a knee were made of. It decides what is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knee3d.api.segment_config import SegmentConfig
from knee3d.dataset.input_case import InputCase, content_fingerprint, file_digest, stat_fingerprint
from knee3d.geometry.orientation import Side
from knee3d.io.image_source import ImageSource, ReadOptions
from knee3d.io.label_files import LABEL_FORMATS
from knee3d.labels.scheme_files import scheme_from_json
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import check_version

RECORD = "segmentation.json"
FORM = 1
"""Version of the form of segmentation.json."""
SEEN = "patient_seen"
"""In the record: "train" or "val" where the networks know this patient, else empty; only a table says who it is."""
REPORT = "report"
"""Folder in that of a knee which `knee3d report` fills: no part of the segmentation."""
SOURCE = ".source"
"""File in the folder of a knee with the `stat_fingerprint` of its image. An unchanged image is not read again."""


def input_record(content: str, source: ImageSource, config: SegmentConfig, fingerprint: str) -> dict[str, Any]:
    """All that the labels of a knee depend on, ready for its record.

    Args:
        content: `content_fingerprint` of the image.
        source: What the user says of it.
        config: How it is segmented.
        fingerprint: Of the networks and their fusion, `models.models_fingerprint`.

    Returns:
        Keys of the record: "input", "side_given", "selection", "models_fingerprint" and "settings".
    """
    return {
        "input": content,
        "side_given": source.side.value,
        "selection": source.choice.settings,
        "models_fingerprint": fingerprint,
        "settings": config.to_json(),
    }


def _differences(
    record: Mapping[str, Any], origin: Mapping[str, Any], config: SegmentConfig, choice: ReadOptions
) -> list[str]:
    """What a finished knee was made of otherwise than it would be now, in words; see `records` on older versions."""
    if record["input"] != origin["input"]:
        return ["another image"]
    found = ["another side"] if record["side_given"] != origin["side_given"] else []
    found += ["other models"] if record["models_fingerprint"] != origin["models_fingerprint"] else []
    default = type(config)()
    settings = changed_settings(record["settings"], origin["settings"], old_defaults(default.to_json(), default))
    nothing = type(choice)()
    settings += changed_settings(record["selection"], origin["selection"], old_defaults(nothing.settings, nothing))
    return [*found, *([f"other settings ({', '.join(settings)})"] if settings else [])]


def file_digests(folder: Path) -> dict[str, str]:
    """Names of the files below a folder, but the record and reports, to a hash of what they hold.

    A picture has none: VTK now and then shades a few pixels by one grey level differently.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    names = [name for name in names if name.parts[0] not in (REPORT, SOURCE) and name.parts[0][:9] != ".partial-"]
    return {str(name): "" if name.suffix == ".png" else file_digest(folder / name) for name in names}


def find_finished_record(entry: InputCase, config: SegmentConfig, models: str, out: Path) -> dict[str, Any] | None:
    """The record of a knee that was made of the same, its files still what they were; None where there is none.

    Args:
        entry: The knee.
        config: How it is segmented.
        models: `models.models_fingerprint`.
        out: Where its folder would lie.

    Raises:
        ValueError: It was made of something else, a file of it is missing or changed, or the folder is none of ours.
        OSError: The knee cannot be read.
    """
    if not entry.source.path.exists():
        raise FileNotFoundError(f"{entry.source.path} does not exist")
    folder = out / entry.case
    record = load_record(folder)
    if record is None:
        return None
    origin = input_record(cached_content_fingerprint(entry.source.path, folder, record), entry.source, config, models)
    differ = _differences(record, origin, config, entry.source.choice)
    if differ:
        raise ValueError(f"{folder} was made of {' and '.join(differ)}; give --overwrite, or another --out")
    check_results_unmodified(folder, record, "give --overwrite to make it again, or another --out")
    return record


def cached_content_fingerprint(image: Path, folder: Path, record: Mapping[str, Any]) -> str:
    """The `content_fingerprint` of an image. It is read again only if its files have other places, sizes or times.

    Args:
        image: Of the knee.
        folder: Of the knee's results.
        record: Its segmentation.json.

    Raises:
        OSError: The image cannot be read.
    """
    source = folder / SOURCE
    if source.is_file() and source.read_text() == stat_fingerprint(image):
        return str(record["input"])
    return content_fingerprint(image)


def check_results_unmodified(folder: Path, record: Mapping[str, Any], way_out: str) -> None:
    """Refuse results that are not what was written.

    Args:
        folder: Of the knee.
        record: Its segmentation.json.
        way_out: What the user may do.

    Raises:
        ValueError: A file is missing, or was changed.
    """
    there = file_digests(folder)
    changed = sorted(name for name, one in record["files"].items() if there.get(name) != one)
    if changed:
        word = "was changed" if changed[0] in there else "is missing"
        raise ValueError(f"{folder / changed[0]} {word} since; {way_out}")


def refuse_foreign_folder(folder: Path) -> None:
    """Never replace what someone else put there, least of all the images themselves.

    Raises:
        ValueError: The folder is there and was not made here, or holds other files, too.
    """
    record = load_record(folder)
    others = sorted(set(file_digests(folder)) - set(record["files"])) if record else []
    if others:
        raise ValueError(f"{folder} holds {others[0]}, which is not knee3d's; move it away, or give another --out")


def load_record(folder: Path) -> dict[str, Any] | None:
    """What a finished knee's segmentation.json holds; None where there is no such folder.

    Raises:
        ValueError: The folder is not one of ours, or its record is damaged.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder} is there and was not made by knee3d segment; give another --out")
    try:
        record = json.loads((folder / RECORD).read_text())
        check_version(record, FORM)
        whole, why = _is_whole(record), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        whole, why = False, f" ({error})"
    if not whole:
        raise ValueError(
            f"{folder / RECORD} is damaged, or not knee3d's{why}; remove {folder} if it is, or give another --out"
        )
    return record


def _is_whole(record: Mapping[str, Any]) -> bool:
    texts = all(isinstance(record[key], str) for key in ("knee3d", "case", "input", "engine", "whole_because"))
    texts = texts and all(isinstance(record[key], str) for key in ("models_fingerprint", "side_given"))
    texts = texts and isinstance(record.get("unchecked", ""), str)
    flags = isinstance(record["flags"], list) and all(isinstance(flag, str) for flag in record["flags"])
    files = all(isinstance(one, str) for one in record["files"].values())
    volumes = all(isinstance(mm3, float) and math.isfinite(mm3) for mm3 in record["volumes_mm3"].values())
    scheme_from_json(record["scheme"])
    known = record["side"] in list(Side) and record["settings"]["label_format"] in LABEL_FORMATS
    mappings = all(isinstance(record[key], dict) for key in ("models", "weights", "settings", "selection"))
    sizes = all(len(record[key]) == 3 and all(size > 0 for size in record[key]) for key in ("shape", "spacing_mm"))
    return texts and flags and files and volumes and known and mappings and sizes


def check_output_folder(out: Path, record: str, others: Sequence[str]) -> None:
    """Refuse to replace files that were not written by the command whose record lies beside them.

    Args:
        out: The folder that is to be filled.
        record: Name of the JSON file that the command writes before all others.
        others: Names of these.

    Raises:
        ValueError: One of the files is there, and the record is not there or not ours.
    """
    there = [name for name in (record, *others) if (out / name).exists()]
    if there and not _is_ours(out / record):
        raise ValueError(f"{out / there[0]} is there and is not knee3d's; move it away, or give another --out")


def _is_ours(record: Path) -> bool:
    """Whether it has the key, with the version, that the JSON file of every result has."""
    try:
        return "knee3d" in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
