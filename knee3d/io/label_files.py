"""Write labels in the format that is asked for, on the grid of their image, and read them again."""

from pathlib import Path
from types import MappingProxyType

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.io.archive import extracted_archive
from knee3d.io.dicom.segmentation import read_segmentation, write_segmentation
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.image_source import ImageSource, is_dicom_source
from knee3d.io.slicer_segmentation import ENDING as SLICER_ENDING
from knee3d.io.slicer_segmentation import segmentation_header
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import labels_to_classes
from knee3d.labels.label_scheme import LabelScheme

DICOM_SEG, SEG_NRRD = "dicom-seg", "seg-nrrd"
LABEL_FILES = MappingProxyType({
    "nifti": "labels.nii.gz", "nrrd": "labels.nrrd", "mha": "labels.mha", SEG_NRRD: f"labels{SLICER_ENDING}",
    DICOM_SEG: "labels.dcm",
})  # fmt: skip


def check_label_format(form: str, image: Path) -> None:
    """Refuse a form that cannot hold the labels of an image, before hours go into them.

    Raises:
        ValueError: DICOM-SEG refers to DICOM images, and the image is of another form.
    """
    if form == DICOM_SEG and not is_dicom_source(image):
        raise ValueError(
            f"DICOM-SEG refers to DICOM images, but {image} is a file of another form; choose --format nifti"
        )


def write_labels(labels: Volume, scheme: LabelScheme, source: ImageSource, form: str, folder: Path, case: str) -> Path:
    """Write labels into a folder.

    Args:
        labels: uint8 classes of `scheme` in the axes of the source, as `read_image` gave them.
        scheme: Names, and colours where the form has them.
        source: The image; its side is that of the knee.
        form: One of `LABEL_FILES`, which tell the file's name.
        folder: Made if absent.
        case: What the knee is called, also as the patient in DICOM-SEG.

    Returns:
        The file, written whole or not at all.

    Raises:
        ValueError: The form cannot hold these labels, see `check_label_format`, `write_volume` and
            `write_segmentation`.
    """
    check_label_format(form, source.path)
    path = folder / LABEL_FILES[form]
    if form != DICOM_SEG:
        write_volume(labels, path, segmentation_header(scheme, labels.shape) if form == SEG_NRRD else {})
        return path
    with extracted_archive(source.path) as place:
        grids = find_slice_grids(place, source.choice, again=True)
        write_segmentation(labels, scheme, source.side, grids, path, case)
    return path


def read_labels(folder: Path, scheme: LabelScheme, form: str) -> Volume:
    """Read what `write_labels` wrote.

    Returns:
        uint8 classes of `scheme`. DICOM-SEG has its own order of axes, and ends where the labels do.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or its labels are not of the scheme.
    """
    path = folder / LABEL_FILES[form]
    if form == DICOM_SEG:
        labels, label_names = read_segmentation(path, scheme)
        if label_names is None:
            raise ValueError(f"{path} has segments that are no tissues of knee3d's")
        return labels.with_array(labels_to_classes(labels.array, label_names, scheme))
    labels = read_volume(path)
    if labels.array.dtype.kind not in "iu" or labels.array.min() < 0 or labels.array.max() >= scheme.classes:
        raise ValueError(f"{path} does not hold labels of the scheme {scheme.name}; was it changed?")
    return labels.with_array(labels.array.astype(np.uint8))
