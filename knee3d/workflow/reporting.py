"""The journey from finished segmentations to measures, meshes and pages.

RESULTS/index.html      all knees, the worst first
RESULTS/measures.csv    of all knees, in long form
RESULTS/CASE/report/    of each, see `workflow.pages`; appears when it is complete

Any number of processes on machines with a common disk may do it at the same time, also while knees are segmented.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knee3d.anatomy.schemes import scheme_of_record
from knee3d.dataset.intake import Entry, knees_at
from knee3d.dataset.source import ANY, Choice
from knee3d.dataset.table import LABELS_FILE, read_numbering, read_table
from knee3d.lease import Held, disk_time, in_threads, in_turn, leased, share
from knee3d.progress import progress
from knee3d.workflow.finished import Given
from knee3d.workflow.outcome import NoRoom, Outcome, in_a_line, watching_room
from knee3d.workflow.pages import (
    MEASURES,
    PAGE,
    REPORT_RECORD,
    SEEN_SHORT,
    ReportWish,
    fingerprint_of_results,
    make_report,
    origin_of_report,
    report_digests,
    same_origin,
)
from knee3d.workflow.record import RECORD, REPORT, SEEN, check_unchanged, content_of, record_of

log = logging.getLogger(__name__)

INDEX = "index.html"


@dataclass(frozen=True)
class Knees:
    """Where the images lie that were segmented, and what is known of them.

    Attributes:
        entries: Case to image.
        masks: Case to a mask to score against.
        numbering: Of masks that do not tell what their values mean: name of a built-in or path of a file.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)
    numbering: str | None = None


def knees_of(path: Path | None, numbering: str | None = None, choice: Choice = ANY) -> Knees:
    """What a path says of knees: a knee, a folder of knees, or a table, which may name masks.

    Args:
        path: As `knees_at` has it; None is no knee.
        numbering: See `Knees`.
        choice: What the path does not say of images.

    Raises:
        ValueError: As `knees_at`.
    """
    if path is None:
        return Knees()
    entries = {entry.case: entry for entry in knees_at(path, choice=choice)}
    masks: dict[str, Path] = {}
    if path.suffix.lower() == ".csv":
        masks = {knee.case: knee.mask for knee in read_table(path, must_exist=False) if knee.mask}
        beside = path.with_name(LABELS_FILE)
        numbering = numbering or (str(beside) if beside.is_file() else None)
    return Knees(entries, masks, numbering)


def report(results: Path, knees: Knees, wish: ReportWish, overwrite: bool = False, jobs: int = 1) -> list[Outcome]:
    """Measure finished knees, and make a page of each and one of all.

    A report that was made of the same is kept, and so is one that was made of the same results and their images or
    truth where these are not given now. It returns when no other process works on any of the knees. A knee that fails
    stops no other.

    Args:
        results: What `segment` filled: a folder of knees, or the folder of one.
        knees: Where their images lie; without, pages show labels and surfaces alone.
        wish: How reports are made.
        overwrite: Whether to replace those that were made before this run began.
        jobs: Knees at a time.

    Returns:
        What became of each.

    Raises:
        ValueError: There is no finished knee.
        OSError: There is no room for the index.
    """
    folders = {folder.name: folder for folder in finished_folders(results)}
    home = next(iter(folders.values())).resolve().parent
    since = disk_time(home) if overwrite else -math.inf

    def work(folder: Path, take_over: bool) -> Outcome:
        try:
            with watching_room(folder), leased(folder.resolve(), take_over) as lease:
                given = _given(folder, knees, single=len(folders) == 1)
                known = _known(folder, given, wish, since)
                if known is None and knees.entries and given.entry is None:
                    log.warning("%s: its image is not among those given; the page goes without", folder.name)
                record = known or make_report(folder, given, wish, lease)
            return Outcome(folder.name, "kept" if known else "done", record=record)
        except (Held, NoRoom):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", folder, exc_info=True)
            return Outcome(folder.name, "failed", in_a_line(error))

    found: dict[str, Outcome] = {}
    with progress("reports", len(folders)) as advance:
        try:
            for case, outcome in share(folders, in_threads(work, jobs)):
                found[case] = outcome
                if outcome.message:
                    log.error("%s: %s", case, outcome.message)
                advance(1)
        except NoRoom as error:
            log.error("%s", error)
            for case in folders:
                found.setdefault(case, Outcome(case, "failed", in_a_line(error)))
        outcomes = [found[case] for case in folders]
        if results not in folders.values() and any(one.record for one in outcomes):
            with watching_room(results), in_turn(results / INDEX):
                _write_index(results, [*outcomes, *_others(results, folders)])
    return outcomes


