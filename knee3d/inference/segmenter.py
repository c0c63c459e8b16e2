"""Networks at hand, and one knee after the other: a volume -> labels on its own grid, volumes, flags."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from knee3d.dataset.intensity import WINDOW_RULE
from knee3d.dataset.preparation import network_image
from knee3d.geometry.box import bounding_box, box_intersection, box_relative_to
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, from_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import EnsemblePrediction, ProbabilityWriter
from knee3d.inference.roi import localize_roi, survey_slices, touches_edge
from knee3d.inference.trained_models import TrainedModels, load_models
from knee3d.labels.label_scheme import LabelScheme
from knee3d.labels.laterality import check_side
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.postprocess.cleaning import NOTHING, CleaningConfig, clean_labels
from knee3d.postprocess.quality import QualityReport, check_quality
from knee3d.progress import progress

log = logging.getLogger(__name__)

SIDE_UNKNOWN = "side unknown, taken as a right knee; if it is a left one, say it by --side L"
AROUND_MM = 5.0
"""Of the tissue, its probabilities are kept."""


@dataclass(frozen=True)
class SegmentMethod:
    """How a knee is segmented, as far as its labels depend on it.

    Attributes:
        fast: Whether only what a quick look finds is computed with every slice, see `inference.roi`.
        cleaning: What is too small to be kept.
        any_spacing: Whether knees are taken whose voxels are of another size than those of training.
    """

    fast: bool = False
    cleaning: CleaningConfig = NOTHING
    any_spacing: bool = False


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A knee's labels.

    Attributes:
        labels: uint8 classes of the scheme, on the grid and in the axes of the image that came in.
        scheme: What they mean.
        volumes_mm3: Tissue to its volume.
        quality: How believable they are, with flags in words.
        whole: Why the knee was computed whole where that was not asked for; empty otherwise.
        image: What the networks saw: uint8, canonical axes, a left knee mirrored to right.
        canonical: The labels on the grid of `image`.
        fused: Probabilities of all views together where tissue is and `AROUND_MM` around: (*part, classes) uint8, where
            255 is 1, on a part of the grid of `labels`. None where there is no tissue.
        views: View name to what it says alone, uint8 on the grid of `labels`.
    """

    labels: Volume
    scheme: LabelScheme
    volumes_mm3: Mapping[str, float]
    quality: QualityReport
    whole: str
    image: Volume
    canonical: Volume
    fused: Volume | None
    views: Mapping[str, Volume]


