"""Segment one knee, a folder of knees or a table of knees, on this machine or on a Ray cluster.

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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
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
from knee3d.api.segment_case import VOLUMES, ModelsError, load_networks, segment_case
from knee3d.api.segment_config import ExecutionConfig, SegmentConfig
from knee3d.api.segmentation_record import (
    RECORD,
    SegmentationRecord,
    find_finished_record,
    load_record,
    refuse_foreign_folder,
)
from knee3d.atomic import whole_folder
from knee3d.choices import check_type
from knee3d.cluster import ClusterError
from knee3d.cluster.ray_jobs import pool_on_ray
from knee3d.dataset.input_case import InputCase, find_cases
from knee3d.geometry.orientation import Side, find_side
from knee3d.inference.trained_models import TrainedModels, load_models, models_fingerprint
from knee3d.io.dicom.series import find_slice_grids
from knee3d.io.image_source import DEFAULT_OPTIONS, ImageSource, ReadOptions, read_image
from knee3d.io.label_files import check_label_format
from knee3d.labels.laterality import agreed_side
from knee3d.lease import (
    LeaseHeldError,
    file_system_time,
    leased,
    remove_leftovers,
    run_in_threads,
    share_work,
    wait_for_lease,
)
from knee3d.models.starter import models_folder
from knee3d.progress import progress

if TYPE_CHECKING:
    from knee3d.models.backend import Backend

log = logging.getLogger(__name__)

LOG = "segment.jsonl"
VOLUMES_HEADER = b"case,tissue,volume_mm3"


def segment(
    knees: Path | str | Sequence[InputCase],
    models: Path | str,
    out: Path | str = "segmentation",
    *,
    config: SegmentConfig = SegmentConfig(),  # noqa: B008 it is frozen
    execution: ExecutionConfig = ExecutionConfig(),  # noqa: B008 it is frozen
    name: str | None = None,
    side: Side | str = Side.UNKNOWN,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> list[CaseResult[SegmentationRecord]]:
    """Segment knees into folders: labels on the grid of each image, volumes, a picture, quality flags.

    An interrupted call goes on where it stopped. Several processes that share a disk may make the same call: each knee
    is done once. A knee that fails does not stop the others.

    Args:
        knees: One knee (a folder of DICOM, a zip of it, or a NIfTI, NRRD, MHA or HDF5 file), a folder of knees, a table
            (knees.csv), or the result of `find_cases`.
        models: The models folder, as `train` fills it. "starter": the networks that come with knee3d.
        out: The folder that gets a folder for each knee.
        config: How knees are segmented.
        execution: Where, and by how many workers.
        name: The name of a single knee in the results. None takes that of its path.
        side: "R" or "L", where a single knee's file does not tell.
        options: What the paths of images do not say.

    Returns:
        A result for each knee: "done", "kept" (finished before) or "failed", with its record.

    Raises:
        FileNotFoundError: There is no knee, or no trained network.
        ValueError: Results would lie where they must not, or a setting has a wrong value.

    Example:
        >>> results = segment("knees.csv", "models", "labels", config=SegmentConfig(fast=True))       # doctest: +SKIP
        >>> [one.case for one in results if one.status == "failed"]                                   # doctest: +SKIP
        []
    """
    check_type("config", config, SegmentConfig)
    check_type("execution", execution, ExecutionConfig)
    cases = find_cases(Path(knees), name, find_side(side), options) if isinstance(knees, Path | str) else knees
    for case in cases:
        check_type("each of the knees", case, InputCase)
    return segment_cases(cases, models_folder(models), Path(out), config, execution)


def segment_cases(
    cases: Sequence[InputCase], models: Path, out: Path, config: SegmentConfig, execution: ExecutionConfig
) -> list[CaseResult[SegmentationRecord]]:
    """Segment knees into folders, each of which appears when it is complete.

    Knees that were finished before, or by another process meanwhile, from the same content, networks and settings, are
    kept. The function returns when no other process works on any of them. A knee that fails does not stop the others.
    Networks that cannot be used, a cluster that is lost and a full disk fail all knees that are not finished by then.

    Args:
        cases: The knees.
        models: The models folder.
        out: The folder that gets a folder for each knee, see the top of this module.
        config: How knees are segmented.
        execution: Where, and by how many workers.

    Returns:
        A result for each knee, in the order of `cases`.

    Raises:
        ValueError: There is no trained network, or results would lie where they must not.
    """
    _check_places(cases, out, config)
    models = models.absolute()
    fingerprint = models_fingerprint(models, config.planes, config.oblique_views)
    found: dict[str, CaseResult[SegmentationRecord]] = {}
    out.mkdir(parents=True, exist_ok=True)
    by_name = {case.case: case for case in cases}
    run_log = RunLog(out / LOG)
    run_log.note(
        event="begin", knee3d=__version__, knees=len(cases), models=fingerprint, settings=dict(config.settings)
    )  # fmt: skip
    try:
        remove_leftovers(out, [VOLUMES, LOG, *by_name])
        worker = CaseWorker(models, config, fingerprint, out, file_system_time(out) if execution.overwrite else None)
        with progress("knees", len(cases)) as advance, _runner(worker, len(cases), execution) as run:
            for name, result in share_work(_with_absolute_paths(by_name), run):
                if isinstance(result, ModelsError | DiskFullError):
                    raise result
                if not isinstance(result, CaseResult):
                    result = CaseResult(name, "failed", one_line_error(result))
                found[name] = result
                _report(result, run_log)
                advance(1)
    except (ModelsError, DiskFullError, ClusterError) as error:
        log.error("%s", error)
        for name in by_name:
            found.setdefault(name, CaseResult(name, "failed", one_line_error(error)))
    finally:  # also where it was interrupted
        remove_leftovers(out, [VOLUMES, LOG, *by_name])
        results = [found[name] for name in by_name if name in found]
        _end(results, len(cases), out, run_log)
    return results


def plan_cases(
    cases: Sequence[InputCase], models: Path | str, out: Path, config: SegmentConfig, overwrite: bool = False
) -> list[tuple[InputCase, str, bool]]:
    """Say what `segment_cases` would do with each knee. Nothing is computed.

    Args:
        cases: The knees.
        models: The models folder.
        out: The folder of the results.
        config: How knees are segmented.
        overwrite: Whether results that are there would be replaced.

    Returns:
        Each knee, what would be done with it in words, and whether that would succeed as far as can be seen.

    Raises:
        ValueError: As `segment_cases`.
    """
    _check_places(cases, out, config)
    models = models_folder(models)
    fingerprint, found = models_fingerprint(models, config.planes, config.oblique_views), []
    worker = CaseWorker(models, config, fingerprint, out, math.inf if overwrite else None)
    with progress("looking", len(cases)) as advance:
        for case in cases:
            try:
                check_label_format(config.label_format, case.source.path)
                known = worker.known_record(case)
                if known is None:
                    _check_readable(case.source)
                found.append((case, "finished, to be kept" if known else "to be segmented", True))
            except (ValueError, OSError) as error:
                found.append((case, f"problem: {error}", False))
            advance(1)
    return found


def _check_readable(source: ImageSource) -> None:
    """Refuse what cannot be segmented: folders of DICOM by their headers, other files by reading them.

    Raises:
        ValueError: As `read_image`; or the side is contradicted.
    """
    if source.path.is_dir():
        tagged = find_slice_grids(source.path, source.choice)[0].side
    else:
        tagged = read_image(source.path, source.choice).side
    agreed_side(source.side, tagged)


def _check_places(cases: Sequence[InputCase], out: Path, config: SegmentConfig) -> None:
    """Refuse what would go wrong for all knees.

    Raises:
        ValueError: A knee has the name of a file of the results, results would lie among the images of a knee,
            volumes.csv is someone else's, the only knee cannot have labels of this format, or `out` cannot be written.
    """
    check_writable(out)
    for case in cases:
        image = case.source.path.resolve()
        if case.case.lower() in (VOLUMES, LOG):
            raise ValueError(f"no knee can be called {case.case}: that is a file of the results")
        if image.is_dir() and out.resolve().is_relative_to(image):
            raise ValueError(f"{out} lies among the images of {case.case}; give another --out")
    table = out / VOLUMES
    if table.exists() and not (table.is_file() and table.read_bytes().startswith(VOLUMES_HEADER)):
        raise ValueError(f"{table} is there and is not knee3d's; give another --out")
    if len(cases) == 1:
        check_label_format(config.label_format, cases[0].source.path)


def _with_absolute_paths(cases: Mapping[str, InputCase]) -> dict[str, InputCase]:
    return {
        name: replace(case, source=replace(case.source, path=case.source.path.absolute()))
        for name, case in cases.items()
    }


@contextmanager
def _runner(worker: CaseWorker, count: int, execution: ExecutionConfig) -> Iterator[Any]:
    """What `share_work` calls: threads of this process, or workers of a Ray cluster."""
    if execution.launcher != "ray":
        yield run_in_threads(worker, execution.jobs)
        return
    try:
        from knee3d.models.backend import choose_backend

        backend = choose_backend(worker.config.precision, worker.config.device)
        # What is wrong with the networks is said before machines are asked.
        load_models(worker.models, planes=worker.config.planes, oblique=worker.config.oblique_views)
    except Exception as error:
        raise ModelsError(str(error)) from error
    make = partial(_worker_elsewhere, replace(worker, out=worker.out.absolute(), backend=backend))
    with pool_on_ray(make, count, execution.address, execution.retries) as run:
        yield run


@dataclass(frozen=True)
class CaseWorker:
    """Segments one knee after the other, each under its lease. Networks are loaded when there is a knee to segment.

    Attributes:
        models: The models folder.
        config: How knees are segmented.
        fingerprint: The `models_fingerprint` of the networks when the run began.
        out: The folder of the results.
        since: Results that are older than this time, in seconds by the clock of the disk, are replaced. None keeps all.
        backend: What computes the networks; None chooses one.
    """

    models: Path
    config: SegmentConfig
    fingerprint: str
    out: Path
    since: float | None = None
    backend: Backend | None = None
    _networks: list[TrainedModels] = field(default_factory=list, repr=False, compare=False)
    _first: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    def __call__(self, case: InputCase, take_over: bool) -> CaseResult[SegmentationRecord]:
        """Segment a knee, or keep what is there.

        Args:
            case: The knee.
            take_over: Whether to take its lease from a process that is gone.

        Raises:
            LeaseHeldError: Another process works on it, or took it over meanwhile.
            ModelsError: No knee can be segmented.
            DiskFullError: No knee can be written.
        """
        folder = self.out / case.case
        try:
            known = self.known_record(case)
            if known is None:
                with checking_disk_space(self.out), leased(folder, take_over) as lease:
                    known = self.known_record(case)  # another process may have finished it just now
                    if known is None:
                        trained = self._trained()
                        with whole_folder(folder) as partial, checking_disk_space(self.out):
                            record = segment_case(case, trained, self.config, self.fingerprint, partial)
                            _check_still_free(folder, self.since is not None)
                            lease.renew()
                        return CaseResult(case.case, "done", record=record)
            return CaseResult(case.case, "kept", record=known)
        except (LeaseHeldError, ModelsError, DiskFullError):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", case.case, exc_info=True)
            return CaseResult(case.case, "failed", one_line_error(error))

    def known_record(self, case: InputCase) -> SegmentationRecord | None:
        """The record of a knee that is finished; None where there is none, or one that is to be replaced.

        Raises:
            ValueError: As `find_finished_record`.
        """
        if self.since is not None:
            refuse_foreign_folder(self.out / case.case)
            record = self.out / case.case / RECORD
            if not record.is_file() or record.stat().st_mtime < self.since:
                return None
        return find_finished_record(case, self.config, self.fingerprint, self.out)

    def _trained(self) -> TrainedModels:
        with self._first:
            if not self._networks:
                self._networks.append(load_networks(self.models, self.config, self.fingerprint, self.backend))
            return self._networks[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """What travels to another machine: settings, and no networks."""
        return CaseWorker, (self.models, self.config, self.fingerprint, self.out, self.since, self.backend)


def _worker_elsewhere(worker: CaseWorker) -> CaseWorker:
    """Check on another machine that the worker can work there.

    Raises:
        ClusterError: The output folder is not there.
    """
    if not worker.out.is_dir():
        raise ClusterError(f"{socket.gethostname()} has no {worker.out}: it must lie on a disk that all machines share")
    return worker


def _check_still_free(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what has come while the knee was computed.

    Raises:
        ValueError: Something has.
    """
    if overwrite:
        refuse_foreign_folder(folder)
    elif folder.exists():
        raise ValueError(f"{folder} was made by someone else meanwhile; it is left as it is")


