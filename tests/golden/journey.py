"""The whole journey on a small cohort with fixed networks, and what it said: digests of voxels, and numbers.

Nothing is trained: three networks of one convolution each find a tissue by its brightness, so that every number
depends on the input, the weights written here, and the program.
"""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyvista as pv
from made_up_models import write_network

from knee3d import api
from knee3d.api.data import prepare_dataset
from knee3d.dataset.case_collection import CaseCollection, Split
from knee3d.dataset.manifest import ManifestRow, write_manifest
from knee3d.dataset.png_slices import read_slices
from knee3d.dataset.preparation import PrepareConfig
from knee3d.geometry.orientation import Side, mirror_left_right
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import FUSED
from knee3d.io.dicom.writer import write_series
from knee3d.io.label_names_file import LABELS_FILE, write_label_names
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.report.measures_files import read_measures_csv

SCHEME = SCHEMES["compartments"]
SHAPE = (62, 77, 60)
SPACING_MM = (88 / 62, 108 / 77, 84 / 60)
INTENSITIES = np.array([30, 200, 155, 110])
"""Of background and the three tissues; femoral cartilage is the largest."""
NOISE = 41
GREY_LEVELS = np.array([44, 225, 177, 129])
"""The same as a network sees them."""
WEIGHTS = {"sagittal": 0.5, "axial": 0.3, "coronal": 0.2}
"""What knees are scored and segmented with, whatever is fitted."""
SHARPNESS = {"sagittal": 1.0, "axial": 0.85, "coronal": 0.75}
"""Share of the pixel itself in what a network of the plane sees; the rest is its four neighbours'."""


def write_cohort(folder: Path) -> Path:
    """A right knee as NIfTI, for validation, and the left knee of another person as DICOM, for testing.

    Returns:
        The path of its knees.csv.
    """
    knees = []
    for number, (side, split) in enumerate(((Side.RIGHT, Split.VAL), (Side.LEFT, Split.TEST)), start=1):
        case = f"P{number:03d}"
        labels = parametric_knee(SHAPE, seed=number)
        classes = labels_to_classes(labels.array, LABEL_NAMES["pymskt"], SCHEME)
        noise = np.random.default_rng(number).integers(-NOISE, NOISE + 1, SHAPE)
        image = labels.with_array((INTENSITIES[classes] + noise).astype(np.int16))
        mask, place = labels, folder / case / "image.nii.gz"
        if side is Side.LEFT:
            mask, image, place = mirror_left_right(labels), mirror_left_right(image), folder / case / "dicom"
            write_series(image, place, side, patient=case, description="golden", seed=number)
        else:
            write_volume(image, place)
        write_volume(mask, folder / case / "mask.nii.gz")
        knees.append(ManifestRow(case, case, "", side, place, folder / case / "mask.nii.gz", split))
    write_label_names(folder / LABELS_FILE, LABEL_NAMES["pymskt"].names)
    write_manifest(folder / "knees.csv", tuple(knees))
    return folder / "knees.csv"


def write_models(folder: Path) -> Path:
    """A network for each plane: softmax of the squared distances to each tissue's grey level."""
    import keras

    for plane in Plane:
        keras.backend.clear_session()  # layers are called as in a new process, which fingerprints depend on
        slices = keras.Input((None, None, 3), dtype="uint8")
        conv = keras.layers.Conv2D(SCHEME.classes, 3, padding="same")
        network = keras.Model(slices, keras.layers.Softmax()(conv(keras.layers.Rescaling(1.0)(slices))))
        seen = np.zeros((3, 3, 3))
        seen[1, 1, 1] = SHARPNESS[plane.value]
        seen[[0, 2, 1, 1], [1, 1, 0, 2], 1] = (1 - SHARPNESS[plane.value]) / 4
        conv.set_weights([seen[..., None] * GREY_LEVELS / 200, -(GREY_LEVELS**2) / 400])
        write_network(network, folder / plane.value, SPACING_MM, SCHEME.name)
    return folder


