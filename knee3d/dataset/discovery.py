"""Find the knees in a folder by the common layouts, as rows of a manifest.

    nnU-Net             imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz (Ts likewise)
    IWOAI 2019          train_001_V00.im, train_001_V00.seg
    BIDS-like           sub-01/ses-02/anat/*.nii.gz, its mask *_dseg.nii.gz or *_mask.nii.gz beside it
    patient and visit   9001/00/dess/*.dcm, its mask 9001/00/mask.nii.gz, or any volume file in place of the folder
    both in one name    9001-baseline/, 9001-month-12/, as `knee3d phantom` has them
    iMorphics           9001/00/dess/*.dcm, its outlines 9001/00/*.mat
    flat                NAME.nii.gz, NAME_mask.nii.gz

A series that is spread over several folders is one knee, and series of one study are of one visit of a patient. What is
not sure stays empty. DICOM is asked for the series, the study and the side only.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import ManifestRow
from knee3d.geometry.orientation import Side
from knee3d.io.array_file import ENDINGS as ARRAY_ENDINGS
from knee3d.io.dicom.grid import is_one_stack
from knee3d.io.dicom.headers import is_dicom, laterality_letters, read_tags
from knee3d.io.dicom.segmentation import is_segmentation
from knee3d.io.dicom.series import scan_folder
from knee3d.io.outlines import ENDINGS as CONTOUR_ENDINGS
from knee3d.io.paths import files_below, folders_below
from knee3d.io.volume_file import READABLE

_MASK_WORDS = re.compile(r"(?:^|[._-])(?:mask|masks|seg|dseg|segmentation|label|labels)(?=$|[._-])", re.IGNORECASE)
_MASK_FOLDERS = {"labelstr", "labelsts", "labels", "masks", "segmentations"}
_IWOAI = re.compile(r"(train|valid|test)_(\d+)_(V\d+)", re.IGNORECASE)
_IWOAI_SPLITS = {"train": Split.TRAIN, "valid": Split.VAL, "test": Split.TEST}
_CHANNEL = re.compile(r"_0000$")
_SIDES = {"right": Side.RIGHT, "left": Side.LEFT, "r": Side.RIGHT, "l": Side.LEFT}
NO_NAMES = {
    "dicom", "dicoms", "dcm", "dess", "image", "images", "img", "anat", "imagestr", "imagests", "mr", "mri", "scan",
    "series",
}  # fmt: skip
"""What folders and files are called by what they hold, and not by whose it is."""
_VISIT = re.compile(
    r"(?P<patient>.+?)[-_.](?P<visit>baseline|bl|screening|re-?test|(follow-?up|fu)-?\d*|(visit|v)-?\d{1,2}"
    r"|(week|month|year)s?[-_]?\d{1,2}|\d{1,2}[-_]?(weeks?|months?|years?|w|m|y))",
    re.IGNORECASE,
)
"""A patient and a visit in one name. Numbers alone are no visit: they may count patients."""
ZIP = ".zip"
MOST_OF_A_VISIT = 2
"""More volume files in one folder are each of a patient."""


@dataclass(frozen=True)
class DiscoveredCases:
    """What was found.

    Attributes:
        knees: Rows for a table.
        notes: In words what was guessed and what was left out.
        without_knee: Folders with files that are none of a knee.
    """

    knees: tuple[ManifestRow, ...]
    notes: tuple[str, ...]
    without_knee: tuple[Path, ...] = ()


def discover_cases(folder: Path) -> DiscoveredCases:
    """Walk a folder for knees and their masks.

    Args:
        folder: In one of the layouts above; they may be mixed.

    Raises:
        NotADirectoryError: It is missing or no folder.
        ValueError: There is no knee in it.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the one that holds the knees")
    files = [path for path in files_below(folder) if path.is_file()]
    masks = [path for path in files if _is_mask(path)]
    images = [*_series_folders(folder), *(path for path in files if _is_image_file(path) and path not in masks)]
    if not images:
        raise ValueError(f"no DICOM folder, zip or volume file in {folder}; a table written by hand will do too")
    studies = _studies([image for image in images if image.is_dir()])
    guessed = _with_visits(_told_apart([_knee(image, folder) for image in images]))
    knees = _named_apart(_of_studies(guessed, studies, folder), folder)
    paired = _paired(knees, masks)
    left = tuple(_without_knee(files, images, masks))
    return DiscoveredCases(tuple(paired), (*_notes(paired, masks), *_notes_of_studies(paired, studies)), left)


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith((*READABLE, *ARRAY_ENDINGS))


