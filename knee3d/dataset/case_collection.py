"""Case: one prepared knee. CaseCollection: the prepared knees of a folder, and its cases.json.

DATASET/cases.json                        geometry, window, split and label table: PNGs hold none of it
DATASET/<case>/case.json                  the same of one knee, but for its split: what it was made of, as it appeared
DATASET/<case>/<plane>/image/0000.png     slices of 8 or 16 bits, canonical axes, every knee as a right one
DATASET/<case>/<plane>/mask/0000.png      class numbers; absent for an unlabelled knee
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from knee3d.dataset.intensity import IntensityWindow, to_intensities
from knee3d.dataset.png_slices import read_slices, slice_name
from knee3d.geometry.orientation import Side, check_axis_codes
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.scheme_files import SchemeField
from knee3d.records import LaterVersionError, Record, Settings

MOST_SLICES = 1 << 14
"""No knee has more slices in a plane: a record that says so is damaged."""
CASES_FILE, CASE_FILE = "cases.json", "case.json"


class Split(StrEnum):
    """What a case is used for; an unlabelled case for nothing."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    NONE = ""


def _affine(rows: object) -> np.ndarray:
    found = np.array(rows, dtype=np.float64)
    if found.shape != (4, 4) or not np.isfinite(found).all():
        raise ValueError("it must have four rows of four finite numbers")
    return Volume(np.broadcast_to(np.uint8(0), (1, 1, 1)), found).affine


def _with_rule(window: Any) -> Any:
    """A window as a record has it; where the record does not say how it was found, nothing stands for that."""
    return {"rule": "", **window} if isinstance(window, Mapping) else window


_ROW = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
AffineField = Annotated[
    np.ndarray,
    PlainValidator(_affine),
    PlainSerializer(lambda affine: affine.tolist()),
    WithJsonSchema({"type": "array", "items": _ROW, "minItems": 4, "maxItems": 4}),
]
"""An affine as a field of a record: rows of numbers in JSON."""


@dataclass(frozen=True, eq=False)
class Case(Record):
    """One prepared knee, as case.json and cases.json keep it.

    Attributes:
        name: Its folder, unique in the dataset.
        patient: Pseudonym; all visits and both knees of a patient share it.
        visit: Such as "baseline"; may be empty.
        side: A left knee's slices are those of its mirror image.
        split: Train, val or test; empty when unlabelled.
        shape: Voxels along (Inferior, Posterior, Left).
        affine: (4, 4) float64, canonical voxel index to RAS mm; of the mirror image for a left knee.
        source_axes: Axis codes of the file it came from, such as "PIR": with side and affine the way back.
        window: Intensities that became black and white.
        labelled: Whether it has masks.
        fingerprint: Of the source files and settings: other slices have another one.
        source: A hash of the row of the table, and of the names, sizes and times of the files.
        settings: How the slices were made, see `PrepareConfig.settings`.
    """

    name: str
    patient: str
    visit: str
    side: Side
    split: Split
    shape: tuple[int, int, int]
    affine: AffineField
    source_axes: str
    window: Annotated[IntensityWindow, BeforeValidator(_with_rule)]
    labelled: bool
    fingerprint: str
    source: str = ""
    settings: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "\0" in self.name or Path(self.name).name != self.name:
            raise ValueError(f"case {self.name!r} is no name of a folder")
        if len(self.shape) != 3 or not all(0 < side <= MOST_SLICES for side in self.shape):
            raise ValueError(f"case {self.name} has shape {self.shape}")
        check_axis_codes(self.source_axes)

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) float64, between voxels along Inferior, Posterior, Left."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


