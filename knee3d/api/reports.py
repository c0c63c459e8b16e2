"""Make reports of segmented knees, and one page of all of them.

RESULTS/index.html      all knees, the worst first
RESULTS/measures.csv    of all knees, in long form
RESULTS/CASE/report/    of each, see `api.case_report`; appears when it is complete

Any number of processes on machines with a common disk may do it at the same time, also while knees are segmented.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from knee3d.api.case_report import (
    MEASURES,
    PAGE,
    SEEN_SHORT,
    write_case_report,
)
from knee3d.api.case_result import CaseResult, DiskFullError, checking_disk_space, one_line_error
from knee3d.api.report_record import (
    REPORT_RECORD,
    ReportConfig,
    ReportRecord,
    is_report_current,
    report_digests,
    report_origin,
)
from knee3d.api.segmentation_record import (
    RECORD,
    REPORT,
    cached_content_fingerprint,
    check_results_unmodified,
    load_record,
)
from knee3d.api.segmented_case import SegmentedCase
from knee3d.dataset.input_case import InputCase, find_cases
from knee3d.dataset.manifest import read_manifest
from knee3d.io.image_source import DEFAULT_OPTIONS, ReadOptions
from knee3d.io.label_names_file import LABELS_FILE, read_label_names
from knee3d.lease import LeaseHeldError, file_system_time, leased, run_in_threads, share_work, wait_for_lease
from knee3d.progress import progress
from knee3d.report.measures_files import COLUMNS
from knee3d.report.quality_record import QUALITY

log = logging.getLogger(__name__)

INDEX = "index.html"


@dataclass(frozen=True)
class ReportInputs:
    """Where the images lie that were segmented, and what is known of them.

    Attributes:
        entries: Case to image.
        masks: Case to a mask to score against.
        label_names: Of masks that do not tell what their values mean: name of a built-in or path of a file.
    """

    entries: Mapping[str, InputCase] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)
    label_names: str | None = None


def find_report_inputs(
    path: Path | None, label_names: str | None = None, choice: ReadOptions = DEFAULT_OPTIONS
) -> ReportInputs:
    """What a path says of knees: a knee, a folder of knees, or a table, which may name masks.

    Args:
        path: As `find_cases` has it; None is no knee.
        label_names: See `ReportInputs`.
        choice: What the path does not say of images.

    Raises:
        ValueError: As `find_cases`.
    """
    if path is None:
        return ReportInputs()
    entries = {entry.case: entry for entry in find_cases(path, choice=choice)}
    masks: dict[str, Path] = {}
    if path.suffix.lower() == ".csv":
        masks = {knee.case: knee.mask for knee in read_manifest(path, must_exist=False) if knee.mask}
        beside = path.with_name(LABELS_FILE)
        label_names = label_names or (str(beside) if beside.is_file() else None)
    return ReportInputs(entries, masks, label_names)


def make_reports(
    results: Path | str,
    knees: Path | str | None = None,
    *,
    meshes: str = "ply",
    triangle_share: float = 1.0,
    labels: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    overwrite: bool = False,
    jobs: int = 1,
) -> list[CaseResult[ReportRecord]]:
    """Measure segmented knees in mm3 and mm, and make a page of each that opens in a browser, from disk.

    A report that is there and was made of the same is kept. A knee that fails does not stop the others.

    Args:
        results: What `segment` filled: a folder of knees, or the folder of one.
        knees: What was segmented: a knee, a folder of knees, or a table, which may name masks to score against. None:
            the pages have no MR image.
        meshes: Format of the surfaces: "ply", "stl" or "vtp".
        triangle_share: Share of the triangles of surfaces that is kept, in (0, 1].
        labels: Meaning of the values of masks: a name, such as "pymskt", or a file.
        options: What the paths of images do not say.
        overwrite: Whether to replace reports that were made before this call.
        jobs: Knees at a time.

    Returns:
        A result for each knee: "done", "kept" or "failed".

    Raises:
        ValueError: There is no segmented knee, or a setting has a wrong value.

    Example:
        >>> make_reports("labels", "knees.csv")        # doctest: +SKIP
    """
    inputs = find_report_inputs(None if knees is None else Path(knees), labels, options)
    return write_reports(Path(results), inputs, ReportConfig(meshes, triangle_share), overwrite, jobs)


def write_reports(
    results: Path, knees: ReportInputs, config: ReportConfig, overwrite: bool = False, jobs: int = 1
) -> list[CaseResult[ReportRecord]]:
    """Measure finished knees, and make a page of each and one of all.

    A report that was made of the same is kept, and so is one that was made of the same results and their images or
    truth where these are not given now. It returns when no other process works on any of the knees. A knee that fails
    stops no other.

    Args:
        results: What `segment` filled: a folder of knees, or the folder of one.
        knees: Where their images lie; without, pages show labels and surfaces alone.
        config: How reports are made.
        overwrite: Whether to replace those that were made before this run began.
        jobs: Knees at a time.

    Returns:
        What became of each.

    Raises:
        ValueError: There is no finished knee.
        OSError: There is no room for the index.
    """
    folders = {folder.name: folder for folder in finished_folders(results)}
    _refuse_foreign_files(results, [*folders.values()])
    home = next(iter(folders.values())).resolve().parent
    since = file_system_time(home) if overwrite else -math.inf

    def work(folder: Path, take_over: bool) -> CaseResult[ReportRecord]:
        try:
            with checking_disk_space(folder), leased(folder.resolve(), take_over) as lease:
                given = _given(folder, knees, single=len(folders) == 1)
                known = _known(folder, given, config, since)
                if known is None and knees.entries and given.entry is None:
                    log.warning("%s: its image is not among those given; the page goes without", folder.name)
                record = known or write_case_report(folder, given, config, lease)
            return CaseResult(folder.name, "kept" if known else "done", record=record)
        except (LeaseHeldError, DiskFullError):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", folder, exc_info=True)
            return CaseResult(folder.name, "failed", one_line_error(error))

    found: dict[str, CaseResult[ReportRecord]] = {}
    with progress("reports", len(folders)) as advance:
        try:
            for case, outcome in share_work(folders, run_in_threads(work, jobs)):
                found[case] = outcome
                if outcome.message:
                    log.error("%s: %s", case, outcome.message)
                advance(1)
        except DiskFullError as error:
            log.error("%s", error)
            for case in folders:
                found.setdefault(case, CaseResult(case, "failed", one_line_error(error)))
        outcomes = [found[case] for case in folders]
        if results not in folders.values() and any(one.record for one in outcomes):
            with checking_disk_space(results), wait_for_lease(results / INDEX):
                _write_index(results, [*outcomes, *_others(results, folders)])
    return outcomes


def _others(results: Path, known: Collection[str]) -> Iterator[CaseResult[ReportRecord]]:
    """Reports of knees that were finished after this run began, by other processes."""
    for path in sorted(results.glob(f"[!.]*/{REPORT}/{REPORT_RECORD}")):
        case = path.parent.parent.name
        if case not in known:
            with suppress(OSError, ValueError):
                yield CaseResult(case, "kept", record=ReportRecord.from_json(path.read_bytes()))


def _refuse_foreign_files(results: Path, folders: Sequence[Path]) -> None:
    """Refuse to replace an index or a table of measures of several knees that is not knee3d's.

    Raises:
        ValueError: Names the file.
    """
    if results in folders:
        return
    for name, known in ((INDEX, ", knee3d</title>"), (MEASURES, ",".join(COLUMNS))):
        path = results / name
        if not path.exists():
            continue
        try:
            with path.open("rb") as file:
                begin = file.read(1 << 16)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); move it away") from error
        if known.encode() not in begin:
            raise ValueError(f"{path} is there and is not knee3d's; move it away")


def finished_folders(results: Path) -> list[Path]:
    """The folders of finished knees.

    Raises:
        ValueError: There is none.
    """
    if (results / RECORD).is_file():
        return [results]
    folders = sorted(path.parent for path in results.glob(f"[!.]*/{RECORD}"))
    for lost in sorted(path.parent for path in results.glob(f"[!.]*/{QUALITY}")):
        if lost not in folders:
            log.warning("%s holds results without %s and is left out; segment the knee again", lost, RECORD)
    if not folders:
        raise ValueError(f"{results} holds no finished knee; knee3d segment makes them (a folder with {RECORD} each)")
    return folders


def _given(folder: Path, knees: ReportInputs, single: bool) -> SegmentedCase:
    """What there is of one knee.

    Raises:
        ValueError: Its record is damaged, or the image is another one than was segmented.
    """
    record = load_record(folder)
    if record is None:
        raise ValueError(f"{folder} is gone")
    if record.case != folder.resolve().name:
        raise ValueError(f"{folder} holds {record.case!r}: it was renamed or copied; give it the knee's name again")
    check_results_unmodified(folder, record, "segment the knee again")
    entry = knees.entries.get(record.case)
    if entry is None and single and len(knees.entries) == 1:
        (entry,) = knees.entries.values()
    if entry is not None and cached_content_fingerprint(entry.source.path, folder, record) != record.image_fingerprint:
        raise ValueError(f"{entry.source.path} is not the image that was segmented, or was changed since")
    told = entry.source.side if entry is not None else ""
    if told and record.side and told != record.side:
        raise ValueError(f"{folder} is of side {record.side}, but the table says {told}; segment the knee again")
    mask = knees.masks.get(record.case)
    label_names = read_label_names(knees.label_names, record.scheme) if mask and knees.label_names else None
    return SegmentedCase(record, entry, mask, label_names)


def _known(folder: Path, given: SegmentedCase, config: ReportConfig, since: float) -> ReportRecord | None:
    """The record of a report that was made of the same, or of more, after a time; None where there is none."""
    path = folder / REPORT / REPORT_RECORD
    try:
        record = ReportRecord.from_json(path.read_bytes())
        if path.stat().st_mtime < since:
            return None
        origin = report_origin(folder, given, config)
        results = origin.segmentation_fingerprint
        if report_digests(folder / REPORT) != record.files or record.origin.segmentation_fingerprint != results:
            return None
        if is_report_current(record, origin, config):
            return record
        more = _made_of_more(record, given)
    except (OSError, ValueError):
        return None
    if not more:
        return None
    log.warning("%s: its report was made with %s and is kept; give the same knees again, or --overwrite", folder.name,
                more)  # fmt: skip
    return record


def _made_of_more(record: ReportRecord, given: SegmentedCase) -> str:
    """What a report was made of that is not given now, in words: a poorer one must not take its place unasked."""
    has_image = given.entry is not None
    known = (
        ("its image", record.origin.has_image, has_image),
        ("the truth", record.has_scores, has_image and given.mask),
    )
    return " and ".join(words for words, had, has in known if had and not has)


def _write_index(results: Path, outcomes: Sequence[CaseResult[ReportRecord]]) -> None:
    from knee3d.report.index_page import IndexRow, write_index
    from knee3d.report.measures_files import read_measures_csv, write_measures_csv

    measures, rows = {}, []
    for outcome in outcomes:
        if not outcome.record:
            rows.append(IndexRow(case=outcome.case, report=f"{outcome.case}/", flags=[f"no report: {outcome.message}"]))
            continue
        record, case, folder = outcome.record, outcome.case, results / outcome.case
        (found,) = read_measures_csv(folder / REPORT / MEASURES).values()
        measures[case] = found
        of_all = {name: {one.tissue: one.value for one in found if (one.region, one.measure) == ("whole", name)}
                  for name in ("volume", "thickness_mean")}  # fmt: skip
        rows.append(
            IndexRow(
                case=case,
                report=f"{outcome.case}/{REPORT}/{PAGE}",
                side=record.side,
                flags=record.flags,
                unchecked=bool(record.unchecked),
                inter_view_dice=record.inter_view_dice,
                predictive_entropy=record.predictive_entropy,
                volumes_mm3=of_all["volume"],
                thickness_mm=of_all["thickness_mean"],
                thumbnail=f"{outcome.case}/overview.png",
                seen=SEEN_SHORT.get(record.patient_seen, ""),
            )
        )
    write_measures_csv(results / MEASURES, measures)
    write_index(rows, results / INDEX, "Knees")
