"""The journey from knees to labels: one, a folder of them, or a table; here or on a Ray cluster.

OUT/<case>/          labels, labels.json, volumes.csv, quality.json, overview.png, probabilities/<view>.h5, and
                     segmentation.json, which says what they were made of: it appears whole, or not at all
OUT/volumes.csv      volumes of all finished knees of the last run
OUT/segment.jsonl    what happened, a JSON object a line; later runs add to it
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d import __version__
from knee3d.anatomy.orientation import Side
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.volume import Volume
from knee3d.atomic import alone, whole_folder
from knee3d.dataset.files.probabilities import write_probabilities
from knee3d.dataset.intake import Entry, content_mark
from knee3d.dataset.labels import check_form, write_labels
from knee3d.dataset.sides import agreed_side
from knee3d.dataset.source import Source, read_image
from knee3d.dataset.table import LABELS_FILE, write_numbering
from knee3d.launch.pool_on_ray import Shared, run_pool_on_ray
from knee3d.models import fusion_mark, load_models, model_files
from knee3d.postprocess.ensemble import Keep
from knee3d.progress import progress
from knee3d.threads import as_finished
from knee3d.workflow.segmenter import Method, Segmenter, engine_for

if TYPE_CHECKING:
    from knee3d.learn.engines import Engine

log = logging.getLogger(__name__)

RECORD = "segmentation.json"
LOG = "segment.jsonl"
VOLUMES = "volumes.csv"
PROBABILITIES = "probabilities"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEAST_ROOM = 1 << 16
_TOLD = ("volumes_mm3", "flags", "whole_because", "engine")


@dataclass(frozen=True)
class Wish:
    """What is to be made of each knee.

    Attributes:
        models: The networks' folder.
        planes: Those that look at the knee; none is every one.
        method: How labels are found.
        precision: See `learn.engines.choose_engine`.
        runtime: See there, too.
        device: See `learn.engines.check_device`.
        form: Of the labels, one of `dataset.labels.FORMS`.
        probabilities: Whether to write those of each view.
        oblique: How many oblique views look at the knee beside the planes.
    """

    models: Path
    planes: tuple[Plane, ...] = ()
    method: Method = field(default_factory=Method)
    precision: str = "auto"
    runtime: str = "tensorflow"
    device: str | None = None
    form: str = "nifti"
    probabilities: bool = False
    oblique: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on beside the networks, ready for JSON."""
        asked = {**asdict(self.method), "precision": self.precision, "runtime": self.runtime, "form": self.form,
                 "probabilities": self.probabilities}  # fmt: skip
        return asked | ({"oblique": self.oblique} if self.oblique else {})  # without, knees of before are still kept


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


@dataclass(frozen=True)
class Outcome:
    """What became of a knee.

    Attributes:
        case: Which.
        status: "done", "kept" (it was finished before) or "failed".
        message: Why it failed, in a line.
        record: What segmentation.json holds; empty where it failed.
    """

    case: str
    status: str
    message: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


def segment(entries: Sequence[Entry], wish: Wish, out: Path, where: Where = Where()) -> list[Outcome]:  # noqa: B008
    """Segment knees into folders, each of which appears when it is complete.

    Knees that were finished before, with the same content, networks and settings, are kept. A knee that fails stops no
    other.

    Args:
        entries: The knees.
        wish: What is to be made of them.
        out: Gets a folder for each, see the top of this module.
        where: Where they are worked on.

    Returns:
        What became of each, in the order of `entries`.

    Raises:
        ValueError: The networks do not go together, or another process works in `out`.
        OSError: There is no room left; what is finished stays.
    """
    for form_of in {entry.source.path for entry in entries if len(entries) == 1}:
        check_form(wish.form, form_of)
    wish = replace(wish, models=wish.models.absolute())
    mark = fusion_mark(wish.models, wish.planes, wish.oblique)
    found: dict[str, Outcome] = {}
    with alone(out), _Diary(where.log or out / LOG) as diary:
        diary.note(event="begin", knees=len(entries), models=mark, settings=wish.settings)
        with progress("knees", len(entries)) as advance:
            for outcome in _outcomes(entries, wish, mark, out, where):
                found[outcome.case] = outcome
                _report(outcome, diary)
                advance(1)
        outcomes = [found[entry.case] for entry in entries if entry.case in found]
        _write_volumes(outcomes, out / VOLUMES)
        _warn_of_engines(outcomes)
        counts = {status: sum(one.status == status for one in outcomes) for status in ("done", "kept", "failed")}
        diary.note(event="end", **counts)
    return outcomes