@dataclass(frozen=True)
class Segmenter:
    """Networks, and how they are used. Threads may share it: they wait for each other.

    Attributes:
        trained: The networks, with their fusion weights.
        method: How.
        engine: What computes them, in words.

    Raises:
        ValueError: The networks were trained on images with another `window_of`.
    """

    trained: TrainedModels
    method: SegmentMethod = SegmentMethod()
    engine: str = ""
    _alone: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.trained.window_rule != WINDOW_RULE:
            raise ValueError(
                f"the models were trained on images windowed by the rule {self.trained.window_rule!r}, this version of "
                f"knee3d makes them by {WINDOW_RULE!r}; train again, or use the version that trained them"
            )

    def segment(
        self,
        volume: Volume,
        side: Side | str = Side.UNKNOWN,
        name: str = "segmenting",
        keep: ProbabilityWriter | None = None,
    ) -> Segmentation:
        """Segment a knee.

        Args:
            volume: Intensities of an MR image, three axes in any order; its affine says which.
            side: "R" or "L"; unknown ("") is taken as a right knee, if the networks do not tell medial from lateral.
            name: What the progress bar and warnings say.
            keep: What to do with the probabilities of each view, in the axes and on the side of `volume`.

        Raises:
            ValueError: The volume is no image (constant, NaN, not three axes), its side is unknown and matters, or its
                voxels are of another size than those of training.
        """
        if not isinstance(volume, Volume) or volume.array.ndim != 3 or volume.array.dtype.kind not in "iuf":
            raise ValueError("an image is a knee3d.Volume of real numbers with three axes; knee3d.read gives one")
        if side not in list(Side):
            raise ValueError(f"side {side!r} is none; a knee is R, L or '' (unknown)")
        side = Side(side)
        check_side(side, self.trained.scheme)
        image, _ = network_image(KneeImage(volume.array, volume.affine, side, name))
        other = self.trained.of_other_voxels(image.spacing_mm)
        if other and not self.method.any_spacing:
            raise ValueError(f"{other}; train on such voxels, or say --any-spacing and do not trust the labels")
        if other:
            log.warning("%s: %s; do not trust the labels", name, other)
        codes = axis_codes(volume.affine)

        def take(view: str, probabilities: Volume) -> None:
            if keep is not None:
                keep.take(view, volume.with_array(from_canonical(probabilities, codes, side).array))

        with self._alone:  # the networks take all cores, and each knee much memory
            opinion, whole = self._opinion(image, name, keep and ProbabilityWriter(keep.dtype, take))
            labels, looks = opinion.labels, opinion.looks
            fused = _around_tissue(opinion.fused, labels)
            del opinion
        labels = (
            clean_labels(labels, self.method.cleaning, self.trained.scheme.pieces) if self.method.cleaning else labels
        )
        scheme = self.trained.scheme
        volumes = tissue_volumes(labels, scheme)
        found = check_quality(labels, looks, scheme.names, self.trained.reference)
        if side is Side.UNKNOWN:
            found = replace(found, flags=(*found.flags, SIDE_UNKNOWN))
        return Segmentation(
            volume.with_array(from_canonical(labels, codes, side).array),
            scheme,
            dict(zip(scheme.names, volumes.tolist(), strict=True)),
            found,
            whole,
            image,
            labels,
            fused and from_canonical(fused, codes, side),
            {name: from_canonical(look.labels, codes, side) for name, look in looks.items()},
        )

    def _opinion(self, image: Volume, name: str, keep: ProbabilityWriter | None) -> tuple[EnsemblePrediction, str]:
        """An opinion, and why it is of the whole knee where that was not asked for."""
        ensemble, why = self.trained.ensemble, ""
        if self.method.fast and self.trained.whole_only:
            why = f"the networks of {', '.join(self.trained.whole_only)} must see whole slices"
        elif self.method.fast:
            views = self.trained.planes
            slices = sum(len(survey_slices(image, view.plane.axis)) for view in views.values())
            with progress(f"{name}: quick look", slices) as advance:
                joint = localize_roi(image, views, advance)
            ensemble, why = replace(ensemble, views=joint.views(ensemble.views)), joint.why
            if joint.region is not None:
                opinion = ensemble.opinion(image, name, joint.region, keep)
                if not touches_edge(opinion.labels, joint.region):
                    return opinion, ""
                del opinion  # or there would be two in memory
                why = "tissue reaches the edge of what the quick look found"
        return ensemble.opinion(image, name, keep=keep), why


def _around_tissue(fused: Volume, labels: Volume) -> Volume | None:
    """What is kept of the probabilities: to measure tissue finer than voxels no more is needed."""
    box = bounding_box(labels.array > 0, np.ceil(AROUND_MM / labels.spacing_mm).astype(int))
    if box is None:
        return None
    inner = labels.box_of(fused)
    part = fused.part(box_relative_to(box_intersection(box, inner), inner))
    rounded = np.empty(part.array.shape, np.uint8)
    for row, values in zip(rounded, part.array, strict=True):  # a row at a time: memory
        np.rint(values * np.float32(255), out=row, casting="unsafe")
    return part.with_array(rounded)


def load_segmenter(
    models: Path | str,
    planes: Sequence[Plane | str] = (),
    fast: bool = False,
    precision: str = "auto",
    device: str | None = None,
) -> Segmenter:
    """The networks of a models folder, ready to segment.

    Args:
        models: As `knee3d-train` and `knee3d fuse` fill it.
        planes: Which planes, or "volume", look at the knee; none is every one.
        fast: See `SegmentMethod`.
        precision: "auto", "float32" or "bfloat16", see `models.backend.choose_backend`.
        device: "cpu", "gpu" or "gpu:1"; None leaves it to TensorFlow.

    Raises:
        FileNotFoundError: There is no trained plane.
        ValueError: The planes do not go together, or one cannot be read.
    """
    from knee3d.models.backend import choose_backend

    asked = [planes] if isinstance(planes, str) else planes
    wanted = [plane if isinstance(plane, str) else plane.value for plane in asked]
    engine = choose_backend(precision, device)
    return Segmenter(load_models(Path(models), planes=wanted, engine=engine), SegmentMethod(fast=fast), str(engine))