def _others(results: Path, known: Collection[str]) -> Iterator[Outcome]:
    """Reports of knees that were finished after this run began, by other processes."""
    for path in sorted(results.glob(f"[!.]*/{REPORT}/{REPORT_RECORD}")):
        case = path.parent.parent.name
        if case not in known:
            with suppress(OSError, ValueError):
                yield Outcome(case, "kept", record=json.loads(path.read_text()))


def finished_folders(results: Path) -> list[Path]:
    """The folders of finished knees.

    Raises:
        ValueError: There is none.
    """
    if (results / RECORD).is_file():
        return [results]
    folders = sorted(path.parent for path in results.glob(f"[!.]*/{RECORD}"))
    if not folders:
        raise ValueError(f"{results} holds no finished knee; knee3d segment makes them (a folder with {RECORD} each)")
    return folders


def _given(folder: Path, knees: Knees, single: bool) -> Given:
    """What there is of one knee.

    Raises:
        ValueError: Its record is damaged, or the image is another one than was segmented.
    """
    record = record_of(folder)
    if record is None:
        raise ValueError(f"{folder} is gone")
    if record["case"] != folder.resolve().name:
        raise ValueError(f"{folder} holds {record['case']!r}: it was renamed or copied; give it the knee's name again")
    check_unchanged(folder, record, "segment the knee again")
    entry = knees.entries.get(record["case"])
    if entry is None and single and len(knees.entries) == 1:
        (entry,) = knees.entries.values()
    if entry is not None and content_of(entry.source.path, folder, record) != record["input"]:
        raise ValueError(f"{entry.source.path} is not the image that was segmented, or was changed since")
    told = entry.source.side if entry is not None else ""
    if told and record["side"] and told != record["side"]:
        raise ValueError(f"{folder} is of side {record['side']}, but the table says {told}; segment the knee again")
    mask = knees.masks.get(record["case"])
    scheme = scheme_of_record(record["scheme"])
    numbering = read_numbering(knees.numbering, scheme) if mask and knees.numbering else None
    return Given(record, entry, mask, numbering)


def _known(folder: Path, given: Given, wish: ReportWish, since: float) -> dict[str, Any] | None:
    """The record of a report that was made of the same, or of more, after a time; None where there is none."""
    path = folder / REPORT / REPORT_RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        if path.stat().st_mtime < since:
            return None
        results = fingerprint_of_results(given.record)
        if report_digests(folder / REPORT) != record["files"] or record["results"] != results:
            return None
        if same_origin(record, origin_of_report(given, wish), wish):
            return record
        more = _made_of_more(record, given)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not more:
        return None
    log.warning("%s: its report was made with %s and is kept; give the same knees again, or --overwrite", folder.name,
                more)  # fmt: skip
    return record


def _made_of_more(record: Mapping[str, Any], given: Given) -> str:
    """What a report was made of that is not given now, in words: a poorer one must not take its place unasked."""
    has_image = given.entry is not None
    known = (("its image", record["image"], has_image), ("the truth", record["truth"], has_image and given.mask))
    return " and ".join(words for words, had, has in known if had and not has)


def _write_index(results: Path, outcomes: Sequence[Outcome]) -> None:
    from knee3d.report.index import IndexRow, write_index
    from knee3d.report.measures import read_measures_csv, write_measures_csv

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
        seen = record["quality"]
        rows.append(
            IndexRow(
                case=case,
                report=f"{outcome.case}/{REPORT}/{PAGE}",
                side=record["side"],
                flags=record["flags"],
                unchecked=bool(record.get("unchecked")),
                agreement=_number(seen["agreement"]),
                doubt=_number(seen["doubt"]),
                volumes_mm3=of_all["volume"],
                thickness_mm=of_all["thickness_mean"],
                thumbnail=f"{outcome.case}/overview.png",
                seen=SEEN_SHORT.get(record[SEEN], ""),
            )
        )
    write_measures_csv(results / MEASURES, measures)
    write_index(rows, results / INDEX, "Knees")


def _number(value: float | None) -> float:
    return math.nan if value is None else value
