"""Segment one knee image with networks that are loaded."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np

from knee3d import __version__
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segmentation import Segmentation
from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.box import bounding_box, box_intersection, box_relative_to
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, from_canonical
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble, ProbabilityWriter
from knee3d.inference.roi import localize_roi, survey_length, surveying_view, touches_edge
from knee3d.inference.trained_models import TrainedModels
from knee3d.labels.laterality import check_side
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.postprocess.cleaning import clean_labels
from knee3d.postprocess.quality import check_quality
from knee3d.progress import progress

log = logging.getLogger(__name__)

SIDE_UNKNOWN = "side unknown, taken as a right knee; if it is a left one, say it by --side L"
AROUND_MM = 5.0
"""Probabilities are kept where tissue is, and so far around it."""
_computing = threading.Lock()
"""Networks take all cores and each knee much memory: one knee is computed at a time."""


def segment_image(
    image: KneeImage,
    trained: TrainedModels,
    config: SegmentConfig,
    keep: ProbabilityWriter | None = None,
) -> Segmentation:
    """Segment the image of a knee.

    Args:
        image: Intensities of an MR image, three axes in any order; its affine says which. A knee of unknown side is
            taken as a right one, if the classes do not tell medial from lateral.
        trained: The networks, with their fusion weights.
        config: How.
        keep: What to do with the probabilities of each view, in the axes and on the side of the image. None drops them.

    Raises:
        ValueError: The volume is no image (constant, NaN, not three axes), its side is unknown and matters, its voxels
            are of another size than those of training, or the networks were trained on other windows.
    """
    check_intensity_window_rule(trained)
    if not isinstance(image, KneeImage) or image.array.ndim != 3 or image.array.dtype.kind not in "iuf":
        raise ValueError("an image is a knee3d.KneeImage of real numbers with three axes; knee3d.read gives one")
    check_side(image.side, trained.scheme)
    pixels, _ = to_network_input(image)
    _check_spacing(pixels, trained, config, image.name)
    codes = axis_codes(image.affine)

    def back(canonical: Volume) -> Volume:
        return image.with_array(from_canonical(canonical, codes, image.side).array)

    writer = keep and ProbabilityWriter(keep.dtype, lambda view, found: keep.write(view, back(found)))
    title = f"segmenting {image.name}"
    with _computing:
        ensemble, region, why = _fast(pixels, trained, title) if config.fast else (trained.ensemble, None, "")
        found = ensemble.predict(pixels, title, region, writer)
        if region is not None and touches_edge(found.labels, region):
            del found  # otherwise there would be two in memory
            why = "tissue reaches the edge of the region of interest"
            found = ensemble.predict(pixels, title, None, writer)
        labels, predictions = found.labels, found.view_predictions
        probabilities = _around_tissue(found.fused, labels)
        del found
    scheme = trained.scheme
    labels = clean_labels(labels, config.cleaning, scheme.pieces) if config.cleaning else labels
    quality = check_quality(labels, predictions, scheme.names, trained.reference)
    if image.side is Side.UNKNOWN:
        quality = replace(quality, flags=(*quality.flags, SIDE_UNKNOWN))
    return Segmentation(
        image.name,
        image.side,
        back(labels),
        scheme,
        dict(zip(scheme.names, tissue_volumes(labels, scheme).tolist(), strict=True)),
        quality,
        probabilities and from_canonical(probabilities, codes, image.side),
        {view: back(one.labels) for view, one in predictions.items()},
        why,
        pixels,
        labels,
        _made_by(trained),
    )


def _made_by(trained: TrainedModels) -> dict[str, str]:
    """What makes labels, in words."""
    weights = trained.ensemble.weights
    return {
        "knee3d": __version__,
        "networks": "  ".join(f"{view} {fingerprint[:12]}" for view, fingerprint in trained.fingerprints.items()),
        "fusion weights": "  ".join(f"{view} {np.round(weight, 3)}" for view, weight in weights.items()),
        "computed by": trained.computed_by,
    }


def check_intensity_window_rule(trained: TrainedModels) -> None:
    """Refuse networks that know other grey values than this version makes.

    Raises:
        ValueError: Names both rules.
    """
    if trained.window_rule != WINDOW_RULE:
        raise ValueError(
            f"the models were trained on images windowed by the rule {trained.window_rule!r}, this version of knee3d "
            f"makes them by {WINDOW_RULE!r}; train again, or use the version that trained them"
        )


def _check_spacing(pixels: Volume, trained: TrainedModels, config: SegmentConfig, name: str) -> None:
    other = trained.spacing_problem(pixels.spacing_mm)
    if other and not config.any_spacing:
        raise ValueError(f"{other}; train on such voxels, or say --any-spacing and do not trust the labels")
    if other:
        log.warning("%s: %s; do not trust the labels", name, other)


def _fast(pixels: Volume, trained: TrainedModels, title: str) -> tuple[Ensemble, np.ndarray | None, str]:
    """The ensemble that knows what a few slices showed, the region of interest, and why there is none."""
    if trained.whole_only:
        return trained.ensemble, None, f"the networks of {', '.join(trained.whole_only)} must see whole slices"
    planes = trained.planes
    if not planes:
        return trained.ensemble, None, "there is no plane for a quick look"
    name = surveying_view(planes)
    with progress(f"{title}: region of interest", survey_length(pixels, planes[name])) as advance:
        found = localize_roi(pixels, name, planes[name], trained.scheme.names, advance)
    return replace(trained.ensemble, views=found.views(trained.ensemble.views)), found.region, found.doubt


def _around_tissue(fused: Volume, labels: Volume) -> Volume | None:
    """The probabilities where tissue is and around it, uint8: surfaces need no others."""
    box = bounding_box(labels.array > 0, np.ceil(AROUND_MM / labels.spacing_mm).astype(int))
    if box is None:
        return None
    inner = labels.box_of(fused)
    part = fused.part(box_relative_to(box_intersection(box, inner), inner))
    rounded = np.empty(part.array.shape, np.uint8)
    for row, values in zip(rounded, part.array, strict=True):  # a row at a time: memory
        np.rint(values * np.float32(255), out=row, casting="unsafe")
    return part.with_array(rounded)
