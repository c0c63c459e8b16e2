"""One knee -> its folder: labels, names, volumes, flags, a picture, and the record of what they were made of."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knee3d import __version__
from knee3d.api.segmentation_record import FORM, RECORD, SEEN, SOURCE, SegmentJob, file_digests, input_record
from knee3d.dataset.input_case import InputCase, content_fingerprint, stat_fingerprint
from knee3d.geometry.view_names import FUSED
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import ProbabilityWriter
from knee3d.inference.segmenter import Segmentation, Segmenter
from knee3d.inference.trained_models import load_models, models_fingerprint
from knee3d.io.image_source import read_image
from knee3d.io.label_files import check_label_format, write_labels
from knee3d.io.label_map_file import LABELS_FILE, write_label_map
from knee3d.io.probability_file import write_probabilities
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import agreed_side
from knee3d.labels.scheme_files import scheme_to_json
from knee3d.records import VERSION

if TYPE_CHECKING:
    from knee3d.models.backend import Backend

log = logging.getLogger(__name__)

VOLUMES = "volumes.csv"
PROBABILITIES = "probabilities"
OPINION = f"{FUSED}.h5"
"""Probabilities of all views together around tissue, and the labels of each view; not there where no tissue is."""
_drawing = threading.Lock()
"""matplotlib's fonts are shared: two threads drawing at a time now and then differ in a pixel."""


class ModelsError(ValueError):
    """The networks cannot be used: no knee can be segmented."""


def load_segmenter(wish: SegmentJob, mark: str, engine: Backend | None = None) -> Segmenter:
    """The networks, on an engine; by default the one that the wish leads to.

    Args:
        wish: Which networks, and how.
        mark: What `models_fingerprint` said of them when the run began.
        engine: What computes them.

    Raises:
        BadModels: They cannot be read, do not go together, or were changed since.
    """
    try:
        from knee3d.models.backend import choose_backend, gpu_names
        from knee3d.models.devices import describe_devices

        engine = engine or choose_backend(wish.precision, wish.device)
        gpus = [] if "CPU" in (engine.device or "") else gpu_names()
        log.info("computing with %s, on %s", engine, describe_devices(gpus))
        trained = load_models(wish.models, planes=wish.planes, engine=engine, oblique=wish.oblique)
        changed = models_fingerprint(wish.models, wish.planes, wish.oblique) != mark
    except Exception as error:  # frameworks have errors of their own for damaged files
        raise ModelsError(str(error) or f"{wish.models}: {type(error).__name__}") from error
    if changed:
        raise ModelsError(f"{wish.models} was changed since the run began; run it again")
    return Segmenter(trained, wish.method, str(engine))


def segment_case(entry: InputCase, segmenter: Segmenter, wish: SegmentJob, mark: str, folder: Path) -> dict[str, Any]:
    """Fill a folder with all that is made of a knee; returns what its segmentation.json holds.

    Args:
        entry: The knee.
        segmenter: The networks.
        wish: What is to be made of it.
        mark: The networks' `models_fingerprint`.
        folder: An empty one.

    Raises:
        ValueError: The image cannot be read, its side contradicts what the user says, its voxels are of another size
            than those of training, or it was changed meanwhile.
    """
    from knee3d.report.tables import write_json

    source, case, trained = entry.source, entry.case, segmenter.trained
    check_label_format(wish.form, source.path)
    content = content_fingerprint(source.path)
    volume = read_image(source.path, source.choice)
    side = agreed_side(source.side, volume.side)
    names = _class_names(segmenter.trained.scheme)

    def keep(view: str, probabilities: Volume) -> None:
        write_probabilities(probabilities, names, view, folder / PROBABILITIES / f"{view}.h5")

    kept = ProbabilityWriter(np.float16, keep) if wish.probabilities else None
    found = segmenter.segment(volume, side, f"segmenting {case}", kept)
    _write(found, replace(entry, source=replace(source, side=side)), wish.form, folder)
    (folder / SOURCE).write_text(stat_fingerprint(source.path))
    if content_fingerprint(source.path) != content:
        raise ValueError(f"{source.path} was changed while it was segmented; run it again")
    record = {
        VERSION: FORM,
        "knee3d": __version__,
        "case": case,
        "side": side.value,
        SEEN: next((split.value for split, known in trained.patients.items() if entry.patient in known), ""),
        "scheme": scheme_to_json(found.scheme),
        **input_record(content, source, wish, mark),
        "models": dict(trained.marks),
        "weights": dict(trained.ensemble.weights),
        "engine": segmenter.engine,
        "whole_because": found.whole,
        "shape": list(volume.shape),
        "spacing_mm": volume.spacing_mm.round(5).tolist(),
        "volumes_mm3": dict(found.volumes_mm3),
        "flags": list(found.quality.flags),
        "unchecked": found.quality.unchecked,
        "files": file_digests(folder),
    }
    write_json(record, folder / RECORD)
    return record


def _write(found: Segmentation, entry: InputCase, form: str, folder: Path) -> None:
    from knee3d.report.overview_figure import overview_figure
    from knee3d.report.tables import write_json, write_volumes_csv

    if found.fused is not None:
        write_probabilities(found.fused, _class_names(found.scheme), FUSED, folder / OPINION, found.views)
    write_labels(found.labels, found.scheme, entry.source, form, folder, entry.case)
    write_label_map(folder / LABELS_FILE, dict(enumerate(found.scheme.names, start=1)))
    write_json(asdict(found.quality), folder / "quality.json")
    write_volumes_csv(folder / VOLUMES, {entry.case: found.volumes_mm3})
    with _drawing:
        overview_figure(found.image, found.canonical, found.scheme, folder / "overview.png", entry.case)


def _class_names(scheme: LabelScheme) -> tuple[str, ...]:
    return ("background", *scheme.names)
