"""Read and write DICOM-SEG: a coded, coloured segment for each tissue, which refers to the images.

highdicom writes and reads. Codes are those of SNOMED CT that DICOM lists as tissues (CID 7166) and anatomic regions.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType

import highdicom as hd
import numpy as np
import pydicom
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription, segread
from pydicom.sr.codedict import Code, codes
from pydicom.uid import generate_uid

from knee3d import __version__
from knee3d.atomic import whole_file
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import LARGEST, Volume
from knee3d.io.dicom.grid import SliceGrid
from knee3d.io.dicom.headers import DicomError, errors_naming, read_tags
from knee3d.io.mask_channels import first_channel
from knee3d.labels import label_scheme
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import LabelScheme, Tissue

_SERIES_NUMBER = 1000  # is added to the image's, so that viewers list the labels below
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SCT = codes.SCT
# Tissue: what it is, where, and which of two.
_CODES = MappingProxyType({
    label_scheme.FEMORAL: (_SCT.Cartilage, _SCT.Femur, None),
    label_scheme.MEDIAL_TIBIAL: (_SCT.Cartilage, _SCT.Tibia, _SCT.Medial),
    label_scheme.LATERAL_TIBIAL: (_SCT.Cartilage, _SCT.Tibia, _SCT.Lateral),
    label_scheme.TIBIAL: (_SCT.Cartilage, _SCT.Tibia, None),
    label_scheme.PATELLAR: (_SCT.Cartilage, _SCT.Patella, None),
    label_scheme.CARTILAGE: (_SCT.Cartilage, _SCT.KneeJoint, None),
    label_scheme.FEMUR: (_SCT.Femur, _SCT.KneeJoint, None),
    label_scheme.TIBIA: (_SCT.Tibia, _SCT.KneeJoint, None),
    label_scheme.PATELLA: (_SCT.Patella, _SCT.KneeJoint, None),
    label_scheme.FIBULA: (_SCT.Fibula, _SCT.KneeJoint, None),
    label_scheme.LATERAL_MENISCUS: (_SCT.Meniscus, _SCT.KneeJoint, _SCT.Lateral),
    label_scheme.MEDIAL_MENISCUS: (_SCT.Meniscus, _SCT.KneeJoint, _SCT.Medial),
})  # fmt: skip
_SOFT = (_SCT.Cartilage, _SCT.Meniscus)
_SIDES = {Side.RIGHT: _SCT.Right, Side.LEFT: _SCT.Left}


def is_segmentation(path: Path) -> bool:
    """Whether it is a DICOM-SEG file; False for whatever cannot be read."""
    try:
        header = read_tags(path, ["Modality"])
    except Exception:  # pydicom raises nearly anything on bad bytes
        return False
    return header.get("Modality") == "SEG"


def write_segmentation(
    labels: Volume, scheme: LabelScheme, side: Side, grids: Sequence[SliceGrid], path: Path, case: str
) -> None:
    """Write labels as one binary DICOM-SEG file; it appears whole or not at all.

    Slices without any tissue are left out, as the standard allows. Patient name and ID are `case`, dates are empty: of
    the images only their identifiers (UIDs), which a reference cannot do without, are carried over.

    Args:
        labels: Classes of `scheme` in the axes of the grid, (column, row, slice).
        scheme: Names and colours.
        side: Of the knee.
        grids: What `find_slice_grids` told of the image; of several echoes, all.
        path: To write.
        case: At most 64 characters.

    Raises:
        ValueError: Labels and grid differ in shape.
    """
    grid, study = grids[0], _study(grids[0], case)
    if labels.shape != grid.shape:
        raise ValueError(f"labels have shape {labels.shape}, the images {grid.shape}")
    framed = any(frame.index is not None for frame in grid.frames)
    sources = _frames(grid, study) if framed else _sources(grid, study)
    further = [] if framed else [one for other in grids[1:] for one in _sources(other, study)]
    segmentation = Segmentation(
        source_images=sources,
        further_source_images=further or None,
        pixel_array=np.ascontiguousarray(labels.array.T, np.uint8),
        plane_positions=[hd.PlanePositionSequence("PATIENT", frame.position.tolist()) for frame in grid.frames],
        segmentation_type="BINARY",
        segment_descriptions=[_segment(number, one, side) for number, one in enumerate(scheme.tissues, start=1)],
        series_instance_uid=generate_uid(),
        series_number=_SERIES_NUMBER + (grid.frames[0].series[1] or 0),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="knee3d",
        manufacturer_model_name="knee3d",
        software_versions=__version__,
        device_serial_number=__version__,
        content_label=scheme.name.upper(),
        series_description=f"knee3d {scheme.name}",
        omit_empty_frames=bool(labels.array.any()),  # at least one frame there must be
    )
    if framed:
        _name_frames(segmentation, grids)
    segmentation.PatientIdentityRemoved = "YES"
    segmentation.DeidentificationMethod = "knee3d: case name for patient, no dates"
    with whole_file(path) as partial:
        segmentation.save_as(partial)


def read_segmentation(path: Path, scheme: LabelScheme | None = None) -> tuple[Volume, LabelNames | None]:
    """Read a DICOM-SEG file: binary, fractional (inside above 0.5) or label map.

    Args:
        path: The file.
        scheme: Whose tissues are known besides knee3d's; None is none.

    Returns:
        uint8 labels with the segments' numbers, indexed (column, row, slice). The volume ends where the segments do and
        may be smaller than the image. And what the numbers mean, by the segments' labels or codes; None if one of them
        is no tissue that knee3d knows.

    Raises:
        DicomError: The file is corrupt, absurdly large, or its segments do not lie on one regular grid.
    """
    with errors_naming(path):
        header = read_tags(path, ["Rows", "Columns", "NumberOfFrames"])
        if int(header.Rows) * int(header.Columns) * int(header.NumberOfFrames) > LARGEST:
            raise DicomError(f"{path.name} claims {header.NumberOfFrames} frames: too large for a knee, or corrupt")
        segmentation = segread(path)
        volume = segmentation.get_volume()
        numbers = np.array([0, *segmentation.segment_numbers])
        if numbers.max() > 255:
            raise DicomError(f"{path.name} has segments numbered up to {numbers.max()}; 255 is the most; renumber them")
        labels = numbers.astype(np.uint8)[first_channel(volume.array > 0.5, path.name)]
        affine = _LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
        names = {
            number: _tissue(segmentation.get_segment_description(number), label_scheme.known_tissue_names(scheme))
            for number in numbers[1:].tolist()
        }
    known = {number: name for number, name in names.items() if name is not None}
    return Volume(labels.T, affine), LabelNames(known) if len(known) == len(names) else None


def _study(grid: SliceGrid, case: str) -> pydicom.Dataset:
    """What all source images share as far as it goes into the labels: nothing of the patient."""
    tags = ["StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID", "NumberOfFrames"]
    study = read_tags(grid.frames[0].path, tags)
    study.remove_private_tags()
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if name not in study:
            setattr(study, name, generate_uid())
    for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(study, name, "")
    study.PatientName, study.PatientID = f"{case[:63]}^", case[:64]
    study.SpecificCharacterSet = "ISO_IR 192"
    study.Modality = "MR"
    return study


def _instances(grid: SliceGrid, study: pydicom.Dataset) -> list[pydicom.Dataset]:
    """A header for each file, with its identifiers and the size of its pictures."""
    headers = []
    for frame in {frame.path: frame for frame in grid.frames}.values():
        header = pydicom.Dataset()
        header.update(study)
        header.file_meta = study.file_meta
        header.SOPInstanceUID, header.SeriesInstanceUID = frame.instance, frame.series[0]
        header.Rows, header.Columns = frame.shape
        headers.append(header)
    return headers


def _sources(grid: SliceGrid, study: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Headers of classic files, in which highdicom finds by place which image a slice of labels was made from."""
    headers = _instances(grid, study)
    orientation, measures = _plane(grid)
    for header, frame in zip(headers, grid.frames, strict=True):
        header.ImagePositionPatient = frame.position.tolist()
        header.ImageOrientationPatient = orientation[0].ImageOrientationPatient
        header.PixelSpacing, header.SliceThickness = measures[0].PixelSpacing, measures[0].SliceThickness
    return headers


