"""Read the headers of DICOM files: series, echo, position and side of each frame. No pixel is read.

Classic files hold one picture, enhanced ones many, whose tags lie in functional groups. Nothing that says who the
patient is is read. Slice thickness, stated slice distance, instance numbers and file names are known to lie about
geometry; no geometry is taken from them.
"""

import logging
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from knee3d.geometry.orientation import Side

PLACE_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_PIXEL_TAGS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_FILE_TAGS = ["Modality", "ImageType", "SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "SeriesInstanceUID"]
_FILE_TAGS += ["SeriesNumber", "SeriesDescription", "EchoNumbers", "EchoTime", *PLACE_TAGS, *_PIXEL_TAGS]
_FILE_TAGS += ["SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "Laterality"]
_FILE_TAGS += ["PixelPaddingValue", "PixelPaddingRangeLimit", "InstanceNumber", "ImagesInAcquisition"]
_FILE_TAGS += ["ImageLaterality", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
_FUNCTIONAL_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "MREchoSequence": ("EffectiveEchoTime",),
    "UnassignedSharedConvertedAttributesSequence": ("EchoTime",),
    "UnassignedPerFrameConvertedAttributesSequence": ("EchoTime",),
    "MRImageFrameTypeSequence": ("ComplexImageComponent",),
    "FrameAnatomySequence": ("FrameLaterality",),
}
"""The attributes of a frame that are read from enhanced MR, and from classic MR that was converted to it, by the group
in which each must stand (PS3.3, C.7.6.16.2 and C.8.13.5). Vendors repeat them with other values in their own groups."""
_WANTED = [Tag(name) for name in _FILE_TAGS]  # looked up once, and not for each file
_DICOMDIR = "1.2.840.10008.1.3.10"
_NO_IMAGE = {"SEG", "SR", "PR", "KO", "DOC", "REG", "RWV", "PLAN", "FID", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD"}
"""Modalities of what refers to images and is none."""
_OTHERS = {
    ".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw", ".h5", ".hdf5", ".im", ".seg", ".mat", ".npy", ".zip",
    ".csv", ".json", ".txt", ".xml", ".html", ".log", ".md", ".pdf", ".png", ".jpg",
}  # fmt: skip
"""Endings of files that lie beside DICOM and are none."""
_NO_MODALITY = "modality not given"
_PREAMBLE, _PREFIX = 128, b"DICM"
# Spectroscopy, raw data, parametric maps and Siemens' own: modality MR, but no image as a scanner took it.
_NO_PICTURE = {
    "1.2.840.10008.5.1.4.1.1.4.2", "1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.30", "1.3.12.2.1107.5.9.1",
}  # fmt: skip


class DicomError(ValueError):
    """A folder of DICOM that cannot be taken as one volume; the text names files and the way out."""


# pydicom remarks on each odd value of each file, twice: as a warning, and in its log and the logs below it. What is
# said while `collect_pydicom_warnings` is active is collected by it, in this thread; else it goes where it went before.
warnings.filterwarnings("ignore", module=r"pydicom\.")
_listening = threading.local()


def _hears(record: logging.LogRecord) -> bool:
    heard: list[str] | None = getattr(_listening, "heard", None)
    if heard is not None:
        heard.append(record.getMessage())
    return heard is None


@contextmanager
def collect_pydicom_warnings() -> Iterator[list[str]]:
    """Hold back what pydicom remarks on files in the block; the list that is yielded gets it."""
    for name in [*logging.Logger.manager.loggerDict]:
        if name.partition(".")[0] == "pydicom":  # a filter of a log does not hear of those below it
            logging.getLogger(name).addFilter(_hears)
    before, _listening.heard = getattr(_listening, "heard", None), []
    try:
        yield _listening.heard
    finally:
        _listening.heard = before


def read_tags(path: Path, names: Sequence[str]) -> Dataset:
    """Some attributes of a DICOM file, with or without a preamble; pydicom's remarks are held back.

    Raises:
        Exception: pydicom raises nearly anything on bad bytes.
    """
    with collect_pydicom_warnings():
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(names), force=True)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Whatever goes wrong in the block becomes a `DicomError` that names `path`."""
    try:
        yield
    except DicomError:
        raise
    except Exception as error:  # pydicom and its decoders raise nearly anything on bad bytes
        raise DicomError(f"cannot read {path.name}: {error}; replace it by a fresh export, or remove it") from error


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: a file, or one of the frames in it.

    Attributes:
        path: The file.
        index: Which frame of the file; None where it holds one picture only.
        instance: SOPInstanceUID of the file.
        series: SeriesInstanceUID, SeriesNumber, SeriesDescription.
        echo: Echo time in ms and EchoNumbers, each None where it is not said.
        shape: Rows and columns.
        position: Of the centre of the first pixel, LPS mm, ImagePositionPatient; `grid` checks its size.
        cosines: ImageOrientationPatient: direction along a row, then down a column.
        spacing: PixelSpacing in mm: between rows, then between columns.
        bits: BitsStored, negative where pixels are signed.
        padding: The lowest and the highest stored value that PixelPaddingValue and PixelPaddingRangeLimit declare to be
            no measurement; None if the file declares none.
        inverted: Whether the largest stored value is black (MONOCHROME1).
        colour: Whether it is a screenshot or an overlay, and no measurement.
        rescale: Slope and intercept from stored values to those that are meant.
        side: Of the knee, as far as the file says.
        both: Whether the file says that both knees are in the picture, and names none.
        number: The InstanceNumber, and the number of images by ImagesInAcquisition; None for each that is not given.
    """

    path: Path
    index: int | None
    instance: str
    series: tuple[str, int | None, str]
    echo: tuple[float | None, int | None]
    shape: tuple[int, int]
    position: np.ndarray
    cosines: np.ndarray
    spacing: np.ndarray
    bits: int
    padding: tuple[int, int] | None
    inverted: bool
    colour: bool
    rescale: tuple[float, float]
    side: Side
    both: bool
    number: tuple[int | None, int | None]

    @property
    def name(self) -> str:
        """What to call it to the user: never more than the file's own name."""
        return self.path.name if self.index is None else f"{self.path.name} frame {self.index + 1}"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does: with a preamble, or with its first attribute, as older programs write it."""
    with path.open("rb") as file:
        begin = file.read(_PREAMBLE + len(_PREFIX))
    group, element = int.from_bytes(begin[:2], "little"), int.from_bytes(begin[2:4], "little")
    explicit, length = begin[4:6].isupper(), int.from_bytes(begin[4:8], "little")
    return begin[_PREAMBLE:] == _PREFIX or (group in (2, 8) and element <= 0x18 and (explicit or 0 < length <= 256))


def may_be_truncated_dicom(path: Path) -> bool:
    """Whether a file may have been DICOM before it was cut off: it is empty, begins with zeros, or leads nowhere.

    An interrupted copy leaves such files: DICOM begins with 128 zeros, and a file whose room was reserved is all zeros.
    """
    if path.suffix.lower() in _OTHERS:
        return False
    if not path.exists():
        return True
    try:
        with path.open("rb") as file:
            return not any(file.read(_PREAMBLE + len(_PREFIX)))
    except OSError:  # `read_frames` says why it cannot be read
        return False


def read_frames(path: Path, any_modality: bool = False) -> list[Frame] | str:
    """The pictures in a file, or the reason why it holds none that matter.

    Args:
        path: Any file; one that is not DICOM gives a reason.
        any_modality: Whether images count that are not MR by their header, as research programs write them.

    Raises:
        DicomError: The file is corrupt, cut off, or contradicts itself.
    """
    with errors_naming(path):
        if not is_dicom(path):
            if path.suffix.lower() == ".dcm":
                raise InvalidDicomError("it does not begin as DICOM does")
            return "not DICOM"
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_WANTED, force=True)
        reason = _reason_to_skip(header, any_modality)
        missing = [name for name in _PIXEL_TAGS if name not in header or header[name].is_empty]
        if reason and not (missing and reason == _NO_MODALITY):
            return reason
        if missing:
            raise DicomError(f"{path.name} lacks {', '.join(missing)}: cut off or stripped; export the series again")
        _check_length(path, header)
        if "PerFrameFunctionalGroupsSequence" not in header:
            if int(header.get("NumberOfFrames") or 1) > 1:
                raise DicomError(f"{path.name} has several frames without a place; convert the series with dcm2niix")
            return [_frame(path, None, header, header)]
        groups = [_flat(header, one) for one in header.PerFrameFunctionalGroupsSequence]
        if len(groups) != int(header.get("NumberOfFrames") or 1):
            raise DicomError(f"{path.name} describes {len(groups)} frames but has {header.get('NumberOfFrames')}")
        kinds = [str(group.get("ComplexImageComponent") or "MAGNITUDE") for group in groups]
        kept = [index for index, kind in enumerate(kinds) if kind == "MAGNITUDE"] or range(len(groups))
        return [_frame(path, index, header, groups[index]) for index in kept]


def _check_length(path: Path, header: Dataset) -> None:
    """Refuse a file that is shorter than its pixels, where they are not compressed."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (not syntax.is_transfer_syntax or syntax.is_compressed or syntax.is_deflated):
        return
    samples = int(header.get("SamplesPerPixel") or 1) * int(header.get("NumberOfFrames") or 1)
    bits = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) * samples
    if path.stat().st_size < bits // 8:
        raise DicomError(f"{path.name} is cut off: it has fewer bytes than its pixels need; fetch or export it again")


def _reason_to_skip(header: Dataset, any_modality: bool) -> str | None:
    types, modality = header.get("ImageType") or [], str(header.get("Modality") or "")
    if header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        return "a DICOM directory"
    if modality != "MR" and (not any_modality or modality in _NO_IMAGE):
        return f"modality {modality}, not MR" if modality else _NO_MODALITY
    if "LOCALIZER" in ([types] if isinstance(types, str) else types):
        return "a localizer"
    if header.get("SOPClassUID") in _NO_PICTURE:
        return "no picture"
    return None


def _flat(header: Dataset, own: Dataset) -> Dataset:
    """The attributes of one frame: those that it shares with the others, and its own, which count more."""
    attributes = Dataset()
    for groups in (*header.get("SharedFunctionalGroupsSequence", []), own):
        for group, names in _FUNCTIONAL_GROUPS.items():
            for item in groups.get(group, [])[:1]:
                for name in names:
                    if name in item:
                        attributes[name] = item[name]
    return attributes


def _frame(path: Path, index: int | None, header: Dataset, tags: Dataset) -> Frame:
    number, echo = header.get("SeriesNumber"), header.get("EchoNumbers")
    time = tags.get("EchoTime", tags.get("EffectiveEchoTime"))
    position, cosines, spacing = (_numbers(tags.get(name)) for name in PLACE_TAGS)
    slope, intercept = tags.get("RescaleSlope"), tags.get("RescaleIntercept")
    kind = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    return Frame(
        path=path,
        index=index,
        instance=str(header.get("SOPInstanceUID") or ""),
        series=(
            str(header.get("SeriesInstanceUID") or ""),
            None if number is None else int(number),
            str(header.get("SeriesDescription") or ""),
        ),
        echo=(None if time is None else round(float(time), 3), int(echo) if isinstance(echo, int) else None),
        shape=(int(header.Rows), int(header.Columns)),
        position=position,
        cosines=cosines,
        spacing=spacing,
        bits=-int(header.BitsStored) if header.PixelRepresentation else int(header.BitsStored),
        padding=_padding(header),
        inverted=kind == "MONOCHROME1",
        colour=not kind.startswith("MONOCHROME") or header.get("SamplesPerPixel", 1) != 1,
        rescale=(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        side=_side(path, header, tags),
        both="B" in _sides(header, tags) and not _side(path, header, tags),
        number=(_integer(header.get("InstanceNumber")), _integer(header.get("ImagesInAcquisition"))),
    )


def _integer(value: object) -> int | None:
    return None if value is None or isinstance(value, str) else int(value)  # type: ignore[call-overload]


def _padding(header: Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value that is declared to be no measurement (PS3.3, C.7.5.1.1.2)."""
    ends = [_stored_value(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    told = [end for end in ends if end is not None]
    return (min(told), max(told)) if ends[0] is not None else None


def _stored_value(header: Dataset, name: str) -> int | None:
    """An attribute whose value is a stored value: it has the sign of the pixels, whatever sign its own type has.

    In files without explicit types pydicom does not know the sign, and leaves the value as bytes.
    """
    value = header.get(name)
    if value is None or value == "":
        return None
    signed = bool(header.PixelRepresentation)
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little", signed=signed)
    size = 1 << int(header.BitsAllocated)
    return int(value) % size - size * (signed and int(value) % size >= size // 2)


def _numbers(value: object) -> np.ndarray:
    return np.atleast_1d(np.array([] if value is None else value, dtype=float))


def _side(path: Path, header: Dataset, tags: Dataset) -> Side:
    stated = _sides(header, tags) & {"R", "L"}
    if len(stated) > 1:
        raise DicomError(f"{path.name} says both right and left; correct Laterality or ImageLaterality")
    return Side("".join(stated))


def _sides(header: Dataset, tags: Dataset) -> set[str]:
    return laterality_letters((header.get("Laterality"), header.get("ImageLaterality"), tags.get("FrameLaterality")))


def laterality_letters(told: Iterable[object]) -> set[str]:
    """The first letters of what attributes say of the side, in capitals: some programs write "LEFT", or "BOTH"."""
    return {str(side or "").strip().upper()[:1] for side in told}
