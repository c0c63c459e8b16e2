"""The journey from knees to labels: one, a folder of them, or a table; here or on a Ray cluster.

Any number of processes on machines with a common disk may do it at the same time: each knee is done by the one that
gets its lease.

OUT/<case>/          labels, labels.json, volumes.csv, quality.json, overview.png, probabilities/<view>.h5, and
                     segmentation.json, which says what they were made of: it appears whole, or not at all
OUT/volumes.csv      volumes of all finished knees
OUT/segment.jsonl    what happened, a JSON object a line; later runs add to it
"""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d import __version__
from knee3d.api.case_result import (
    CaseResult,
    DiskFullError,
    RunLog,
    check_writable,
    checking_disk_space,
    one_line_error,
)
from knee3d.api.segment_case import VOLUMES, ModelsError, load_segmenter, segment_case
from knee3d.api.segmentation_record import RECORD, SegmentJob, find_finished_record, load_record, refuse_foreign_folder
from knee3d.atomic import whole_folder
from knee3d.cluster import ClusterError
from knee3d.cluster.ray_jobs import pool_on_ray
from knee3d.dataset.input_case import InputCase
from knee3d.inference.segmenter import Segmenter
from knee3d.inference.trained_models import load_models, models_fingerprint
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.image_source import ImageSource, read_image
from knee3d.io.label_files import check_label_format
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import agreed_side, check_side
from knee3d.lease import LeaseHeldError, disk_time, leased, locked, remove_leftovers, run_in_threads, share_work
from knee3d.models.model_folder import scheme_of
from knee3d.progress import progress

if TYPE_CHECKING:
    from knee3d.models.backend import Backend

log = logging.getLogger(__name__)

