"""Finished knees, as `knee3d segment` leaves them, without TensorFlow: each tissue has a brightness of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knee3d.api import InputCase, SegmentConfig
from knee3d.api.segment_case import segment_case
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import ManifestRow, write_manifest
from knee3d.geometry.orientation import Side, mirror_left_right, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.inference.trained_models import TrainedModels
from knee3d.io.image_source import ImageSource, read_image
from knee3d.io.label_names_file import LABELS_FILE, write_label_names
from knee3d.io.volume_file import write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.parametric_knee import parametric_knee

SHAPE = (62, 77, 60)
STEP = 60


@dataclass(frozen=True)
class ByBrightness:
    """Knows a tissue by its brightness, and is the less sure the further it is off."""

    shift: float
    classes: int = 4
    context: int = 0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        away = np.abs(slices.astype(np.float32) + self.shift - STEP * np.arange(self.classes))
        odds = np.exp(-away / 10)
        return odds / odds.sum(axis=-1, keepdims=True)


def make_cohort(folder: Path, sides: tuple[Side, ...] = (Side.RIGHT, Side.LEFT), scheme: str = "compartments") -> Path:
    """Images, masks and a table of the same knee on different sides."""
    labels = parametric_knee(SHAPE, seed=1)
    knees = []
    for number, side in enumerate(sides, start=1):
        here = mirror_left_right(labels) if side is Side.LEFT else labels
        classes = labels_to_classes(here.array, LABEL_NAMES["pymskt"], SCHEMES[scheme])
        image = classes.astype(np.int16) * STEP
        image[0] = 255  # so that the window is 0 to 255, on either side alike
        case = f"P{number:03d}"
        write_volume(here.with_array(image), folder / case / "image.nii.gz")
        write_volume(here, folder / case / "mask.nii.gz")
        knees.append(ManifestRow(case, case, "", side, folder / case / "image.nii.gz", folder / case / "mask.nii.gz"))
    write_label_names(folder / LABELS_FILE, LABEL_NAMES["pymskt"].names)
    write_manifest(folder / "knees.csv", tuple(knees))
    return folder / "knees.csv"


def make_finished(
    table: Path, out: Path, scheme: str = "compartments", form: str = "nifti", trained_on: tuple[str, ...] = ()
) -> Path:
    """Segment the knees of a table into a folder each, with networks that know some patients."""
    from knee3d.dataset.manifest import read_manifest

    for knee in read_manifest(table):
        image = read_image(knee.image)
        views = {
            plane.value: PlaneView(plane, ByBrightness(4.0 * number, SCHEMES[scheme].classes))
            for number, plane in enumerate(Plane)
        }
        ensemble = Ensemble(views, dict.fromkeys(views, 1 / 3))
        spacing = to_canonical(image).spacing_mm[None]
        patients = {Split.TRAIN: frozenset(trained_on), Split.VAL: frozenset()}
        trained = TrainedModels(ensemble, SCHEMES[scheme], patients, spacing, dict.fromkeys(views, "made up"), None)
        folder = out / knee.case
        folder.mkdir(parents=True)
        entry = InputCase(knee.case, ImageSource(knee.image, knee.side), knee.patient)
        segment_case(entry, trained, SegmentConfig(label_format=form), "made up", folder)
    return out
