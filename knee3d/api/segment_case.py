"""Segment one knee into a folder: labels, volumes, quality, a picture, and the record of what they were made of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knee3d import __version__
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segment_image import check_intensity_window_rule, segment_image
from knee3d.api.segmentation import Segmentation
from knee3d.api.segmentation_record import RECORD, SOURCE, SegmentationRecord, file_digests
from knee3d.dataset.case_collection import Split
from knee3d.dataset.input_case import InputCase, content_fingerprint, stat_fingerprint
from knee3d.geometry.view_names import FUSED
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import ProbabilityWriter
from knee3d.inference.trained_models import TrainedModels, load_models, models_fingerprint
from knee3d.io.image_source import read_image
from knee3d.io.label_files import check_label_format, write_labels
from knee3d.io.label_names_file import LABELS_FILE, write_label_names
from knee3d.io.probability_file import write_probabilities
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import agreed_side
from knee3d.report.quality_record import QUALITY, QualityRecord

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


def load_networks(
    models: Path, config: SegmentConfig, fingerprint: str, backend: Backend | None = None
) -> TrainedModels:
    """Load the networks of a models folder, ready to segment.

    Args:
        models: The models folder.
        config: Which networks, and how they are computed.
        fingerprint: What `models_fingerprint` gave when the run began.
        backend: What computes them. None chooses one as the config says.

    Raises:
        ModelsError: They cannot be read, do not go together, or were changed since the run began.
    """
    try:
        from knee3d.models.backend import choose_backend, gpu_names
        from knee3d.models.devices import describe_devices

        backend = backend or choose_backend(config.precision, config.device)
        gpus = [] if "CPU" in (backend.device or "") else gpu_names()
        log.info("computing with %s, on %s", backend, describe_devices(gpus))
        trained = load_models(models, planes=config.planes, engine=backend, oblique=config.oblique_views)
        check_intensity_window_rule(trained)
        changed = models_fingerprint(models, config.planes, config.oblique_views) != fingerprint
    except Exception as error:  # frameworks have errors of their own for damaged files
        raise ModelsError(str(error) or f"{models}: {type(error).__name__}") from error
    if changed:
        raise ModelsError(f"{models} was changed since the run began; run it again")
    return trained


def segment_case(
    case: InputCase, trained: TrainedModels, config: SegmentConfig, fingerprint: str, folder: Path
) -> SegmentationRecord:
    """Segment a knee and fill a folder with its results.

    Args:
        case: The knee.
        trained: The networks.
        config: How.
        fingerprint: The `models_fingerprint` of the networks.
        folder: An empty folder, which gets the results.

    Returns:
        The record that its segmentation.json holds.

    Raises:
        ValueError: The image cannot be read, its side contradicts what the user says, its voxels are of another size
            than those of training, or it was changed meanwhile.
    """
    source = case.source
    check_label_format(config.label_format, source.path)
    content = content_fingerprint(source.path)
    image = read_image(source.path, source.choice)
    image = replace(image, side=agreed_side(source.side, image.side), name=case.case)
    names = _class_names(trained.scheme)

    def keep(view: str, probabilities: Volume) -> None:
        write_probabilities(probabilities, names, view, folder / PROBABILITIES / f"{view}.h5")

    kept = ProbabilityWriter(np.float16, keep) if config.save_probabilities else None
    found = segment_image(image, trained, config, kept)
    _write(found, replace(case, source=replace(source, side=found.side)), config.label_format, folder)
    (folder / SOURCE).write_text(stat_fingerprint(source.path))
    if content_fingerprint(source.path) != content:
        raise ValueError(f"{source.path} was changed while it was segmented; run it again")
    weights = trained.ensemble.weights.items()
    record = SegmentationRecord(
        knee3d=__version__,
        case=case.case,
        side=found.side,
        patient_seen=next((split for split, known in trained.patients.items() if case.patient in known), Split.NONE),
        scheme=found.scheme,
        image_fingerprint=content,
        side_given=source.side,
        read_options=source.choice.settings,
        models_fingerprint=fingerprint,
        settings=config.settings,
        network_fingerprints=trained.fingerprints,
        fusion_weights={view: tuple(one) if isinstance(one, Sequence) else one for view, one in weights},
        computed_by=trained.computed_by,
        computed_whole_because=found.computed_whole_because,
        shape=image.shape,
        spacing_mm=tuple(image.spacing_mm.round(5).tolist()),
        volumes_mm3=found.volumes_mm3,
        flags=found.quality.flags,
        unchecked=found.quality.unchecked,
        files=file_digests(folder),
    )
    record.write(folder / RECORD)
    return record


def _write(found: Segmentation, entry: InputCase, form: str, folder: Path) -> None:
    from knee3d.report.overview_figure import overview_figure
    from knee3d.report.tables import write_volumes_csv

    if found.probabilities is not None:
        write_probabilities(found.probabilities, _class_names(found.scheme), FUSED, folder / OPINION, found.view_labels)
    write_labels(found.labels, found.scheme, entry.source, form, folder, entry.case)
    write_label_names(folder / LABELS_FILE, dict(enumerate(found.scheme.names, start=1)))
    QualityRecord.of(found.quality).write(folder / QUALITY)
    write_volumes_csv(folder / VOLUMES, {entry.case: found.volumes_mm3})
    with _drawing:
        overview_figure(found.network_image, found.network_labels, found.scheme, folder / "overview.png", entry.case)


def _class_names(scheme: LabelScheme) -> tuple[str, ...]:
    return ("background", *scheme.names)