def _report(result: CaseResult[SegmentationRecord], run_log: RunLog) -> None:
    record = result.record
    run_log.note(
        event="knee",
        case=result.case,
        status=result.status,
        **({"message": result.message} if result.message else {}),
        **({} if record is None else _log_fields(record)),
    )
    if result.status == "failed":
        log.error("%s: %s", result.case, result.message)
    if result.status == "done" and record is not None:
        if record.flags:
            log.warning("%s: %s", result.case, "; ".join(record.flags))
        if record.computed_whole_because:
            log.info("%s: computed whole, as %s", result.case, record.computed_whole_because)


def _log_fields(record: SegmentationRecord) -> dict[str, Any]:
    """The fields of a record that a line of the run log has, too."""
    return {
        "side": record.side,
        "volumes_mm3": dict(record.volumes_mm3),
        "flags": record.flags,
        "computed_whole_because": record.computed_whole_because,
        "computed_by": record.computed_by,
    }


def _end(outcomes: Sequence[CaseResult[SegmentationRecord]], knees: int, out: Path, run_log: RunLog) -> None:
    records = {one.case: one.record for one in outcomes if one.record}
    try:
        with wait_for_lease(out / VOLUMES):  # or a process could write what it read before another one finished a knee
            _write_volumes(out, records)
    except OSError as error:
        log.error("%s cannot be written (%s); the folders of the knees have their own", out / VOLUMES, error.strerror)
    engines = sorted({record.computed_by for record in records.values()})
    if len(engines) > 1:
        log.warning("knees were computed in different ways (%s): give --precision for the same", "; ".join(engines))
    counts = {status: sum(one.status == status for one in outcomes) for status in ("done", "kept", "failed")}
    interrupted = len(outcomes) < knees
    run_log.note(event="interrupted" if interrupted else "end", **counts)


def _write_volumes(out: Path, known: Mapping[str, SegmentationRecord]) -> None:
    from knee3d.report.tables import write_volumes_csv

    volumes = {case: record.volumes_mm3 for case, record in (_others(out, known) | dict(known)).items()}
    if volumes:
        write_volumes_csv(out / VOLUMES, dict(sorted(volumes.items())))


def _others(out: Path, known: Collection[str]) -> dict[str, SegmentationRecord]:
    """Records of knees that were finished by other runs; what is damaged is passed over."""
    found = {}
    for path in out.glob(f"[!.]*/{RECORD}"):
        if path.parent.name not in known:
            with suppress(ValueError):
                found[path.parent.name] = load_record(path.parent)
    return {case: record for case, record in found.items() if record}
