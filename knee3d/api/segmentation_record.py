"""segmentation.json: the record of what the results of a knee were made of. It decides which results are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat, PositiveInt

from knee3d.api.segment_config import SegmentConfig
from knee3d.choices import LABEL_FORMATS
from knee3d.dataset.case_collection import Split
from knee3d.dataset.input_case import InputCase, content_fingerprint, file_digest, stat_fingerprint
from knee3d.geometry.orientation import Side
from knee3d.io.image_source import ImageSource
from knee3d.io.label_files import LABEL_FILES
from knee3d.labels.scheme_files import SchemeField
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import VERSION, Record, Settings, parse_json
from knee3d.report.quality_record import QUALITY

RECORD = "segmentation.json"
REPORT = "report"
"""Folder in that of a knee which `knee3d report` fills: no part of the segmentation."""
SOURCE = ".source"
"""File in the folder of a knee with the `stat_fingerprint` of its image. An unchanged image is not read again."""
Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A distance in mm above 0."""


@dataclass(frozen=True, kw_only=True)
class SegmentationRecord(Record):
    """The content of segmentation.json: what the labels of a knee are, and what they were made of.

    Attributes:
        knee3d: The version of knee3d that made the labels.
        case: The name of the knee.
        side: The side of the knee; empty where it is not known.
        patient_seen: "train" or "val" where the networks know this patient; empty where they do not, or where no table
            names the patient.
        scheme: The meaning of the labels: the name of a built-in scheme, or the whole of a user's.
        image_fingerprint: The SHA-256 of what the files of the image hold.
        side_given: The side that the user gave; empty where the user gave none.
        read_options: How the image was read, see `ReadOptions.settings`.
        models_fingerprint: The `models_fingerprint` of the networks and their fusion.
        settings: How the labels were made, see `SegmentConfig.settings`.
        network_fingerprints: Name of each network to a fingerprint of its weights.
        fusion_weights: Name of each view to its fusion weight, or to one weight for each class.
        computed_by: What computed the networks, in words, such as "tensorflow, float32".
        computed_whole_because: Why the whole knee was computed though `fast` was set; empty otherwise.
        shape: Voxels along the axes of the image.
        spacing_mm: Distances in mm between voxels along the axes of the image.
        volumes_mm3: Name of each tissue to its volume in mm3.
        flags: Why the labels may be wrong, in words; empty where nothing looks wrong.
        unchecked: The rules of quality control that could not be checked, in words; empty where all were checked.
        files: Name of each file of the results to the SHA-256 of its content; empty for a picture.

    Raises:
        ValueError: The settings name no known label format.
    """

    knee3d: str
    case: str
    side: Side
    patient_seen: Split = Split.NONE
    scheme: SchemeField
    image_fingerprint: str
    side_given: Side
    read_options: Settings
    models_fingerprint: str
    settings: Settings
    network_fingerprints: Mapping[str, str]
    fusion_weights: Mapping[str, float | tuple[float, ...]]
    computed_by: str
    computed_whole_because: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    volumes_mm3: Mapping[str, FiniteFloat]
    flags: tuple[str, ...]
    unchecked: str = ""
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.settings.get("label_format") not in LABEL_FORMATS:
            known = ", ".join(LABEL_FORMATS)
            raise ValueError(f"settings.label_format is {self.settings.get('label_format')!r}; there are: {known}")
        missing = {LABEL_FILES[self.label_format], QUALITY} - set(self.files)
        if missing:
            raise ValueError(f"files: it lacks {' and '.join(sorted(missing))}")

    @property
    def label_format(self) -> str:
        """The format of the label file, a key of `label_files.LABEL_FILES`."""
        return str(self.settings["label_format"])


def _differences(
    record: SegmentationRecord, image: str, source: ImageSource, config: SegmentConfig, models: str
) -> list[str]:
    """List the ways in which a finished knee was made otherwise than it would be made now, in words.

    Args:
        record: The record of the finished knee. An older version of knee3d may have written it.
        image: The `content_fingerprint` of the image as it is now.
        source: The image with the side and the options that the user gives now.
        config: How the knee would be segmented now.
        models: The `models_fingerprint` of the networks as they are now.
    """
    if record.image_fingerprint != image:
        return ["another image"]
    found = ["another side"] if record.side_given != source.side else []
    found += ["other models"] if record.models_fingerprint != models else []
    default, nothing = type(config)(), type(source.choice)()
    settings = changed_settings(record.settings, config.settings, old_defaults(default.settings, default))
    lacking = old_defaults(nothing.settings, nothing)
    settings += changed_settings(record.read_options, source.choice.settings, lacking)
    return [*found, *([f"other settings ({', '.join(settings)})"] if settings else [])]


def file_digests(folder: Path) -> dict[str, str]:
    """Names of the files below a folder, but the record and reports, to a hash of what they hold.

    A picture has none: VTK now and then shades a few pixels by one grey level differently.
    """
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    names = [name for name in names if name.parts[0] not in (REPORT, SOURCE) and name.parts[0][:9] != ".partial-"]
    return {str(name): "" if name.suffix == ".png" else file_digest(folder / name) for name in names}


def find_finished_record(entry: InputCase, config: SegmentConfig, models: str, out: Path) -> SegmentationRecord | None:
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
    image = cached_content_fingerprint(entry.source.path, folder, record)
    differ = _differences(record, image, entry.source, config, models)
    if differ:
        raise ValueError(f"{folder} was made of {' and '.join(differ)}; give --overwrite, or another --out")
    check_results_unmodified(folder, record, "give --overwrite to make it again, or another --out")
    return record


def cached_content_fingerprint(image: Path, folder: Path, record: SegmentationRecord) -> str:
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
        return record.image_fingerprint
    return content_fingerprint(image)


def check_results_unmodified(folder: Path, record: SegmentationRecord, way_out: str) -> None:
    """Refuse results that are not what was written.

    Args:
        folder: Of the knee.
        record: Its segmentation.json.
        way_out: What the user may do.

    Raises:
        ValueError: A file is missing, or was changed.
    """
    there = file_digests(folder)
    changed = sorted(name for name, one in record.files.items() if there.get(name) != one)
    if changed:
        word = "was changed" if changed[0] in there else "is missing"
        raise ValueError(f"{folder / changed[0]} {word} since; {way_out}")


def refuse_foreign_folder(folder: Path) -> None:
    """Never replace what someone else put there, least of all the images themselves.

    Raises:
        ValueError: The folder is there and was not made here, or holds other files, too.
    """
    record = load_record(folder)
    others = sorted(set(file_digests(folder)) - set(record.files)) if record else []
    if others:
        raise ValueError(f"{folder} holds {others[0]}, which is not knee3d's; move it away, or give another --out")


def load_record(folder: Path) -> SegmentationRecord | None:
    """Read segmentation.json of a finished knee.

    Args:
        folder: The folder of the knee's results.

    Returns:
        The record; None where there is no such folder.

    Raises:
        ValueError: The folder is not one of ours, or its record is damaged. The message names the file and the fields.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} is there and was not made by knee3d segment; give another --out")
    try:
        return SegmentationRecord.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, or not knee3d's ({error}); remove {folder} if it is damaged and segment the knee "
            "again, or give another folder"
        ) from error


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
        content = parse_json(record.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("knee3d"), str) and VERSION in content