def _is_image_file(path: Path) -> bool:
    return _is_volume(path) or path.suffix.lower() == ZIP


def _is_mask(path: Path) -> bool:
    """By its ending, or by name and folder if it is of a form that could be an image as well."""
    if path.suffix.lower() in (".seg", *CONTOUR_ENDINGS):
        return True
    named = path.parent.name.lower() in _MASK_FOLDERS or bool(_MASK_WORDS.search(file_stem(path)))
    return named and (_is_volume(path) or is_segmentation(path))


def file_stem(path: PurePath) -> str:
    """The name without any ending, and without nnU-Net's number of the channel."""
    name = path.name
    for ending in (*READABLE, *ARRAY_ENDINGS, *CONTOUR_ENDINGS, ".dcm", ZIP):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return _CHANNEL.sub("", name)


def is_dicom_folder(folder: Path) -> bool:
    """Whether a file of the folder itself is a DICOM image."""
    return any(_is_dicom_image(path) for path in sorted(folder.iterdir()) if path.is_file() and not _is_volume(path))


def _series_folders(folder: Path) -> list[Path]:
    """The folders that hold DICOM images, of a folder and all below it; one for a series that is spread over several.

    Some programs that remove names give all knees one SeriesInstanceUID, so it alone does not make folders one series:
    they must be of one study and lie as one stack.
    """
    first = {place: _identifiers(place) for place in filter(is_dicom_folder, folders_below(folder))}
    together = {}
    for uid in {uid for uid, _ in first.values()} - {""}:
        places = [place for place, (one, _) in first.items() if one == uid]
        above = Path(os.path.commonpath(places))
        alone = all(one == uid for place, (one, _) in first.items() if place.is_relative_to(above))
        copies = len({first[place] for place in places}) < len(places)
        if alone and not copies and len(places) > 1 and is_one_stack(scan_folder(above, any_modality=True).frames):
            together[uid] = above
    return sorted({together.get(uid, place) for place, (uid, _) in first.items()})


