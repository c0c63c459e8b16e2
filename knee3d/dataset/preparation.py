"""Prepare knees: images and masks become PNG slices and cases."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from knee3d.atomic import whole_folder
from knee3d.choices import PIXEL_BITS, check_choice
from knee3d.dataset.case_collection import CASE_FILE, Case, Split, load_case, save_case
from knee3d.dataset.intensity import (
    WINDOW_RULE,
    IntensityWindow,
    check_one_knee,
    find_window,
    replace_padding,
    to_pixels,
)
from knee3d.dataset.manifest import ManifestRow
from knee3d.dataset.png_slices import write_slices_in_background
from knee3d.dataset.split import check_fractions, check_no_leak, split_patients
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.io.image_source import DEFAULT_OPTIONS, ReadOptions, read_image, read_mask
from knee3d.io.paths import files_read_for
from knee3d.labels.label_names import LabelNames, labels_to_classes
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import agreed_side, check_side, side_from_labels
from knee3d.labels.scheme_files import scheme_to_json
from knee3d.lease import Lease, LeaseHeldError, leased, run_in_threads, share_work
from knee3d.recorded_settings import changed_settings, old_defaults
from knee3d.records import Settings

log = logging.getLogger(__name__)

THREADS = 2  # for one knee: a second core encodes while the first one reads


@dataclass(frozen=True)
class PrepareConfig:
    """How knees become cases.

    Attributes:
        scheme: Classes of the masks on disk.
        label_names: What the values of source masks mean that do not tell themselves; None when there are none.
        fractions: Of patients for train, val and test, unless the table has a split column.
        seed: Of the split.
        choice: What the paths of images and masks do not say.
        bits: Of an image's pixels, 8 or 16.

    Raises:
        ValueError: Bits are others.
    """

    scheme: LabelScheme
    label_names: LabelNames | None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    seed: int = 0
    choice: ReadOptions = DEFAULT_OPTIONS
    bits: int = 8

    def __post_init__(self) -> None:
        check_choice("bits", self.bits, PIXEL_BITS)

    @property
    def settings(self) -> Settings:
        """What the slices of a knee depend on beside its files, ready for a record."""
        apart = ("scheme", "label_names", "fractions", "seed", "choice")
        names = self.label_names and {str(value): name for value, name in sorted(self.label_names.names.items())}
        return {
            "scheme": scheme_to_json(self.scheme),
            "labels": names,
            "choice": self.choice.settings,
            **{field.name: getattr(self, field.name) for field in fields(self) if field.name not in apart},
        }


def to_network_input(source: KneeImage, bits: int = 8) -> tuple[Volume, IntensityWindow]:
    """Make what a network sees from the image of a knee. Training and inference both call this function.

    Args:
        source: The image in any order of axes. Its side says whether it is mirrored, its name is used in messages.
        bits: Bits of a pixel, 8 or 16.

    Returns:
        uint8 (uint16 for 16 bits) in canonical axes, a left knee mirrored to right, and the window used.

    Raises:
        ValueError: See `replace_padding`, `check_one_knee` and `find_window`.
    """
    canonical = replace_padding(to_canonical(source, source.side), source.name)
    check_one_knee(canonical)
    window = find_window(canonical)
    return to_pixels(canonical, window, bits), window


def prepare_knee(knee: ManifestRow, folder: Path, preparation: PrepareConfig, lease: Lease | None = None) -> Case:
    """Write one knee's slices in the three planes.

    Args:
        knee: What and where.
        folder: The dataset's; the case's own folder in it appears whole or not at all.
        preparation: How.
        lease: Lease on the case's folder, where other processes may prepare it.

    Returns:
        The case, its split still empty.

    Raises:
        LeaseLostError: Another process has the lease now.
        ValueError: Image or mask are unusable, do not lie on one grid, or contradict the table, or the case's folder is
            there and none of a dataset; says which case.
    """
    there = folder / knee.case
    if there.exists() and not (there / CASE_FILE).is_file():
        raise ValueError(f"{there} is there and was not made by knee3d prepare; give another folder, or remove it")
    source_mark = source_fingerprint(knee)
    # The pool is left, and so idle, before the folder is renamed or removed.
    with whole_folder(there) as partial, ThreadPoolExecutor(THREADS) as pool:
        try:
            seen = pool.submit(_read_image, knee, preparation)
            labels = pool.submit(read_mask_classes, knee.mask, seen.result, preparation) if knee.mask else None
            source = seen.result()
            classes, shown = labels.result() if labels else (None, Side.UNKNOWN)
            side = agreed_side(source.side, Side.UNKNOWN, shown)
            check_side(side, preparation.scheme)
            written = _start(to_canonical(classes, side), partial, "mask", pool) if classes else []
            image, window = to_network_input(replace(source, side=side), preparation.bits)
        except ValueError as error:
            raise ValueError(f"case {knee.case} ({knee.image}): {error}") from error
        written += _start(image, partial, "image", pool)
        if side is Side.UNKNOWN:
            log.warning(
                "case %s: side unknown, taken as a right knee; say it in the column side of the table", knee.case
            )
        case = Case(
            name=knee.case,
            patient=knee.patient,
            visit=knee.visit,
            side=side,
            split=Split.NONE,
            shape=image.shape,
            affine=image.affine,
            source_axes=axis_codes(source.affine),
            window=window,
            labelled=classes is not None,
            fingerprint=_hash([source_mark, preparation.settings]),
            source=source_mark,
            settings=preparation.settings,
        )
        save_case(case, partial)
        for slice_on_disk in written:
            slice_on_disk.result()
        if lease:
            lease.renew()
    return case


def load_finished_case(knee: ManifestRow, folder: Path, preparation: PrepareConfig) -> Case | None:
    """The case without split that was made of a knee before; None where there is none, or one of something else.

    An earlier version of knee3d may have made it, see `records`.

    Raises:
        OSError: Files of the knee cannot be looked at.
    """
    case = load_case(folder / knee.case)
    if case is None or case.source != source_fingerprint(knee) or case.window.rule != WINDOW_RULE:
        return None
    if (case.name, case.patient, case.visit) != (knee.case, knee.patient, knee.visit) or knee.side not in (
        "",
        case.side,
    ):
        return None  # the table says something else now, or the file was changed
    default, choice = type(preparation)(preparation.scheme, None), type(preparation.choice)()
    lacking = {
        **old_defaults(default.settings, default),
        "choice": old_defaults(choice.settings, choice),
    }
    return None if changed_settings(case.settings, preparation.settings, lacking) else case


def prepare_knees(
    knees: Sequence[ManifestRow], folder: Path, preparation: PrepareConfig, jobs: int
) -> Iterator[Case | ValueError | OSError]:
    """Prepare many knees, several at a time; other processes, on any machine, may prepare the same ones.

    Threads, not processes: reading, percentiles and PNG encoding run outside Python's lock.

    Args:
        knees: Rows of the table.
        folder: The dataset's.
        preparation: How.
        jobs: Knees at a time.

    Yields:
        For each knee, as it is finished here or elsewhere, its case without split, or the error that it ended with: one
        bad knee does not stop the others.
    """

    def work(knee: ManifestRow, take_over: bool) -> Case | ValueError | OSError:
        try:
            with leased(folder / knee.case, take_over) as lease:
                known = load_finished_case(knee, folder, preparation)
                return known or prepare_knee(knee, folder, preparation, lease)
        except LeaseHeldError:
            raise
        except (ValueError, OSError) as error:
            return error
        except Exception as error:  # whatever it is, it is this knee's, and others wait behind it
            log.debug("%s", knee.case, exc_info=True)
            return ValueError(f"case {knee.case} ({knee.image}): {type(error).__name__}: {error}")

    ended: Iterator[tuple[str, Case | ValueError | OSError]]
    ended = share_work({knee.case: knee for knee in knees}, run_in_threads(work, jobs))
    yield from (outcome for _, outcome in ended)


def assign_splits(cases: Sequence[Case], knees: Sequence[ManifestRow], preparation: PrepareConfig) -> tuple[Case, ...]:
    """Give every labelled case its split, by patient: the table's, or a new one.

    Raises:
        ValueError: A patient would be in two splits, or there are too few patients.
    """
    told = {knee.case: knee.split for knee in knees}
    labelled = [case for case in cases if case.labelled]
    if any(told[case.name] is None for case in labelled):
        drawn = split_patients([case.patient for case in labelled], preparation.fractions, preparation.seed)
        splits = {case.name: drawn[case.patient] for case in labelled}
    else:
        splits = {case.name: told[case.name] or Split.NONE for case in labelled}
    assigned = tuple(replace(case, split=splits.get(case.name, Split.NONE)) for case in cases)
    check_no_leak((case.patient, case.split) for case in assigned if case.labelled)
    return assigned


def check_splits(knees: Sequence[ManifestRow], preparation: PrepareConfig) -> None:
    """Refuse, before anything is prepared, what `assign_splits` would refuse afterwards.

    Raises:
        ValueError: A patient would be in two splits, the fractions are none, or there are too few patients.
    """
    labelled = [knee for knee in knees if knee.mask is not None]
    if any(knee.split is None for knee in labelled):
        check_fractions(len({knee.patient for knee in labelled}), preparation.fractions)
    else:
        check_no_leak((knee.patient, knee.split or Split.NONE) for knee in labelled)


def source_fingerprint(knee: ManifestRow) -> str:
    """SHA-256 of what the slices of a knee are made of: the row of the table, names, sizes and times of the files."""
    files = [path for place in (knee.image, knee.mask) if place for path in files_read_for(place)]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    row = (knee.case, knee.patient, knee.visit, knee.side, knee.mask is not None, *filter(None, [knee.series]))
    return _hash([row, stats])


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _start(volume: Volume, folder: Path, kind: str, pool: Executor) -> list[Future[None]]:
    """Begin to write the slices of all planes; futures as of `write_slices_in_background`."""
    return [
        future
        for plane in Plane
        for future in write_slices_in_background(to_slices(volume, plane), folder / plane.value / kind, pool)
    ]


def _read_image(knee: ManifestRow, preparation: PrepareConfig) -> KneeImage:
    """The image in the source's axes, with the side that the table and the file tell."""
    choice = preparation.choice
    image = read_image(knee.image, replace(choice, series=knee.series or choice.series))
    return replace(image, side=agreed_side(knee.side, image.side), name=f"case {knee.case}")


