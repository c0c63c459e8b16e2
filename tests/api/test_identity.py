"""Nothing that says who the patient is leaves DICOM: not in files, not in logs, not in errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from knee3d.cli import main
from knee3d.io.image_source import ImageSource, read_image
from knee3d.io.label_files import LABEL_FILES, write_labels
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig

pytestmark = pytest.mark.slow  # thousands of tags, written and read

SECRET = "GRUNDMANN"
DATE, TIME = "19311224", "031415.926"
TEXT = {"PN": f"{SECRET}^JANE", "LO": SECRET, "SH": SECRET, "LT": SECRET, "ST": SECRET, "UT": SECRET, "UC": SECRET}
TEXT |= {"AE": SECRET, "CS": SECRET, "DA": DATE, "TM": TIME, "DT": DATE + "031415", "AS": "092Y"}
# What says what the file is, and not whose; pydicom needs it, or knee3d reads it.
KEPT = {"Modality", "ImageType", "PhotometricInterpretation", "Laterality", "SpecificCharacterSet", "ImageLaterality"}
FINGERPRINTS = (SECRET, DATE, TIME.split(".")[0], "092Y")


def plant(image: Dataset) -> None:
    """An identity in every tag of the standard's that holds text, a name, a date or a time, at top level."""
    for tag, (vr, *_) in DicomDictionary.items():
        name = keyword_for_tag(tag)
        if vr in TEXT and name and name not in KEPT and tag >> 16 not in (0, 2, 4):
            image.add_new(tag, vr, TEXT[vr])


@pytest.fixture
def cohort(cohort_of, tmp_path) -> Path:
    """Two knees and a follow-up, of each some files full of names."""
    table = cohort_of(CohortConfig(2, (16, 16, 16)), tmp_path / "cohort")
    for path in (tmp_path / "cohort").rglob("IM000[15].dcm"):
        image = pydicom.dcmread(path)
        plant(image)
        pydicom.dcmwrite(path, image)
    assert SECRET.encode() in path.read_bytes()
    return table


def betrayed(folder: Path) -> list[str]:
    """Files below `folder` that hold a part of the identity."""
    fingerprints = [mark.encode() for mark in FINGERPRINTS]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if any(mark in path.read_bytes() for mark in fingerprints)]


def test_prepared_knees_have_no_names(cohort, tmp_path, caplog):
    done = CliRunner().invoke(main, ["prepare", str(cohort), str(tmp_path / "d"), "--split", "0.5,0.5,0"])
    assert done.exit_code == 0, done.output
    assert betrayed(tmp_path / "d") == []
    for mark in FINGERPRINTS:
        assert mark not in done.output + caplog.text


@pytest.mark.parametrize("form", LABEL_FILES)
def test_labels_have_no_names(cohort, tmp_path, form):
    """Also where every file of the knee is full of them."""
    folder = cohort.parent / "P001-baseline" / "dicom"
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        plant(image)
        image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.4"
        pydicom.dcmwrite(path, image)
    image = read_image(folder)
    side = image.side
    labels = image.with_array((image.array > 500).astype(np.uint8))
    write_labels(labels, SCHEMES["cartilage"], ImageSource(folder, side), form, tmp_path / "out", "knee_1")
    assert betrayed(tmp_path / "out") == []


def gap(folder: Path) -> None:
    (folder / "IM0005.dcm").unlink()


def twice(folder: Path) -> None:
    image = pydicom.dcmread(folder / "IM0005.dcm")
    image.SOPInstanceUID = "1.2.3.4"
    pydicom.dcmwrite(folder / "COPY.dcm", image)


def cut_off(folder: Path) -> None:
    path = folder / "IM0005.dcm"
    path.write_bytes(path.read_bytes()[:-100])


def changed(**tags: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in sorted(folder.iterdir())[:8]:
            image = pydicom.dcmread(path)
            for name, value in tags.items():
                setattr(image, name, value)
            pydicom.dcmwrite(path, image)

    return change


FAULTS = {
    "gap": gap,
    "twice": twice,
    "cut off": cut_off,
    "two series": changed(SeriesInstanceUID="1.2.3"),
    "two echoes": changed(EchoTime="20"),
    "two sides": changed(Laterality="L"),
    "turned": changed(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    "no place": changed(ImagePositionPatient=None),
    "colour": changed(PhotometricInterpretation="RGB"),
    "not MR": changed(Modality="CT"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_have_no_names(cohort, tmp_path, fault, caplog):
    FAULTS[fault](cohort.parent / "P001-baseline" / "dicom")
    done = CliRunner().invoke(main, ["prepare", str(cohort), str(tmp_path / "d"), "--split", "0.5,0.5,0"])
    assert done.exit_code == 1
    assert "P001-baseline" in done.output
    for mark in FINGERPRINTS:
        assert mark not in done.output + caplog.text + repr(done.exception)


def test_the_planted_identities_would_be_found(tmp_path):
    """The search itself: a file with a name in it does not pass."""
    np.save(tmp_path / "x.npy", np.frombuffer(SECRET.encode(), np.uint8))
    assert betrayed(tmp_path)