@dataclass(frozen=True, eq=False)
class CaseCollection:
    """Prepared cases in a folder, sharing one label scheme.

    Raises:
        ValueError: Two cases share a name.
    """

    folder: Path
    scheme: LabelScheme
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(case.name for case in self.cases).items() if count > 1]
        if twice:
            raise ValueError(f"case names must be unique; more than once: {', '.join(twice[:5])}")

    @property
    def window_rule(self) -> str:
        """The name of the way in which the windows of all images were found, see `intensity.WINDOW_RULE`.

        Raises:
            ValueError: It is not one for all cases.
        """
        rules = {case.window.rule for case in self.cases}
        if len(rules) != 1:
            raise ValueError(f"{self.folder} has images windowed by different rules; run knee3d prepare again")
        return rules.pop()

    def split_counts(self) -> str:
        """How many cases each split has, in words, such as "5 train, 2 val, 1 test"; empty without cases."""
        counts = Counter(case.split for case in self.cases)
        return ", ".join(f"{counts[split]} {split.value or 'unlabelled'}" for split in Split if counts[split])

    def of_split(self, split: Split) -> tuple[Case, ...]:
        """The labelled cases of one split.

        Raises:
            ValueError: There are none.
        """
        chosen = tuple(case for case in self.cases if case.split is split and case.labelled)
        if not chosen:
            counts = self.split_counts() or "none at all"
            raise ValueError(f"{self.folder} has no labelled {split} cases, only {counts}; see prepare --split")
        return chosen

    def slice_paths(self, case: Case, plane: Plane, kind: str) -> list[Path]:
        """PNG paths of a case's slices in order; `kind` is "image" or "mask"."""
        folder = self.folder / case.name / plane.value / kind
        return [folder / slice_name(index) for index in range(case.shape[plane.axis])]

    def image(self, case: Case) -> Volume:
        """uint8 image volume, canonical axes, read back from its PNGs; of 16 bits the upper 8, as networks see them."""
        pixels = self._volume(case, "image")
        return pixels if pixels.array.dtype == np.uint8 else pixels.with_array((pixels.array >> 8).astype(np.uint8))

    def intensities(self, case: Case) -> Volume:
        """float32 image volume in the scanner's intensities, canonical axes, read back from its PNGs."""
        return to_intensities(self._volume(case, "image"), case.window)

    def mask(self, case: Case) -> Volume:
        """uint8 label volume in the scheme's classes, canonical axes, read back from its PNGs.

        Raises:
            ValueError: The case is not labelled.
        """
        if not case.labelled:
            raise ValueError(f"case {case.name} of {self.folder} has no mask")
        labels = self._volume(case, "mask")
        if labels.array.dtype != np.uint8 or labels.array.max() > len(self.scheme.tissues):
            raise ValueError(
                f"the mask PNGs of {case.name} hold values up to {labels.array.max()}, but {self.scheme.name} has "
                f"{len(self.scheme.tissues)} tissues; run knee3d prepare again"
            )
        return labels

    def _volume(self, case: Case, kind: str) -> Volume:
        plane = min(Plane, key=lambda plane: case.shape[plane.axis])
        if self.slice_paths(case, plane, kind)[-1].with_name(slice_name(case.shape[plane.axis])).exists():
            raise ValueError(f"{kind} slices of {case.name} are more than the {case.shape} that cases.json says")
        volume = from_slices(read_slices(self.slice_paths(case, plane, kind)), plane, case.affine)
        if volume.shape != case.shape:
            raise ValueError(f"{kind} slices of {case.name} form {volume.shape}, but cases.json says {case.shape}")
        return volume


@dataclass(frozen=True, eq=False)
class CaseList(Record):
    """What cases.json holds.

    Attributes:
        scheme: The meaning of the values of masks: the name of a built-in scheme, or all of a user's.
        labels: The name of each value of masks, for people and for other programs.
        cases: The prepared knees, by name.
    """

    scheme: SchemeField
    labels: Mapping[str, str]
    cases: tuple[Case, ...]


def save_cases(dataset: CaseCollection) -> None:
    """Write `cases.json`, whole or not at all; cases are ordered by name."""
    labels = {str(number): name for number, name in enumerate(("background", *dataset.scheme.names))}
    cases = tuple(sorted(dataset.cases, key=lambda case: case.name))
    CaseList(dataset.scheme, labels, cases).write(dataset.folder / CASES_FILE)


def load_cases(folder: Path) -> CaseCollection:
    """Read `cases.json`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not one that this version wrote.
    """
    path = folder / CASES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no cases.json; make it with: knee3d prepare knees.csv {folder}")
    try:
        found = CaseList.from_json(path.read_bytes())
        return CaseCollection(folder, found.scheme, found.cases)
    except LaterVersionError as error:
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable case list ({error}); move it away and run knee3d prepare again, which keeps "
            "knees that are finished"
        ) from error


def save_case(case: Case, folder: Path) -> None:
    """Write `case.json` into the folder of a case."""
    case.write(folder / CASE_FILE)


def load_case(folder: Path) -> Case | None:
    """Read `case.json` in the folder of a case; None where there is none that can be read.

    Raises:
        LaterVersionError: A later version of knee3d wrote it.
    """
    try:
        return Case.from_json((folder / CASE_FILE).read_bytes())
    except LaterVersionError as error:
        raise LaterVersionError(f"{folder / CASE_FILE}: {error}") from error
    except (OSError, ValueError):
        return None
