"""Read and write segmentations of 3D Slicer (.seg.nrrd).

The header's fields are those of Slicer's vtkMRMLSegmentationStorageNode. Segments that overlap lie in several layers.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import VolumeFileError, read_array
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import LabelScheme, known_tissue_names

ENDING = ".seg.nrrd"
_HIGHEST = 65535
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """A segment by the header.

    Attributes:
        name: The segment's name in small letters.
        value: The label value that the segment's voxels have in its layer.
        layer: The number of the file's channel that holds the segment, from 0; None where an older Slicer, which gives
            each segment a channel of its own, does not say it.
    """

    name: str
    value: int
    layer: int | None


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments that the header of a NRRD file names; empty where it names none, or the file is of another form.

    Raises:
        VolumeFileError: A segment has no whole label value.
    """
    if not path.name.lower().endswith((".nrrd", ".nhdr")):
        return ()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # `read_array` says what is wrong
        return ()
    keys = [key for key in reader.GetMetaDataKeys() if key.startswith("Segment") and key.isascii()]
    fields = {key: reader.GetMetaData(key) for key in keys}
    numbers = sorted(int(match[1]) for key in fields if (match := re.fullmatch(r"Segment(\d{1,4})_ID", key)))
    found: list[Segment] = []
    try:
        for number in numbers:
            told = {key: fields.get(f"Segment{number}_{key}") for key in ("Name", "LabelValue", "Layer")}
            layer = None if told["Layer"] is None else int(told["Layer"])
            found.append(Segment((told["Name"] or "").strip().lower(), int(told["LabelValue"] or 1), layer))
    except ValueError as error:
        raise VolumeFileError(f"{path.name} has a segment without a whole label value or layer ({error})") from error
    if any(not 0 < one.value <= _HIGHEST for one in found):
        raise VolumeFileError(f"{path.name} has a segment whose label value is not 1 to {_HIGHEST}; save it again")
    return tuple(found)


def read_slicer_segmentation(
    path: Path, segments: tuple[Segment, ...], scheme: LabelScheme | None = None
) -> tuple[Volume, LabelNames | None]:
    """The labels of a file's segments.

    Args:
        path: The file is a NRRD file that names segments.
        segments: They are what `read_segments` finds in the file. A voxel of several segments goes to the first, and a
            warning says how many voxels there are.
        scheme: Its tissues are known besides knee3d's; None is none.

    Returns:
        The labels, uint16 (i, j, k): each segment's label value or, if two segments share a value, its number from 1.
        And the tissue that each label means, by the segments' names; None if a name is no tissue that knee3d knows.

    Raises:
        VolumeFileError: See `read_array`; or a segment's layer is not there.
    """
    volume = read_array(path)
    layers = volume.array if volume.array.ndim == 4 else volume.array[..., None]
    each = len(segments) == layers.shape[-1] > 1  # an older Slicer's channel for each segment
    where = [(number if each else 0) if one.layer is None else one.layer for number, one in enumerate(segments)]
    if max(where) >= layers.shape[-1] or min(where) < 0:
        raise VolumeFileError(f"{path.name} has {layers.shape[-1]} layers, and a segment in another; save it again")
    _check_names(path, layers, segments, where)
    values = [one.value for one in segments]
    numbers = values if len(set(values)) == len(values) else range(1, len(values) + 1)
    labels = np.zeros(volume.shape, np.uint16)
    overlap = 0
    for number, one, layer in reversed(list(zip(numbers, segments, where, strict=True))):
        inside = layers[..., layer] == one.value
        overlap += int(np.count_nonzero(labels[inside]))
        labels[inside] = number
    if overlap:
        log.warning("%s: %d voxels lie in more than one segment and go to the first of them", path.name, overlap)
    names = {number: one.name for number, one in zip(numbers, segments, strict=True)}
    known = set(names.values()) <= set(known_tissue_names(scheme))
    return volume.with_array(labels), LabelNames(names) if known else None


def _check_names(path: Path, layers: np.ndarray, segments: tuple[Segment, ...], where: Sequence[int]) -> None:
    """Refuse label values of a layer that no segment of it has, or that two of them have.

    Raises:
        VolumeFileError: Says which.
    """
    told = [(layer, one.value) for layer, one in zip(where, segments, strict=True)]
    twice = sorted({pair for pair in told if told.count(pair) > 1})
    if twice:
        raise VolumeFileError(f"{path.name} has several segments with the label value {twice[0][1]}; save it again")
    for layer in range(layers.shape[-1]):
        unnamed = {*np.unique(layers[..., layer]).tolist()} - {0} - {value for where_, value in told if where_ == layer}
        if unnamed:
            some = ", ".join(f"{value:g}" for value in sorted(unnamed)[:5])
            raise VolumeFileError(f"{path.name}: its label values {some} belong to no segment; save it again")


def segmentation_header(scheme: LabelScheme, shape: tuple[int, int, int]) -> Mapping[str, str]:
    """The header's fields that name the classes of a scheme as segments, in one layer of `shape` (i, j, k) voxels."""
    extent = " ".join(f"0 {size - 1}" for size in shape)
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, tissue in enumerate(scheme.tissues):
        segment = {
            "ID": f"Segment_{number + 1}",
            "Name": tissue.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{level / 255:.6f}" for level in tissue.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(number + 1),
            "Layer": "0",
            "Extent": extent,
            "Tags": "Segmentation.Status:completed|",
        }
        fields |= {f"Segment{number}_{key}": value for key, value in segment.items()}
    return fields