def read_mask_classes(path: Path, knee: Callable[[], KneeImage], preparation: PrepareConfig) -> tuple[Volume, Side]:
    """The scheme's classes on the image's grid in canonical axes, not mirrored, and the side that the labels tell."""
    mask = read_mask(path, knee, preparation.choice, preparation.scheme)
    label_names = mask.label_names or preparation.label_names
    if mask.names_its_values and mask.label_names and preparation.label_names:
        theirs, ours = mask.label_names.names, preparation.label_names.names
        other = [value for value in theirs if ours.get(value, theirs[value]) != theirs[value]]
        if other:
            raise ValueError(
                f"{path} says that {other[0]} is {theirs[other[0]]}, the label file says {ours[other[0]]}; correct one"
            )
    if label_names is None:
        raise ValueError(
            f"what the values of {path} mean is not known; put labels.json beside the table or give --labels"
        )
    try:
        classes = labels_to_classes(mask.labels.array, label_names, preparation.scheme)
        shown = side_from_labels(mask.labels, label_names)
    except ValueError as error:
        raise ValueError(f"mask {path}: {error}") from error
    names = preparation.scheme.names
    absent = [name for number, name in enumerate(names, start=1) if not (classes == number).any()]
    if len(absent) == len(names):
        raise ValueError(f"mask {path} has no tissue of the scheme {preparation.scheme.name}")
    if absent:
        log.warning("mask %s has no %s", path, ", ".join(absent))
    # Last, so that all of this is done while the image is still being read.
    mask = replace(mask, labels=mask.labels.with_array(classes))
    return mask.on_grid_of(to_canonical(knee())), shown