def run_journey(folder: Path) -> dict[str, Any]:
    """Prepare, fuse, evaluate, segment and report.

    Returns:
        Name to digest (text), number, or mapping of such; ready for JSON.
    """
    table, models = write_cohort(folder / "cohort"), write_models(folder / "models")
    dataset = prepare_dataset(table, folder / "dataset", PrepareConfig(SCHEME, None), None, jobs=2)
    fitted = api.KneeModel(models).fit_fusion(folder / "dataset")
    api.KneeModel(models).fit_fusion(folder / "dataset", weights=WEIGHTS)
    scores = api.KneeModel(models).evaluate(api.Dataset.load(folder / "dataset").test, folder / "scores")
    config = api.SegmentConfig(precision="float32")
    done = api.segment(table, models, folder / "results", config=config)
    done += api.make_reports(folder / "results", table)
    assert [one.status for one in done] == ["done"] * 4, [one.message for one in done]
    return {
        "slices": _slices(dataset),
        "cases.json": _cases(dataset),
        "fitted": {"weights": dict(fitted.weights), "dice": fitted.dice, "alone": dict(fitted.alone),
                   "equal": fitted.equal},
        "scores": _scores(scores),
        "results": {case.name: _results(folder / "results" / case.name) for case in dataset.cases},
        "index.html": _tables(folder / "results" / "index.html"),
        "volumes.csv": (folder / "results" / "volumes.csv").read_text(),
    }  # fmt: skip


def _scores(evaluation: api.Evaluation) -> dict[str, Any]:
    """What scores.json holds: the pooled scores of the planes and of the fusion, and the scores of each case."""
    content = json.loads(evaluation.to_json())
    pooled = {view: _flat(scores) for view, scores in content["pooled"].items()}
    return {
        "planes": {view: scores for view, scores in pooled.items() if view != FUSED},
        "fused": pooled[FUSED],
        "cases": {case: {view: _flat(one) for view, one in views.items()} for case, views in content["cases"].items()},
    }


def _flat(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of a view, its measures beside the others; no reasons where every surface was measured."""
    others = {name: value for name, value in scores.items() if name != "measures" and (value or name != "absent")}
    return {**scores["measures"], **others}


def _digest(array: np.ndarray) -> str:
    said = f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(said).hexdigest()[:32]


def _slices(dataset: CaseCollection) -> dict[str, str]:
    return {
        f"{case.name}/{plane.value}/{kind}": _digest(read_slices(dataset.slice_paths(case, plane, kind)))
        for case in dataset.cases
        for plane in Plane
        for kind in ("image", "mask")
    }


def _cases(dataset: CaseCollection) -> list[dict[str, Any]]:
    """Without what depends on the time at which the input was written."""
    timed = ("fingerprint", "source")
    content = json.loads((dataset.folder / "cases.json").read_text())
    return [{name: value for name, value in case.items() if name not in timed} for case in content["cases"]]


def _results(folder: Path) -> dict[str, Any]:
    labels = read_volume(folder / "labels.nii.gz")
    (measures,) = read_measures_csv(folder / "report" / "measures.csv").values()
    meshes = {path.stem: pv.read(path) for path in sorted((folder / "report").rglob("*.ply"))}
    quality = json.loads((folder / "quality.json").read_text())
    return {
        "labels": _digest(labels.array),
        "affine": labels.affine.tolist(),
        "quality": {name: quality[name] for name in ("inter_view_dice", "predictive_entropy", "flags")},
        "measures": {f"{one.tissue}, {one.region}, {one.measure}": one.value for one in measures},
        "mesh_volumes_mm3": {name: mesh.volume for name, mesh in meshes.items()},
        "report.html": _tables(folder / "report" / "report.html"),
    }


class _Cells(HTMLParser):
    """Collects the text of every row of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def _tables(page: Path) -> list[str]:
    """Rows of a page's tables, their cells with a bar between them."""
    parser = _Cells()
    parser.feed(page.read_text(encoding="utf-8"))
    return [" | ".join(" ".join(cell.split()) for cell in row) for row in parser.rows]
