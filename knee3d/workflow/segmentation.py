"""The journey from knees to labels: one, a folder of them, or a table; here or on a Ray cluster.

OUT/<case>/          labels, labels.json, volumes.csv, quality.json, overview.png, probabilities/<view>.h5, and
                     segmentation.json, which says what they were made of: it appears whole, or not at all
OUT/volumes.csv      volumes of all finished knees
OUT/segment.jsonl    what happened, a JSON object a line; later runs add to it
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d import __version__
from knee3d.atomic import alone, whole_folder
from knee3d.dataset.intake import Entry
from knee3d.dataset.labels import check_form
from knee3d.launch.job import LaunchError
from knee3d.launch.pool_on_ray import Shared, run_pool_on_ray
from knee3d.models import fusion_mark, load_models, model_files
from knee3d.progress import progress
from knee3d.threads import as_finished
from knee3d.workflow.diary import Diary
from knee3d.workflow.making import VOLUMES, BadModels, load_segmenter, segment_knee
from knee3d.workflow.outcome import NoRoom, Outcome, in_a_line, watching_room
from knee3d.workflow.record import RECORD, Wish, finished, record_of, refuse_foreign
from knee3d.workflow.segmenter import Segmenter

if TYPE_CHECKING:
    from knee3d.learn.engines import Engine

log = logging.getLogger(__name__)

LOG = "segment.jsonl"
VOLUMES_HEADER = b"case,tissue,volume_mm3"
_TOLD = ("side", "volumes_mm3", "flags", "whole_because", "engine")


@dataclass(frozen=True)
class Where:
    """Where and how knees are worked on.

    Attributes:
        launcher: "local" or "ray".
        address: Of the Ray cluster, see `run_pool_on_ray`.
        retries: How often a knee whose worker was lost is tried again.
        jobs: Knees at a time here: while one is computed others are read and written.
        overwrite: Whether to replace what was made of a knee before.
        log: The file for what happened; None is `LOG` in the output folder.
    """

    launcher: str = "local"
    address: str | None = None
    retries: int = 2
    jobs: int = 2
    overwrite: bool = False
    log: Path | None = None


def segment(entries: Sequence[Entry], wish: Wish, out: Path, where: Where = Where()) -> list[Outcome]:  # noqa: B008
    """Segment knees into folders, each of which appears when it is complete.

    Knees that were finished before, with the same content, networks and settings, are kept. A knee that fails stops no
    other; networks that cannot be used, a cluster that is lost and a full disk fail all that are not finished by then.

    Args:
        entries: The knees.
        wish: What is to be made of them.
        out: Gets a folder for each, see the top of this module.
        where: Where they are worked on.

    Returns:
        What became of each, in the order of `entries`.

    Raises:
        ValueError: There is no trained network, results would lie where they must not, or another process works there.
    """
    _check_places(entries, wish, out)
    wish = replace(wish, models=wish.models.absolute())
    mark = fusion_mark(wish.models, wish.planes, wish.oblique)
    found: dict[str, Outcome] = {}
    with alone(out), Diary(where.log or out / LOG) as diary:
        diary.note(event="begin", knee3d=__version__, knees=len(entries), models=mark, settings=wish.settings)
        try:
            with progress("knees", len(entries)) as advance:
                for outcome in _outcomes(entries, wish, mark, out, where):
                    found[outcome.case] = outcome
                    _report(outcome, diary)
                    advance(1)
        except (BadModels, NoRoom, LaunchError) as error:
            log.error("%s", error)
            for entry in entries:
                found.setdefault(entry.case, Outcome(entry.case, "failed", in_a_line(error)))
        finally:  # also where it was interrupted
            outcomes = [found[entry.case] for entry in entries if entry.case in found]
            _end(outcomes, len(entries), out, diary)
    return outcomes


def plan(entries: Sequence[Entry], wish: Wish, out: Path, overwrite: bool = False) -> list[tuple[Entry, str, bool]]:
    """What `segment` would do with each knee, and whether it would; nothing is computed.

    Args:
        entries: The knees.
        wish: What is to be made of them.
        out: Where.
        overwrite: As in `Where`.

    Raises:
        ValueError: As `segment`.
    """
    _check_places(entries, wish, out)
    mark, found = fusion_mark(wish.models, wish.planes, wish.oblique), []
    with progress("looking", len(entries)) as advance:
        for entry in entries:
            try:
                check_form(wish.form, entry.source.path)
                known = _known(entry, wish, mark, out, overwrite)
                found.append((entry, "finished, to be kept" if known else "to be segmented", True))
            except (ValueError, OSError) as error:
                found.append((entry, f"problem: {error}", False))
            advance(1)
    return found


def _check_places(entries: Sequence[Entry], wish: Wish, out: Path) -> None:
    """Refuse what would go wrong for all knees.

    Raises:
        ValueError: A knee is called as a file of ours, results would lie among the images of one, volumes.csv is
            someone else's, or the only knee cannot have labels of this form.
    """
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
        check_form(wish.form, entries[0].source.path)


def _outcomes(entries: Sequence[Entry], wish: Wish, mark: str, out: Path, where: Where) -> Iterator[Outcome]:
    """Of each knee, as they come."""
    if where.launcher == "ray":
        yield from _on_ray(entries, wish, mark, out, where)
        return
    segmenter: list[Segmenter] = []
    first = threading.Lock()

    def work(entry: Entry) -> Outcome:
        try:
            known = _known(entry, wish, mark, out, where.overwrite)
            if known is not None:
                return Outcome(entry.case, "kept", record=known)
            with first:
                if not segmenter:  # not before there is a knee to do
                    segmenter.append(load_segmenter(wish, mark))
            with whole_folder(out / entry.case) as folder, watching_room(out):
                record = segment_knee(entry, segmenter[0], wish, mark, folder)
                _check_still_free(out / entry.case, where.overwrite)
            return Outcome(entry.case, "done", record=record)
        except (BadModels, NoRoom):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", entry.case, exc_info=True)
            return Outcome(entry.case, "failed", in_a_line(error))

    for done in as_finished(work, entries, where.jobs):
        yield done.result()


def _known(entry: Entry, wish: Wish, models: str, out: Path, overwrite: bool) -> dict[str, Any] | None:
    """As `finished`; None where it is to be replaced anyway."""
    if overwrite:
        refuse_foreign(out / entry.case)
        return None
    return finished(entry, wish, models, out)


def _check_still_free(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what has come while the knee was computed.

    Raises:
        ValueError: Something has.
    """
    if overwrite:
        refuse_foreign(folder)
    elif folder.exists():
        raise ValueError(f"{folder} was made by someone else meanwhile; it is left as it is")


