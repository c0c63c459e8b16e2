"""One knee -> its folder: labels, names, volumes, flags, a picture, and the record of what they were made of."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d import __version__
from knee3d.anatomy.schemes import record_of_scheme
from knee3d.anatomy.tissue import Scheme
from knee3d.anatomy.volume import Volume
from knee3d.dataset.files.probabilities import write_probabilities
from knee3d.dataset.intake import Entry, content_mark, stat_mark
from knee3d.dataset.labels import check_form, write_labels
from knee3d.dataset.sides import agreed_side
from knee3d.dataset.source import read_image
from knee3d.dataset.table import LABELS_FILE, write_numbering
from knee3d.models import fusion_mark, load_models
from knee3d.postprocess.ensemble import FUSED, Keep
from knee3d.records import VERSION
from knee3d.workflow.record import FORM, RECORD, SEEN, SOURCE, Wish, digests, origin_of
from knee3d.workflow.segmenter import Segmentation, Segmenter

if TYPE_CHECKING:
    from knee3d.learn.engines import Engine

log = logging.getLogger(__name__)

VOLUMES = "volumes.csv"
PROBABILITIES = "probabilities"
OPINION = f"{FUSED}.h5"
"""Probabilities of all views together around tissue, and the labels of each view; not there where no tissue is."""
_drawing = threading.Lock()
"""matplotlib's fonts are shared: two threads drawing at a time now and then differ in a pixel."""


class BadModels(ValueError):
    """The networks cannot be used: no knee can be segmented."""


def load_segmenter(wish: Wish, mark: str, engine: Engine | None = None) -> Segmenter:
    """The networks, on an engine; by default the one that the wish leads to.

    Args:
        wish: Which networks, and how.
        mark: What `fusion_mark` said of them when the run began.
        engine: What computes them.

    Raises:
        BadModels: They cannot be read, do not go together, or were changed since.
    """
    try:
        from knee3d.learn.engines import choose_engine, gpu_names
        from knee3d.learn.gpus import devices_in_words

        engine = engine or choose_engine(wish.precision, wish.device)
        gpus = [] if "CPU" in (engine.device or "") else gpu_names()
        log.info("computing with %s, on %s", engine, devices_in_words(gpus))
        trained = load_models(wish.models, planes=wish.planes, engine=engine, oblique=wish.oblique)
        changed = fusion_mark(wish.models, wish.planes, wish.oblique) != mark
    except Exception as error:  # frameworks have errors of their own for damaged files
        raise BadModels(str(error) or f"{wish.models}: {type(error).__name__}") from error
    if changed:
        raise BadModels(f"{wish.models} was changed since the run began; run it again")
    return Segmenter(trained, wish.method, str(engine))


def segment_knee(entry: Entry, segmenter: Segmenter, wish: Wish, mark: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with all that is made of a knee; returns what its segmentation.json holds.

    Args:
        entry: The knee.
        segmenter: The networks.
        wish: What is to be made of it.
        mark: The networks' `fusion_mark`.
        folder: An empty one.

    Raises:
        ValueError: The image cannot be read, its side contradicts what the user says, its voxels are of another size
            than those of training, or it was changed meanwhile.
    """
    from knee3d.report.tables import write_json

    source, case, trained = entry.source, entry.case, segmenter.trained
    check_form(wish.form, source.path)
    content = content_mark(source.path)
    volume, tagged = read_image(source.path, source.choice)
    side = agreed_side(source.side, tagged)
    names = _class_names(segmenter.trained.scheme)

    def keep(view: str, probabilities: Volume) -> None:
        write_probabilities(probabilities, names, view, folder / PROBABILITIES / f"{view}.h5")

    kept = Keep(np.float16, keep) if wish.probabilities else None
    found = segmenter.segment(volume, side, f"segmenting {case}", kept)
    _write(found, replace(entry, source=replace(source, side=side)), wish.form, folder)
    (folder / SOURCE).write_text(stat_mark(source.path))
    if content_mark(source.path) != content:
        raise ValueError(f"{source.path} was changed while it was segmented; run it again")
    record = {
        VERSION: FORM,
        "knee3d": __version__,
        "case": case,
        "side": side.value,
        SEEN: next((split.value for split, known in trained.patients.items() if entry.patient in known), ""),
        "scheme": record_of_scheme(found.scheme),
        **origin_of(content, source, wish, mark),
        "models": dict(trained.marks),
        "weights": dict(trained.ensemble.weights),
        "engine": segmenter.engine,
        "whole_because": found.whole,
        "shape": list(volume.shape),
        "spacing_mm": volume.spacing_mm.round(5).tolist(),
        "volumes_mm3": dict(found.volumes_mm3),
        "flags": list(found.quality.flags),
        "unchecked": found.quality.unchecked,
        "files": digests(folder),
    }
    write_json(record, folder / RECORD)
    return record


def _write(found: Segmentation, entry: Entry, form: str, folder: Path) -> None:
    from knee3d.report.figures import overview_figure
    from knee3d.report.tables import write_json, write_volumes_csv

    if found.fused is not None:
        write_probabilities(found.fused, _class_names(found.scheme), FUSED, folder / OPINION, found.views)
    write_labels(found.labels, found.scheme, entry.source, form, folder, entry.case)
    write_numbering(folder / LABELS_FILE, dict(enumerate(found.scheme.names, start=1)))
    write_json(asdict(found.quality), folder / "quality.json")
    write_volumes_csv(folder / VOLUMES, {entry.case: found.volumes_mm3})
    with _drawing:
        overview_figure(found.image, found.canonical, found.scheme, folder / "overview.png", entry.case)


def _class_names(scheme: Scheme) -> tuple[str, ...]:
    return ("background", *scheme.names)
