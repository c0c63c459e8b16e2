"""Write a volume as a folder of single-frame MR files, for phantoms."""

import hashlib
from copy import deepcopy
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from knee3d.atomic import whole_folder
from knee3d.geometry.orientation import CANONICAL, Side, axis_codes
from knee3d.geometry.volume import Volume

_COSINE_TOLERANCE = 1e-4
# A double-echo steady-state sequence as in the Osteoarthritis Initiative; the empty ones are required but unknown.
_TAGS = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
    "SOPClassUID": MRImageStorage,
    "StudyDate": "",
    "StudyTime": "",
    "AccessionNumber": "",
    "Modality": "MR",
    "Manufacturer": "knee3d phantom",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "made up, never a person",
    "BodyPartExamined": "KNEE",
    "ScanningSequence": "GR",
    "SequenceVariant": "SS",
    "ScanOptions": "",
    "MRAcquisitionType": "3D",
    "RepetitionTime": "16.3",
    "EchoTime": "4.7",
    "EchoNumbers": "1",
    "EchoTrainLength": "1",
    "FlipAngle": "25",
    "MagneticFieldStrength": "3",
    "PatientPosition": "FFS",
    "StudyID": "",
    "SeriesNumber": "1",
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
}


def write_series(volume: Volume, folder: Path, side: Side, *, patient: str, description: str, seed: int) -> None:
    """Write a volume as one MR series, one file per slice along the third axis.

    The same arguments give the same bytes. The folder appears whole or not at all, and replaces one of that name.

    Args:
        volume: Axes "IPL", so that pixel rows run to Inferior and columns to Posterior; integers that fit int16.
        folder: Gets IM0001.dcm, IM0002.dcm, ... in the order of the third axis.
        side: Stands in Laterality; unknown leaves it empty.
        patient: Made-up name, at most 64 characters; the files' PatientName and PatientID.
        description: SeriesDescription, at most 64 characters.
        seed: What the volume was made from; with the other arguments it makes the unique identifiers.

    Raises:
        ValueError: The volume has other axes, or is no stack of perpendicular slices.
    """
    _check(volume)
    content = np.ascontiguousarray(volume.array, dtype="<i2").tobytes() + volume.affine.astype("<f8").tobytes()
    series = [patient, str(seed), description, side.value, str(volume.shape), hashlib.sha256(content).hexdigest()]
    common = _common_tags(volume, side)
    common.PatientName = common.PatientID = patient
    common.SeriesDescription = description
    common.StudyInstanceUID = generate_uid(entropy_srcs=["study", *series])
    common.SeriesInstanceUID = generate_uid(entropy_srcs=["series", *series])
    common.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", *series])
    with whole_folder(folder) as partial:
        for index in range(volume.shape[2]):
            image = _slice_tags(volume, common, index)
            image.SOPInstanceUID = generate_uid(entropy_srcs=["instance", *series, str(index)])
            image.file_meta = _file_meta(image.SOPInstanceUID)
            dcmwrite(partial / f"IM{index + 1:04d}.dcm", image, enforce_file_format=True)


def _check(volume: Volume) -> None:
    codes = axis_codes(volume.affine)
    if codes != CANONICAL:
        raise ValueError(f"a DICOM series is written from axes {CANONICAL}, got {codes}; reorient the volume")
    cosines = volume.affine[:3, :3] / volume.spacing_mm
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > _COSINE_TOLERANCE:
        raise ValueError("a DICOM series needs perpendicular axes, this volume's are sheared; resample it")


def _common_tags(volume: Volume, side: Side) -> Dataset:
    """What all slices share; affine columns in RAS become DICOM's LPS."""
    tags = Dataset()
    for name, value in _TAGS.items():
        setattr(tags, name, value)
    down, back, across = volume.spacing_mm
    cosines = np.diag([-1, -1, 1]) @ volume.affine[:3, :3] / volume.spacing_mm
    low, high = int(volume.array.min()), int(volume.array.max())
    tags.Laterality = side.value
    tags.Rows, tags.Columns = volume.shape[:2]
    tags.PixelSpacing = _decimals([down, back])  # between rows, between columns
    tags.ImageOrientationPatient = _decimals([*cosines[:, 1], *cosines[:, 0]])  # along a row, down a column
    tags.SliceThickness, tags.SpacingBetweenSlices = _decimals([across, across])
    tags.WindowCenter, tags.WindowWidth = _decimals([(low + high) / 2, max(high - low, 1)])
    return tags


def _slice_tags(volume: Volume, common: Dataset, index: int) -> Dataset:
    image = deepcopy(common)
    corner = np.diag([-1, -1, 1, 1]) @ volume.affine @ [0, 0, index, 1]
    image.InstanceNumber = index + 1
    image.ImagePositionPatient = _decimals(corner[:3])
    image.PixelData = np.ascontiguousarray(volume.array[:, :, index], dtype="<i2").tobytes()
    image["PixelData"].VR = "OW"
    return image


def _decimals(values: np.ndarray | list) -> list[str]:
    """Numbers as DICOM writes them, in at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in values]


def _file_meta(instance: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # pydicom's own would name its version, and bytes would change with it.
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["knee3d"])
    meta.ImplementationVersionName = "KNEE3D"
    return meta
