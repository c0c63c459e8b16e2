"""Segment one knee image with networks that are loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from knee3d import __version__
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segmentation import Segmentation
from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.box import bounding_box, box_intersection, box_relative_to
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, from_canonical, mirror_left_right
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble, ProbabilityWriter
from knee3d.inference.roi import localize_roi, survey_length, surveying_view, touches_edge
from knee3d.inference.side_finding import find_side_by_network
from knee3d.inference.trained_models import TrainedModels
from knee3d.labels.label_scheme import LATERAL_TIBIAL, MEDIAL_TIBIAL, LabelScheme, classes_in, undivided_scheme
from knee3d.labels.laterality import check_side
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.postprocess.cleaning import clean_labels
from knee3d.postprocess.quality import check_quality
from knee3d.progress import progress

log = logging.getLogger(__name__)

SIDE_UNKNOWN = "side unknown, taken as a right knee; if it is a left one, say it by --side L"
SIDE_UNDIVIDED = "side unknown: tibial cartilage is not divided into medial and lateral; say it by --side"
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
        image: Intensities of an MR image, three axes in any order; its affine says which. Of a knee of unknown side
            the networks find the side where classes tell medial from lateral. Where that stays unsure, tibial cartilage
            is not divided, or the knee is refused. Where classes do not, it is taken as a right one.
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
    pixels, _ = to_network_input(image)
    flags = _spacing_flags(pixels, trained, config, image.name)
    title = f"segmenting {image.name}"
    undivided = None
    if image.side is Side.UNKNOWN:
        side, flag, undivided = _found_side(pixels, trained, title)
        flags, image = (*flags, flag), replace(image, side=side)
        pixels = mirror_left_right(pixels) if side is Side.LEFT else pixels
    codes = axis_codes(image.affine)

    def back(canonical: Volume) -> Volume:
        return image.with_array(from_canonical(canonical, codes, image.side).array)

    writer = keep and ProbabilityWriter(keep.dtype, lambda view, found: keep.write(view, back(found)))
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
    quality = replace(quality, flags=(*quality.flags, *flags))
    view_labels = {view: one.labels for view, one in predictions.items()}
    if undivided:
        classes = classes_in(scheme, undivided)
        labels, probabilities = _merged_labels(labels, classes), probabilities and _merged_parts(probabilities, classes)
        view_labels = {view: _merged_labels(one, classes) for view, one in view_labels.items()}
        scheme = undivided
    return Segmentation(
        image.name,
        image.side,
        back(labels),
        scheme,
        dict(zip(scheme.names, tissue_volumes(labels, scheme).tolist(), strict=True)),
        quality,
        probabilities and from_canonical(probabilities, codes, image.side),
        {view: back(one) for view, one in view_labels.items()},
        why,
        pixels,
        labels,
        _made_by(trained),
    )


def _found_side(pixels: Volume, trained: TrainedModels, title: str) -> tuple[Side, str, LabelScheme | None]:
    """The side of a knee that nobody told, a flag that says so, and the scheme to report it by if it stays unknown.

    Raises:
        ValueError: Classes tell medial from lateral, the networks cannot tell the side, and no scheme fits without it.
    """
    scheme, views = trained.scheme, trained.planes
    if not scheme.sided:
        return Side.UNKNOWN, SIDE_UNKNOWN, None
    view = views.get(Plane.SAGITTAL.value)
    if view is not None and not trained.whole_only and {MEDIAL_TIBIAL, LATERAL_TIBIAL} <= set(scheme.names):
        with _computing, progress(f"{title}: side", 2 * survey_length(pixels, view)) as advance:
            found = find_side_by_network(pixels, view, scheme, advance)
        if found.side is not Side.UNKNOWN:
            word = "left" if found.side is Side.LEFT else "right"
            return found.side, f"side not told: the networks take it for a {word} knee; say it by --side", None
    undivided = undivided_scheme(scheme)
    if undivided is None:
        check_side(Side.UNKNOWN, scheme, ", and the networks cannot tell it")
    return Side.UNKNOWN, SIDE_UNDIVIDED, undivided


def _merged_labels(labels: Volume, classes: Sequence[int]) -> Volume:
    """The classes of another scheme, see `classes_in`."""
    return labels.with_array(np.array(classes, labels.array.dtype)[labels.array])


def _merged_parts(probabilities: Volume, classes: Sequence[int]) -> Volume:
    """Probabilities of the classes of another scheme: sums of those that belong to one."""
    found = np.zeros((*probabilities.array.shape[:3], max(classes) + 1), np.uint16)
    for label, merged in enumerate(classes):
        found[..., merged] += probabilities.array[..., label]
    return probabilities.with_array(np.minimum(found, 255).astype(np.uint8))


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


def _spacing_flags(pixels: Volume, trained: TrainedModels, config: SegmentConfig, name: str) -> tuple[str, ...]:
    """A flag where a knee has voxels that the networks do not take, and is taken all the same.

    Raises:
        ValueError: It is not to be taken.
    """
    other = trained.spacing_problem(pixels.spacing_mm)
    if not other:
        return ()
    if not config.any_spacing:
        raise ValueError(f"{other}; train on such voxels, or say --any-spacing and do not trust the labels")
    log.warning("%s: %s; do not trust the labels", name, other)
    return (f"{other}; do not trust the labels",)


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
