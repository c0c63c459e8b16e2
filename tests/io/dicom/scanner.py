"""A scanner for tests: DICOM files, classic and enhanced, whose every voxel says where it is."""

from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

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


TURNS = {
    "level": rotation(0, 0, 0),
    "side on": np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    "face on": np.array([[1, 0, 0], [0, 0, 1.0], [0, -1, 0]]),
    "oblique": rotation(0, 12, 0),
    "double oblique": rotation(17, -8, 33),
    "upside down": rotation(180, 0, 0),
}
EXPECTED = np.stack([pixel_values(k).T for k in range(SLICES)], axis=2)


def enhanced(images: list[Dataset], **tags) -> Dataset:
    """One file of many frames from many files of one: place, echo and value of each frame in its functional groups."""
    many = deepcopy(images[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoNumbers", "EchoTime"):
        delattr(many, name)
    many.SOPClassUID, many.NumberOfFrames = EnhancedMRImageStorage, len(images)
    many.PixelData = b"".join(image.PixelData for image in images)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = images[0].PixelSpacing, "9"
    orientation.ImageOrientationPatient = images[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    many.SharedFunctionalGroupsSequence = [shared]
    many.PerFrameFunctionalGroupsSequence = []
    for image in images:
        frame, position, echo, value, kind = (Dataset() for _ in range(5))
        position.ImagePositionPatient, echo.EffectiveEchoTime = image.ImagePositionPatient, float(image.EchoTime)
        value.RescaleSlope, value.RescaleIntercept = image.get("RescaleSlope", 1), image.get("RescaleIntercept", 0)
        kind.ComplexImageComponent = image.get("ComplexImageComponent", "MAGNITUDE")
        frame.PlanePositionSequence, frame.MREchoSequence = [position], [echo]
        frame.PixelValueTransformationSequence, frame.MRImageFrameTypeSequence = [value], [kind]
        many.PerFrameFunctionalGroupsSequence.append(frame)
    for name, value in tags.items():
        setattr(many, name, value)
    return many


def save(image: Dataset, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    dcmwrite(folder / "ENHANCED.dcm", image, enforce_file_format=True)
    return folder
