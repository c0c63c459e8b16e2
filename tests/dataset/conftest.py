"""Tiny DICOM series made by hand, without knee3d's own writer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

ROWS, COLUMNS, SLICES = 5, 7, 4
BETWEEN_ROWS, BETWEEN_COLUMNS, GAP = 0.5, 0.3, 2.0


def rotation(*degrees: float) -> np.ndarray:
    """(3, 3) turn about x, then y, then z; columns are cosines of a row, of a column, and the normal."""
    (ca, sa), (cb, sb), (cc, sc) = ((np.cos(a), np.sin(a)) for a in np.radians(degrees))
    x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return z @ y @ x


def pixel_values(k: int) -> np.ndarray:
    """(rows, columns): every voxel of a series has its own value, which says where it is."""
    return (100 * k + 10 * np.arange(ROWS)[:, None] + np.arange(COLUMNS)).astype(np.int16)


def slice_dataset(k: int, turn: np.ndarray) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
    image.Modality, image.ImageType = "MR", ["ORIGINAL", "PRIMARY", "OTHER"]
    image.SeriesInstanceUID, image.SeriesNumber, image.SeriesDescription = "1.2.3", 8, "T2 map"
    image.StudyInstanceUID, image.EchoNumbers, image.EchoTime = "1.2", 1, "6.5"
    image.PatientName, image.PatientID, image.PatientBirthDate = "Doe^Jane", "ID4711", "19700102"
    image.ImagePositionPatient = [f"{v:.10g}" for v in np.array([-20, 30, 5]) + turn[:, 2] * GAP * k]
    image.ImageOrientationPatient = [f"{v:.12f}" for v in turn[:, :2].T.ravel()]
    image.PixelSpacing = [BETWEEN_ROWS, BETWEEN_COLUMNS]
    # What lies in practice, lies here: nothing of it is geometry.
    image.SliceThickness, image.SpacingBetweenSlices, image.InstanceNumber = "9", "11", 50 - k
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.Rows, image.Columns = ROWS, COLUMNS
    image.PixelData = pixel_values(k).tobytes()
    return image


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of slices; `change(image, k)` spoils or adds what a test is about, and may return False to skip."""

    def make(change: Callable[[Dataset, int], object] | None = None, turn: np.ndarray | None = None, **names) -> Path:
        folder = tmp_path / names.get("folder", "series")
        folder.mkdir(exist_ok=True)
        for k in range(SLICES):
            image = slice_dataset(k, rotation(0, 0, 0) if turn is None else turn)
            if change is None or change(image, k) is not False:
                dcmwrite(folder / names.get("name", "S{}.dcm").format(k), image, enforce_file_format=True)
        return folder

    return make