def plan(entries: Sequence[Entry], wish: Wish, out: Path) -> list[tuple[Entry, str]]:
    """What `segment` would do with each knee, in words; nothing is computed.

    Raises:
        ValueError: The networks' cards or weights cannot be read.
    """
    mark, found = fusion_mark(wish.models, wish.planes, wish.oblique), []
    with progress("looking", len(entries)) as advance:
        for entry in entries:
            try:
                known = _finished(entry, wish, mark, out)
                found.append((entry, "finished, to be kept" if known else "to be segmented"))
            except (ValueError, OSError) as error:
                found.append((entry, f"problem: {error}"))
            advance(1)
    return found


def _outcomes(entries: Sequence[Entry], wish: Wish, mark: str, out: Path, where: Where) -> Iterator[Outcome]:
    """Of each knee, as they come."""
    if where.launcher == "ray":
        yield from _on_ray(entries, wish, mark, out, where)
        return
    segmenter: list[Segmenter] = []
    first = threading.Lock()

    def work(entry: Entry) -> Outcome:
        try:
            known = _known(entry, wish, mark, out, where)
            if known is not None:
                return Outcome(entry.case, "kept", record=known)
            with first:
                if not segmenter:  # not before there is a knee to do
                    segmenter.append(load_segmenter(wish))
            with whole_folder(out / entry.case) as folder, _watching_room(out):
                return Outcome(entry.case, "done", record=segment_knee(entry, segmenter[0], wish, mark, folder))
        except (BadModels, NoRoom):
            raise
        except Exception as error:  # whatever it is, it is this knee's, and thousands may wait behind it
            log.debug("%s", entry.case, exc_info=True)
            return Outcome(entry.case, "failed", _in_a_line(error))

    for done in as_finished(work, entries, where.jobs):
        yield done.result()


class BadModels(ValueError):
    """The networks cannot be used: no knee can be segmented."""


class NoRoom(OSError):
    """The disk is full: no knee can be written."""


def load_segmenter(wish: Wish, engine: Engine | None = None) -> Segmenter:
    """The networks, on an engine; by default the fastest one.

    Raises:
        BadModels: They cannot be read or do not go together.
    """
    try:
        engine = engine or engine_for(wish.models, wish.planes, wish.precision, wish.runtime, wish.device)
        log.info("computing with %s", engine)
        trained = load_models(wish.models, planes=wish.planes, engine=engine, oblique=wish.oblique)
        return Segmenter(trained, wish.method, str(engine))
    except (ValueError, OSError, RuntimeError) as error:
        raise BadModels(str(error)) from error