LOG = "segment.jsonl"
VOLUMES_HEADER = b"case,tissue,volume_mm3"
_TOLD = ("side", "volumes_mm3", "flags", "whole_because", "engine")


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how knees are worked on.

    Attributes:
        launcher: "local" or "ray".
        address: Address of the Ray cluster, see `cluster.ray_jobs`.
        retries: How often a knee whose worker on the Ray cluster was lost is tried again.
        jobs: Knees at a time here: while one is computed others are read and written.
        overwrite: Whether to replace what was made of a knee before this run began.
    """

    launcher: str = "local"
    address: str | None = None
    retries: int = 2
    jobs: int = 2
    overwrite: bool = False


def segment_cases(
    entries: Sequence[InputCase], wish: SegmentJob, out: Path, where: ExecutionConfig = ExecutionConfig()
) -> list[CaseResult]:  # noqa: B008
    """Segment knees into folders, each of which appears when it is complete.

    Knees that were finished before, or by another process meanwhile, with the same content, networks and settings, are
    kept. It returns when no other process works on any of them. A knee that fails stops no other; networks that cannot
    be used, a cluster that is lost and a full disk fail all that are not finished by then.

    Args:
        entries: The knees.
        wish: What is to be made of them.
        out: Gets a folder for each, see the top of this module.
        where: Where they are worked on.

    Returns:
        What became of each, in the order of `entries`.

    Raises:
        ValueError: There is no trained network, or results would lie where they must not.
    """
    _check_places(entries, wish, out)
    wish = replace(wish, models=wish.models.absolute())
    mark = models_fingerprint(wish.models, wish.planes, wish.oblique)
    found: dict[str, CaseResult] = {}
    out.mkdir(parents=True, exist_ok=True)
    cases = {entry.case: entry for entry in entries}
    diary = RunLog(out / LOG)
    diary.note(event="begin", knee3d=__version__, knees=len(entries), models=mark, settings=wish.settings)
    try:
        remove_leftovers(out, [VOLUMES, LOG, *cases])
        with progress("knees", len(entries)) as advance:
            for case, outcome in _outcomes(cases, wish, mark, out, where):
                found[case] = outcome
                _report(outcome, diary)
                advance(1)
    except (ModelsError, DiskFullError, ClusterError) as error:
        log.error("%s", error)
        for case in cases:
            found.setdefault(case, CaseResult(case, "failed", one_line_error(error)))
    finally:  # also where it was interrupted
        remove_leftovers(out, [VOLUMES, LOG, *cases])
        outcomes = [found[case] for case in cases if case in found]
        _end(outcomes, len(entries), out, diary)
    return outcomes


def plan_cases(
    entries: Sequence[InputCase], wish: SegmentJob, out: Path, overwrite: bool = False
) -> list[tuple[InputCase, str, bool]]:
    """What `segment_cases` would do with each knee, and whether it would; nothing is computed.

    Args:
        entries: The knees.
        wish: What is to be made of them.
        out: Where.
        overwrite: As in `ExecutionConfig`.

    Raises:
        ValueError: As `segment_cases`.
    """
    _check_places(entries, wish, out)
    mark, found = models_fingerprint(wish.models, wish.planes, wish.oblique), []
    scheme = scheme_of(wish.models, wish.planes, wish.oblique)
    with progress("looking", len(entries)) as advance:
        for entry in entries:
            try:
                check_label_format(wish.form, entry.source.path)
                known = _known(entry, wish, mark, out, math.inf if overwrite else None)
                if known is None:
                    _check_readable(entry.source, scheme)
                found.append((entry, "finished, to be kept" if known else "to be segmented", True))
            except (ValueError, OSError) as error:
                found.append((entry, f"problem: {error}", False))
            advance(1)
    return found


def _check_readable(source: ImageSource, scheme: LabelScheme | None) -> None:
    """Refuse what cannot be segmented: of folders of DICOM by their headers, of others by reading them.

    Raises:
        ValueError: As `read_image`; or the side is contradicted, or not known where classes need it.
    """
    if source.path.is_dir():
        tagged = find_slice_grids(source.path, source.choice)[0].side
    else:
        tagged = read_image(source.path, source.choice).side
    side = agreed_side(source.side, tagged)
    if scheme:
        check_side(side, scheme)


def _check_places(entries: Sequence[InputCase], wish: SegmentJob, out: Path) -> None:
    """Refuse what would go wrong for all knees.

    Raises:
        ValueError: A knee is called as a file of ours, results would lie among the images of one, volumes.csv is
            someone else's, the only knee cannot have labels of this form, or `out` cannot be written.
    """
    check_writable(out)
    for entry in entries:
        image = entry.source.path.resolve()
        if entry.case.lower() in (VOLUMES, LOG):
            raise ValueError(f"no knee can be called {entry.case}: that is a file of the results")
        if image.is_dir() and out.resolve().is_relative_to(image):
            raise ValueError(f"{out} lies among the images of {entry.case}; give another --out")
    table = out / VOLUMES
    if table.exists() and not (table.is_file() and table.read_bytes().startswith(VOLUMES_HEADER)):
        raise ValueError(f"{table} is there and is not knee3d's; give another --out")
    if len(entries) == 1:
        check_label_format(wish.form, entries[0].source.path)


def _outcomes(
    cases: Mapping[str, InputCase], wish: SegmentJob, mark: str, out: Path, where: ExecutionConfig
) -> Iterator[tuple[str, CaseResult]]:
    """Of each knee, as they come."""
    since = disk_time(out) if where.overwrite else None
    if where.launcher != "ray":
        yield from share_work(cases, run_in_threads(_Work(wish, mark, out, since), where.jobs))
        return
    try:
        from knee3d.models.backend import choose_backend

        engine = choose_backend(wish.precision, wish.device)
        # What is wrong with the networks is said before machines are asked.
        load_models(wish.models, planes=wish.planes, oblique=wish.oblique)
    except Exception as error:
        raise ModelsError(str(error)) from error
    there = {case: replace(entry, source=replace(entry.source, path=entry.source.path.absolute()))
             for case, entry in cases.items()}  # fmt: skip
    make = partial(_work_elsewhere, wish, mark, out.absolute(), since, engine)
    with pool_on_ray(make, len(cases), where.address, where.retries) as run:
        for case, outcome in share_work(there, run):
            if isinstance(outcome, ModelsError | DiskFullError):
                raise outcome
            yield (
                case,
                outcome if isinstance(outcome, CaseResult) else CaseResult(case, "failed", one_line_error(outcome)),
            )


class _Work:
    """Segments one knee after the other, each under its lease; the networks are loaded when there is a knee to do."""

    def __init__(
        self, wish: SegmentJob, mark: str, out: Path, since: float | None, engine: Backend | None = None
    ) -> None:
        self._wish, self._mark, self._out, self._since, self._engine = wish, mark, out, since, engine
        self._segmenter: Segmenter | None = None
        self._first = threading.Lock()

    def __call__(self, entry: InputCase, take_over: bool) -> CaseResult:
        """What becomes of a knee.

        Args:
            entry: The knee.
            take_over: Whether to take its lease from a process that is gone.

        Raises:
            Held: Another process works on it, or took it over meanwhile.
            BadModels: No knee can be segmented.
            NoRoom: No knee can be written.
        """
        folder = self._out / entry.case
        try:
            known = self._known(entry)
            if known is None:
                with checking_disk_space(self._out), leased(folder, take_over) as lease:
                    known = self._known(entry)  # another process may have finished it just now
                    if known is None:
                        segmenter = self._loaded()
                        with whole_folder(folder) as partial, checking_disk_space(self._out):
                            record = segment_case(entry, segmenter, self._wish, self._mark, partial)
                            _check_still_free(folder, self._since is not None)
                            lease.check()
                        return CaseResult(entry.case, "done", record=record)
            return CaseResult(entry.case, "kept", record=known)
        except (LeaseHeldError, ModelsError, DiskFullError):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", entry.case, exc_info=True)
            return CaseResult(entry.case, "failed", one_line_error(error))

    def _known(self, entry: InputCase) -> dict[str, Any] | None:
        return _known(entry, self._wish, self._mark, self._out, self._since)

    def _loaded(self) -> Segmenter:
        with self._first:
            if self._segmenter is None:
                self._segmenter = load_segmenter(self._wish, self._mark, self._engine)
            return self._segmenter


def _work_elsewhere(wish: SegmentJob, mark: str, out: Path, since: float | None, engine: Backend) -> _Work:
    """What a worker of a cluster does.

    Raises:
        LaunchError: The output folder is not there.
    """
    if not out.is_dir():
        raise ClusterError(f"{socket.gethostname()} has no {out}: it must lie on a disk that all machines share")
    return _Work(wish, mark, out, since, engine)


def _known(entry: InputCase, wish: SegmentJob, models: str, out: Path, since: float | None) -> dict[str, Any] | None:
    """As `find_finished_record`; None for a record older than `since`, by the clock of the disk: it is replaced."""
    if since is not None:
        refuse_foreign_folder(out / entry.case)
        record = out / entry.case / RECORD
        if not record.is_file() or record.stat().st_mtime < since:
            return None
    return find_finished_record(entry, wish, models, out)


def _check_still_free(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what has come while the knee was computed.

    Raises:
        ValueError: Something has.
    """
    if overwrite:
        refuse_foreign_folder(folder)
    elif folder.exists():
        raise ValueError(f"{folder} was made by someone else meanwhile; it is left as it is")


