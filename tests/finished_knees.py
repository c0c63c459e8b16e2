"""Finished knees, as `knee3d segment` leaves them, without TensorFlow: each tissue has a brightness of its own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knee3d.anatomy.orientation import Side, mirror, to_canonical
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import NUMBERINGS, SCHEMES, map_labels
from knee3d.dataset.cases import Split
from knee3d.dataset.files.volumefile import write_volume
from knee3d.dataset.phantom.knee import parametric_knee
from knee3d.dataset.source import read_image
from knee3d.dataset.table import LABELS_FILE, Knee, write_numbering, write_table
from knee3d.models import Trained
from knee3d.postprocess.ensemble import Ensemble
from knee3d.postprocess.predict import PlaneView
from knee3d.workflow import Entry, Source, Wish
from knee3d.workflow.making import segment_knee
from knee3d.workflow.segmenter import Segmenter

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
        here = mirror(labels) if side is Side.LEFT else labels
        classes = map_labels(here.array, NUMBERINGS["pymskt"], SCHEMES[scheme])
        image = classes.astype(np.int16) * STEP
        image[0] = 255  # so that the window is 0 to 255, on either side alike
        case = f"P{number:03d}"
        write_volume(here.with_array(image), folder / case / "image.nii.gz")
        write_volume(here, folder / case / "mask.nii.gz")
        knees.append(Knee(case, case, "", side, folder / case / "image.nii.gz", folder / case / "mask.nii.gz"))
    write_numbering(folder / LABELS_FILE, NUMBERINGS["pymskt"].names)
    write_table(folder / "knees.csv", tuple(knees))
    return folder / "knees.csv"


def make_finished(
    table: Path, out: Path, scheme: str = "compartments", form: str = "nifti", trained_on: tuple[str, ...] = ()
) -> Path:
    """Segment the knees of a table into a folder each, with networks that know some patients."""
    from knee3d.dataset.table import read_table

    for knee in read_table(table):
        image, _ = read_image(knee.image)
        views = {
            plane.value: PlaneView(plane, ByBrightness(4.0 * number, SCHEMES[scheme].classes))
            for number, plane in enumerate(Plane)
        }
        ensemble = Ensemble(views, dict.fromkeys(views, 1 / 3))
        spacing = to_canonical(image).spacing_mm[None]
        patients = {Split.TRAIN: frozenset(trained_on), Split.VAL: frozenset()}
        trained = Trained(ensemble, SCHEMES[scheme], patients, spacing, dict.fromkeys(views, "made up"), None)
        folder = out / knee.case
        folder.mkdir(parents=True)
        entry = Entry(knee.case, Source(knee.image, knee.side), knee.patient)
        segment_knee(entry, Segmenter(trained), Wish(out, form=form), "made up", folder)
    return out