def segment_knee(entry: Entry, segmenter: Segmenter, wish: Wish, mark: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with all that is made of a knee; returns what its segmentation.json holds.

    Raises:
        ValueError: The image cannot be read, its side contradicts what the user says, or its voxels are of another size
            than those of training.
    """
    from knee3d.report.figures import overview_figure
    from knee3d.report.tables import write_json, write_volumes_csv

    source, scheme, case = entry.source, segmenter.trained.scheme, entry.case
    check_form(wish.form, source.path)
    volume, tagged = read_image(source.path, source.choice)
    side = agreed_side(source.side, tagged)
    if side is Side.UNKNOWN:
        log.warning("%s: side unknown, taken as a right knee; give --side if it is a left one", case)
    if wish.method.any_spacing:
        _warn_of_spacing(segmenter, volume, case)

    def keep(view: str, probabilities: Volume) -> None:
        names = ("background", *scheme.names)
        write_probabilities(probabilities, names, view, folder / PROBABILITIES / f"{view}.h5")

    kept = Keep(np.float16, keep) if wish.probabilities else None
    found = segmenter.segment(volume, side, f"segmenting {case}", kept)
    write_labels(found.labels, scheme, replace(source, side=side), wish.form, folder, case)
    write_numbering(folder / LABELS_FILE, dict(enumerate(scheme.names, start=1)))
    write_json(asdict(found.quality), folder / "quality.json")
    write_volumes_csv(folder / VOLUMES, {case: found.volumes_mm3})
    overview_figure(found.image, found.canonical, scheme, folder / "overview.png", case)
    record = {
        "knee3d": __version__,
        "case": case,
        "side": side.value,
        "scheme": scheme.name,
        "input": content_mark(source.path),
        "models": dict(segmenter.trained.marks),
        "weights": dict(segmenter.trained.ensemble.weights),
        "settings": wish.settings,
        "engine": segmenter.engine,
        "whole_because": found.whole,
        "shape": list(volume.shape),
        "spacing_mm": volume.spacing_mm.round(5).tolist(),
        "volumes_mm3": dict(found.volumes_mm3),
        "flags": list(found.quality.flags),
    }
    record["mark"] = _mark_of(record["input"], source, wish, mark)
    write_json(record, folder / RECORD)
    return record


def _warn_of_spacing(segmenter: Segmenter, volume: Volume, case: str) -> None:
    from knee3d.anatomy.orientation import to_canonical

    other = segmenter.trained.of_other_voxels(to_canonical(volume))
    if other:
        log.warning("%s: %s; do not trust the labels", case, other)


def _mark_of(content: str, source: Source, wish: Wish, models: str) -> str:
    """A fingerprint of all that labels depend on."""
    asked = [content, source.side, asdict(source.choice), models, wish.settings]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _finished(entry: Entry, wish: Wish, models: str, out: Path) -> dict[str, Any] | None:
    """The record of a knee that was made of the same; None where there is none.

    Raises:
        ValueError: It was made of something else, or the folder is not one of ours.
        OSError: The knee cannot be read.
    """
    if not entry.source.path.exists():
        raise FileNotFoundError(f"{entry.source.path} does not exist")
    folder = out / entry.case
    if not folder.exists():
        return None
    _refuse_foreign(folder)
    try:
        record = json.loads((folder / RECORD).read_text())
        mark, content, *_ = (record[key] for key in ("mark", "input", *_TOLD))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} is damaged; give --overwrite, or another --out") from error
    now = content_mark(entry.source.path)
    if mark == _mark_of(now, entry.source, wish, models):
        return record
    other = "another image" if content != now else "other models or settings"
    raise ValueError(f"{folder} was made of {other}; give --overwrite, or another --out")


def _known(entry: Entry, wish: Wish, models: str, out: Path, where: Where) -> dict[str, Any] | None:
    """As `_finished`; None where it is to be replaced anyway."""
    if where.overwrite:
        _refuse_foreign(out / entry.case)
        return None
    return _finished(entry, wish, models, out)


def _refuse_foreign(folder: Path) -> None:
    """Never replace what someone else put there, least of all the images themselves.

    Raises:
        ValueError: The folder is there and was not made here.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ValueError(f"{folder} is there and was not made by knee3d segment; give another --out")


def _on_ray(entries: Sequence[Entry], wish: Wish, mark: str, out: Path, where: Where) -> Iterator[Outcome]:
    """Of each knee, from the machines of a cluster; those that are finished are not sent there."""
    kept: list[Outcome] = []

    def todo() -> Iterator[tuple[str, Entry]]:
        for entry in entries:
            try:
                known = _known(entry, wish, mark, out, where)
            except (ValueError, OSError) as error:
                kept.append(Outcome(entry.case, "failed", _in_a_line(error)))
                continue
            if known is not None:
                kept.append(Outcome(entry.case, "kept", record=known))
            else:
                absolute = replace(entry.source, path=entry.source.path.absolute())
                yield entry.case, replace(entry, source=absolute)

    try:
        engine = engine_for(wish.models, wish.planes, wish.precision, wish.runtime, wish.device)
        # What is wrong with them is said before machines are asked.
        load_models(wish.models, planes=wish.planes, oblique=wish.oblique)
    except (ValueError, OSError, RuntimeError) as error:
        raise BadModels(str(error)) from error
    files = model_files(wish.models, wish.planes, wish.oblique)
    work, shared = partial(RayWork, wish, mark, engine), Shared(wish.models, files)
    for case, error in run_pool_on_ray(todo(), work, shared, out.absolute(), where.address, where.retries):
        while kept:
            yield kept.pop(0)
        if error:
            yield Outcome(case, "failed", error)
        else:
            yield Outcome(case, "done", record=json.loads((out / case / RECORD).read_text()))
    yield from kept


class RayWork:
    """What a worker of a cluster does: the networks are loaded once, then one knee comes after the other."""

    def __init__(self, wish: Wish, mark: str, engine: Engine, models: Path) -> None:
        """Load the networks from a copy of the models folder on the worker's machine."""
        self._wish, self._mark = replace(wish, models=models), mark
        self._segmenter = load_segmenter(self._wish, engine)

    def __call__(self, entry: Entry, folder: Path) -> None:
        """Fill a folder of the worker's machine."""
        segment_knee(entry, self._segmenter, self._wish, self._mark, folder)


class _Diary:
    """A file of JSON lines that is added to, each line at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._start = time.monotonic()

    def note(self, **content: Any) -> None:
        """Add a line: what is given, the time of day, and the seconds since the beginning."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        when = {"time": now, "at_s": round(time.monotonic() - self._start, 1)}
        with suppress(OSError):  # on a full disk the knees' own errors say so
            self._file.write(json.dumps(when | content) + "\n")
            self._file.flush()

    def __enter__(self) -> _Diary:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()


def _warn_of_engines(outcomes: Sequence[Outcome]) -> None:
    engines = sorted({one.record["engine"] for one in outcomes if one.record})
    if len(engines) > 1:
        log.warning("knees were computed in different ways (%s): give --precision for the same", "; ".join(engines))


def _report(outcome: Outcome, diary: _Diary) -> None:
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
        for flag in record["flags"]:
            log.warning("%s: %s", outcome.case, flag)
        if record["whole_because"]:
            log.info("%s: computed whole, as %s", outcome.case, record["whole_because"])


def _write_volumes(outcomes: Iterable[Outcome], path: Path) -> None:
    from knee3d.report.tables import write_volumes_csv

    found = {one.case: one.record["volumes_mm3"] for one in outcomes if one.record}
    if found:
        write_volumes_csv(path, found)


@contextmanager
def _watching_room(out: Path) -> Iterator[None]:
    """Tell errors of a full disk from a knee's own, while what fills it is still there; not every library says so.

    Raises:
        NoRoom: There was an error, and there is no room.
    """
    try:
        yield
    except Exception as error:
        if (isinstance(error, OSError) and error.errno in _NO_ROOM) or shutil.disk_usage(out).free < _LEAST_ROOM:
            raise NoRoom(f"no room left in {out}; finished knees stay: make room and run it again") from error
        raise


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; give fewer --jobs"
    words = " ".join(str(error).split())
    return (
        words if words and isinstance(error, ValueError | OSError | RuntimeError) else f"{type(error).__name__} {words}"
    )