def _report(outcome: CaseResult, diary: RunLog) -> None:
    record = outcome.record
    diary.note(
        event="knee",
        case=outcome.case,
        status=outcome.status,
        **({"message": outcome.message} if outcome.message else {}),
        **{key: record[key] for key in _TOLD if key in record},
    )
    if outcome.status == "failed":
        log.error("%s: %s", outcome.case, outcome.message)
    if outcome.status == "done":
        if record["flags"]:
            log.warning("%s: %s", outcome.case, "; ".join(record["flags"]))
        if record["whole_because"]:
            log.info("%s: computed whole, as %s", outcome.case, record["whole_because"])


def _end(outcomes: Sequence[CaseResult], knees: int, out: Path, diary: RunLog) -> None:
    records = {one.case: one.record for one in outcomes if one.record}
    try:
        with locked(out / VOLUMES):  # or a process could write what it read before another one finished a knee
            _write_volumes(out, records)
    except OSError as error:
        log.error("%s cannot be written (%s); the folders of the knees have their own", out / VOLUMES, error.strerror)
    engines = sorted({record["engine"] for record in records.values()})
    if len(engines) > 1:
        log.warning("knees were computed in different ways (%s): give --precision for the same", "; ".join(engines))
    counts = {status: sum(one.status == status for one in outcomes) for status in ("done", "kept", "failed")}
    interrupted = len(outcomes) < knees
    diary.note(event="interrupted" if interrupted else "end", **counts)


def _write_volumes(out: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    from knee3d.report.tables import write_volumes_csv

    volumes = {case: record["volumes_mm3"] for case, record in (_others(out, known) | dict(known)).items()}
    if volumes:
        write_volumes_csv(out / VOLUMES, dict(sorted(volumes.items())))


def _others(out: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Records of knees that were finished by other runs; what is damaged is passed over."""
    found = {}
    for path in out.glob(f"[!.]*/{RECORD}"):
        if path.parent.name not in known:
            with suppress(ValueError):
                found[path.parent.name] = load_record(path.parent)
    return {case: record for case, record in found.items() if record}