def _on_ray(entries: Sequence[Entry], wish: Wish, mark: str, out: Path, where: Where) -> Iterator[Outcome]:
    """Of each knee, from the machines of a cluster; those that are finished are not sent there."""
    kept: list[Outcome] = []

    def todo() -> Iterator[tuple[str, Entry]]:
        for entry in entries:
            try:
                known = _known(entry, wish, mark, out, where.overwrite)
            except (ValueError, OSError) as error:
                kept.append(Outcome(entry.case, "failed", in_a_line(error)))
                continue
            if known is not None:
                kept.append(Outcome(entry.case, "kept", record=known))
            else:
                absolute = replace(entry.source, path=entry.source.path.absolute())
                yield entry.case, replace(entry, source=absolute)

    try:
        from knee3d.learn.engines import choose_engine

        engine = choose_engine(wish.precision, wish.device)
        # What is wrong with them is said before machines are asked.
        load_models(wish.models, planes=wish.planes, oblique=wish.oblique)
    except Exception as error:
        raise BadModels(str(error)) from error
    files = model_files(wish.models, wish.planes, wish.oblique)
    work, shared = partial(RayWork, wish, mark, engine), Shared(wish.models, files)
    for case, problem in run_pool_on_ray(todo(), work, shared, out.absolute(), where.address, where.retries):
        while kept:
            yield kept.pop(0)
        if problem:
            yield Outcome(case, "failed", problem)
        else:
            yield Outcome(case, "done", record=record_of(out / case) or {})
    yield from kept


class RayWork:
    """What a worker of a cluster does: the networks are loaded once, then one knee comes after the other."""

    def __init__(self, wish: Wish, mark: str, engine: Engine, models: Path) -> None:
        """Load the networks from a copy of the models folder on the worker's machine."""
        self._wish, self._mark = replace(wish, models=models), mark
        self._segmenter = load_segmenter(self._wish, mark, engine)

    def __call__(self, entry: Entry, folder: Path) -> None:
        """Fill a folder of the worker's machine."""
        segment_knee(entry, self._segmenter, self._wish, self._mark, folder)


def _report(outcome: Outcome, diary: Diary) -> None:
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


def _end(outcomes: Sequence[Outcome], knees: int, out: Path, diary: Diary) -> None:
    from knee3d.report.tables import write_volumes_csv

    records = {one.case: one.record for one in outcomes if one.record}
    volumes = {case: record["volumes_mm3"] for case, record in (_others(out, records) | records).items()}
    if volumes:
        try:
            write_volumes_csv(out / VOLUMES, dict(sorted(volumes.items())))
        except OSError as error:
            log.error(
                "%s cannot be written (%s); the folders of the knees have their own", out / VOLUMES, error.strerror
            )
    engines = sorted({record["engine"] for record in records.values()})
    if len(engines) > 1:
        log.warning("knees were computed in different ways (%s): give --precision for the same", "; ".join(engines))
    counts = {status: sum(one.status == status for one in outcomes) for status in ("done", "kept", "failed")}
    interrupted = len(outcomes) < knees
    diary.note(event="interrupted" if interrupted else "end", **counts)


def _others(out: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Records of knees that were finished by other runs; what is damaged is passed over."""
    found = {}
    for path in out.glob(f"[!.]*/{RECORD}"):
        if path.parent.name not in known:
            with suppress(ValueError):
                found[path.parent.name] = record_of(path.parent)
    return {case: record for case, record in found.items() if record}