def _identifiers(folder: Path) -> tuple[str, str]:
    """Study and series of the first image in a folder, and its SOPInstanceUID; empty where they are not told."""
    tags = _tags_in(folder, ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    series = tags.get("SeriesInstanceUID", "")
    return series and f"{tags.get('StudyInstanceUID', '')} {series}", tags.get("SOPInstanceUID", "")


def _tags_in(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """What the first DICOM image in a folder says of some attributes; without those that it leaves empty."""
    try:
        tags = read_tags(_first_image(folder), names)
        return {name: str(tags.get(name)) for name in names if tags.get(name)}
    except Exception:  # a broken file is `prepare`'s to name
        return {}


def _first_image(folder: Path) -> Path:
    """The first DICOM image in a folder or, where it has none itself, in the next one below it that has."""
    for place in folders_below(folder):
        for path in sorted(place.iterdir()):
            if path.is_file() and _is_dicom_image(path):
                return path
    raise FileNotFoundError(f"{folder} holds no DICOM image")


def _without_knee(files: Sequence[Path], images: Sequence[Path], masks: Sequence[Path]) -> list[Path]:
    """Folders that hold files, and neither a knee nor the mask of one."""
    used = {path if path.is_dir() else path.parent for path in images} | {path.parent for path in masks}
    left = {path.parent for path in files} - used - {place.parent for place in used}
    return sorted(place for place in left if not set(images) & set(place.parents))


def _is_dicom_image(path: Path) -> bool:
    return (
        path.name.upper() != "DICOMDIR" and path.stat().st_size > 132 and is_dicom(path) and not is_segmentation(path)
    )


def _knee(image: Path, folder: Path) -> ManifestRow:
    """What the place of an image tells: patient, visit, side, split."""
    parts = [part for part in image.relative_to(folder).parts if part.lower() not in NO_NAMES]
    if image.is_file():
        parts[-1] = file_stem(image)
    iwoai = _IWOAI.match(parts[-1]) if parts else None
    if iwoai:
        kind, number, visit = iwoai.groups()
        patient, split = f"{kind}_{number}", _IWOAI_SPLITS[kind.lower()]
    else:
        bids = dict(part.split("-", 1) for part in reversed(parts) if part.startswith(("sub-", "ses-")))
        patient = bids.get("sub") or (parts[0] if parts else folder.resolve().name)
        visit = bids.get("ses", "") or (parts[1] if len(parts) > 2 or (len(parts) == 2 and image.is_dir()) else "")
        split = None
    case = "-".join(part for part in (patient, visit) if part)
    return ManifestRow(safe_case_name(case), patient, visit, _side(image, parts), image, None, split)


def _told_apart(knees: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Files of one folder that would be one patient's visit are each a patient, as in MRNet's axial/0000.npy."""
    counts = Counter((knee.image.parent, knee.patient, knee.visit) for knee in knees if knee.image.is_file())
    return [
        replace(knee, patient=file_stem(knee.image), visit="", case=safe_case_name(file_stem(knee.image)))
        if counts[knee.image.parent, knee.patient, knee.visit] > MOST_OF_A_VISIT
        else knee
        for knee in knees
    ]


def _with_visits(knees: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Visits are parted from patients' names, where two visits of one patient show that names are meant so."""
    parted = [_VISIT.fullmatch(knee.patient) if not knee.visit else None for knee in knees]
    counts = Counter(found["patient"] if found else knee.patient for knee, found in zip(knees, parted, strict=True))
    if not any(found and counts[found["patient"]] > 1 for found in parted):
        return list(knees)
    return [
        replace(knee, patient=found["patient"], visit=found["visit"]) if found else knee
        for knee, found in zip(knees, parted, strict=True)
    ]


def _studies(images: Sequence[Path]) -> dict[str, list[Path]]:
    """StudyInstanceUID to the folders of its series, for each study that has several.

    Where series of a study share their identifier, a program has given the same to all, and it says nothing.
    """
    names = ("StudyInstanceUID", "SeriesInstanceUID")
    studies: dict[str, dict[Path, str]] = {}
    for image in images:
        told = _tags_in(image, names)
        study, series = (told.get(name, "") for name in names)
        studies.setdefault(study, {})[image] = series
    return {uid: [*series] for uid, series in studies.items() if uid and 1 < len(series) == len({*series.values()})}


def _of_studies(knees: Sequence[ManifestRow], studies: Mapping[str, Sequence[Path]], folder: Path) -> list[ManifestRow]:
    """Series of one study are of one patient: that of the folder around them, or else of the first of them.

    They are of one visit, too, unless names tell visits apart and sides do not: some programs that remove names give
    all visits one StudyInstanceUID.
    """
    whose: dict[Path, ManifestRow] = {}
    for series in studies.values():
        together = [knee for knee in knees if knee.image in series]
        around = Path(os.path.commonpath(series))
        named = _knee(around, folder) if around != folder or len(together) == len(knees) else together[0]
        visits, sides = [knee.visit for knee in together], {knee.side for knee in together}
        if len({knee.patient for knee in together}) > 1 or (len({*visits}) > 1 and len(sides) == len(together)):
            whose.update({knee.image: named for knee in together})
    named_knees = [(knee, whose.get(knee.image, knee)) for knee in knees]
    return [replace(knee, patient=named.patient, visit=named.visit) for knee, named in named_knees]


def safe_case_name(name: str) -> str:
    """Fit for a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-") or "knee"


def _side(image: Path, parts: Sequence[str]) -> Side:
    """DICOM's word, or else that of the names; unknown if they say nothing, or both."""
    if image.is_dir():
        told = laterality_letters(_tags_in(image, ("Laterality", "ImageLaterality")).values()) & {"L", "R"}
        if told:
            return Side(told.pop()) if len(told) == 1 else Side.UNKNOWN
    words = {word for part in parts for word in re.split(r"[^a-z]+", part.lower())}
    sides = {side for word, side in _SIDES.items() if word in words}
    return sides.pop() if len(sides) == 1 else Side.UNKNOWN


def _named_apart(knees: Sequence[ManifestRow], folder: Path) -> list[ManifestRow]:
    """Cases of one name get that of their whole path, and if that is no help a number."""
    counts = Counter(knee.case.lower() for knee in knees)
    longer = [
        replace(
            knee, case=safe_case_name("-".join((*knee.image.relative_to(folder).parts[:-1], file_stem(knee.image))))
        )
        if counts[knee.case.lower()] > 1
        else knee
        for knee in knees
    ]
    seen: Counter[str] = Counter()
    unique = []
    for knee in longer:
        seen[knee.case.lower()] += 1
        number = seen[knee.case.lower()]
        unique.append(knee if number == 1 else replace(knee, case=f"{knee.case}-{number}"))
    return unique


def _paired(knees: Sequence[ManifestRow], masks: Sequence[Path]) -> list[ManifestRow]:
    """Each knee with its mask: of the same name, or the only one beside the only image."""
    paired = []
    for knee in knees:
        near = [mask for mask in masks if _are_near(knee.image, mask)]
        same = [mask for mask in near if _MASK_WORDS.sub("", file_stem(mask)) == file_stem(knee.image)]
        alone = len(near) == 1 and sum(_are_near(other.image, near[0]) for other in knees) == 1
        found = same if len(same) == 1 else near if alone and not same else []
        paired.append(replace(knee, mask=found[0] if found else None))
    return paired


def _are_near(image: Path, mask: Path) -> bool:
    """In one folder; a DICOM folder's own or the one above; or in folders for images and labels side by side."""
    if mask.parent in (image.parent, image):
        return True
    twins = {"imagestr": "labelstr", "imagests": "labelsts", "images": "labels"}
    below = mask.parent.name.lower()
    own = twins.get(image.parent.name.lower())
    return mask.parent.parent in (image.parent, image.parent.parent) and below in _MASK_FOLDERS and own in (None, below)


def _notes(knees: Sequence[ManifestRow], masks: Sequence[Path]) -> Iterator[str]:
    patients = len({knee.patient for knee in knees})
    yield (
        f"knees: {len(knees)}, patients: {patients}; patients and visits are guessed from names: give all visits and "
        "both knees of a person the same patient, or training and test patients will mix"
    )
    for side, word in ((Side.RIGHT, "right"), (Side.LEFT, "left"), (Side.UNKNOWN, "of unknown side")):
        count = sum(knee.side is side for knee in knees)
        if count:
            yield f"{count} {word}"
    without = [knee.case for knee in knees if knee.mask is None]
    if without:
        yield f"{len(without)} without a mask: {', '.join(without[:5])}{' ...' if len(without) > 5 else ''}"
    left = sorted(set(masks) - {knee.mask for knee in knees})
    if left:
        yield f"{len(left)} masks belong to no knee: {', '.join(str(path) for path in left[:5])}"


def _notes_of_studies(knees: Sequence[ManifestRow], studies: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    for series in studies.values():
        names = ", ".join(f"{knee.case} ({knee.side or 'side unknown'})" for knee in knees if knee.image in series)
        yield f"{len(series)} series of one study, taken as of one patient: {names}; keep those you mean"