def _frames(grid: SliceGrid, study: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The header of a single file with all frames of the grid in their order, however many files they lie in.

    highdicom refers to one multi-frame file only; `_name_frames` puts the files' own frames in place of it.
    """
    header, shared = _instances(grid, study)[0], pydicom.Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = _plane(grid)
    header.NumberOfFrames = len(grid.frames)
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_place(frame.position) for frame in grid.frames]
    return [header]


def _name_frames(segmentation: Segmentation, grids: Sequence[SliceGrid]) -> None:
    """Let labels refer to the multi-frame files, and each slice to its frames in them, one of each echo."""
    (series,) = segmentation.ReferencedSeriesSequence
    (told,) = series.ReferencedInstanceSequence
    files = []
    for instance in dict.fromkeys(frame.instance for grid in grids for frame in grid.frames):
        files.append(deepcopy(told))
        files[-1].ReferencedSOPInstanceUID = instance
    series.ReferencedInstanceSequence = segmentation.SourceImageSequence = files
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            (source,) = derivation.SourceImageSequence
            named = []
            for grid in grids:
                frame = grid.frames[int(source.ReferencedFrameNumber) - 1]
                named.append(deepcopy(source))
                named[-1].ReferencedSOPInstanceUID = frame.instance
                named[-1].ReferencedFrameNumber = (frame.index or 0) + 1
            derivation.SourceImageSequence = named


def _plane(grid: SliceGrid) -> tuple[hd.PlaneOrientationSequence, hd.PixelMeasuresSequence]:
    orientation = hd.PlaneOrientationSequence("PATIENT", grid.frames[0].cosines.tolist())
    return orientation, hd.PixelMeasuresSequence(
        grid.frames[0].spacing.tolist(), float(np.linalg.norm(grid.affine[:3, 2]))
    )


def _place(position: np.ndarray) -> pydicom.Dataset:
    place = pydicom.Dataset()
    place.PlanePositionSequence = hd.PlanePositionSequence("PATIENT", position.tolist())
    return place


def _segment(number: int, one: Tissue, side: Side) -> SegmentDescription:
    kind, region, which = _CODES.get(one.name, (_SCT.Tissue, _SCT.KneeJoint, None))
    described = SegmentDescription(
        segment_number=number,
        segment_label=one.name,
        segmented_property_category=_SCT.Tissue if kind in (*_SOFT, _SCT.Tissue) else _SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "knee3d", codes.DCM.ArtificialIntelligence, __version__
        ),
        anatomic_regions=[region],
        display_color=CIELabColor.from_rgb(*one.colour),
    )
    if which is not None:
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [_item(which)]
    if side:
        described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_item(_SIDES[side])]
    return described


def _item(code: Code) -> hd.sr.CodedConcept:
    return hd.sr.CodedConcept.from_code(code)


def _tissue(described: SegmentDescription, known: Collection[str]) -> str | None:
    """By its label, or else by its codes; None if neither is known."""
    if described.SegmentLabel.lower() in known:
        return described.SegmentLabel.lower()
    kind = described.segmented_property_type
    regions = described.get("AnatomicRegionSequence", [])
    modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
    for name, (what, where, which) in _CODES.items():
        here = what not in _SOFT or any(_is(region, where) for region in regions)
        if _is(kind, what) and here and all(_is(one, which) for one in modifiers) and bool(modifiers) == bool(which):
            return name
    return None


def _is(item: pydicom.Dataset, code: Code | None) -> bool:
    return code is not None and hd.sr.CodedConcept.from_dataset(item).value == code.value
