"""Case: one prepared knee. CaseCollection: the prepared knees of a folder, and its cases.json.

DATASET/cases.json                        geometry, window, split and label table: PNGs hold none of it
DATASET/<case>/case.json                  the same of one knee, but for its split: what it was made of, as it appeared
DATASET/<case>/<plane>/image/0000.png     slices of 8 or 16 bits, canonical axes, every knee as a right one
DATASET/<case>/<plane>/mask/0000.png      class numbers; absent for an unlabelled knee
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.atomic import whole_file
from knee3d.dataset.intensity import IntensityWindow, to_intensities
from knee3d.dataset.png_slices import read_slices, slice_name
from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.scheme_files import scheme_from_json, scheme_to_json
from knee3d.records import VERSION, check_version

FORM = 1
"""Version of the form of cases.json and case.json."""
CASES_FILE, CASE_FILE = "cases.json", "case.json"


class Split(StrEnum):
    """What a case is used for; an unlabelled case for nothing."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    NONE = ""


@dataclass(frozen=True, eq=False)
class Case:
    """One prepared knee.

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
    affine: np.ndarray
    source_axes: str
    window: IntensityWindow
    labelled: bool
    fingerprint: str
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

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

    def of_split(self, split: Split) -> tuple[Case, ...]:
        """The labelled cases of one split.

        Raises:
            ValueError: There are none.
        """
        chosen = tuple(case for case in self.cases if case.split is split and case.labelled)
        if not chosen:
            counts = Counter(str(case.split) or "unlabelled" for case in self.cases)
            raise ValueError(f"{self.folder} has no labelled {split} cases, only {dict(counts)}; see prepare --split")
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
        volume = from_slices(read_slices(self.slice_paths(case, plane, kind)), plane, case.affine)
        if volume.shape != case.shape:
            raise ValueError(f"{kind} slices of {case.name} form {volume.shape}, but cases.json says {case.shape}")
        return volume


def save_cases(dataset: CaseCollection) -> None:
    """Write `cases.json`, whole or not at all; cases are ordered by name."""
    table = {str(number): tissue.name for number, tissue in enumerate(dataset.scheme.tissues, start=1)}
    cases = [_to_json(case) for case in sorted(dataset.cases, key=lambda case: case.name)]
    scheme = scheme_to_json(dataset.scheme)
    content = {VERSION: FORM, "scheme": scheme, "labels": {"0": "background", **table}, "cases": cases}
    with whole_file(dataset.folder / CASES_FILE) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")


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
        content = json.loads(path.read_text())
        check_version(content, FORM)
        cases = tuple(_from_json(case) for case in content["cases"])
        return CaseCollection(folder, scheme_from_json(content["scheme"]), cases)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable case list ({error}); run knee3d prepare again") from error


def save_case(case: Case, folder: Path) -> None:
    """Write `case.json` into the folder of a case."""
    (folder / CASE_FILE).write_text(json.dumps({VERSION: FORM, **_to_json(case)}, indent=1) + "\n")


def load_case(folder: Path) -> Case | None:
    """Read `case.json` in the folder of a case; None where there is none that this version wrote."""
    try:
        content = json.loads((folder / CASE_FILE).read_text())
        check_version(content, FORM)
        return _from_json({name: value for name, value in content.items() if name != VERSION})
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _to_json(case: Case) -> dict:
    return asdict(replace(case, affine=None)) | {"affine": np.asarray(case.affine).tolist()}  # type: ignore[arg-type]


def _from_json(content: dict) -> Case:
    typed = {
        "side": Side(content["side"]),
        "split": Split(content["split"]),
        "shape": tuple(map(int, content["shape"])),
        "affine": np.array(content["affine"], dtype=np.float64),
        "window": IntensityWindow(**{"rule": "", **content["window"]}),
    }
    case = Case(**(content | typed))
    told = (case.name, case.patient, case.visit, case.source_axes, case.fingerprint)
    if not all(isinstance(text, str) for text in told) or not isinstance(case.labelled, bool):
        raise ValueError(f"case {case.name!r} has attributes of another kind")
    if case.name in ("", ".", "..") or Path(case.name).name != case.name:
        raise ValueError(f"case {case.name!r} is no name of a folder")
    if len(case.shape) != 3 or min(case.shape) < 1 or case.affine.shape != (4, 4):
        raise ValueError(f"case {case.name} has shape {case.shape}, affine {case.affine.shape}")
    if len(case.source_axes) != 3 or not set(case.source_axes) <= set("RLAPSI"):
        raise ValueError(f"case {case.name} has axes {case.source_axes!r}")
    return case
