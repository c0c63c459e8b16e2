"""Find the region of interest of a knee from a few slices.

A coarse look: every `SURVEY_MM` one slice of one plane goes through its network, with the pixels that the network
knows, as networks know tissue by its size in pixels. What it finds, and `MARGIN_MM` around it, is the region that is
then computed by all networks with every slice. Whatever makes that doubtful is said, and such a knee is better computed
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from knee3d.geometry.axis_resampling import SAME
from knee3d.geometry.box import bounding_box
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import PlaneView, PredictedSlices, View
from knee3d.inference.resampled_view import ResampledView, SurveyedView, is_of_plane
from knee3d.postprocess.cleaning import small_components

SURVEY_MM = 4.0
SURVEYED_BY = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)
"""Planes by how well they find the region. Every plate of cartilage runs across sagittal slices; a plate that lies
along a slice may be between two of them. On two real label maps a perfect sagittal network loses no voxel, a perfect
axial or coronal one up to half a percent (`tests/inference/test_roi.py`)."""
MARGIN_MM = 3.0
MARGIN_PIXELS = 4
"""Around what the quick look finds, whichever is more. It is room for what lies between its slices, and it is what the
networks see beside the tissue: their receptive field is far larger, but what lies further away hardly counts (Luo et
al. 2016; benchmarks/fast.py measures it)."""
SPECK_MM2 = 10.0
"""Smaller patches in one slice are no cartilage; what they may have been the edge of the region tells."""
BLOCK_MM = 0.75
"""The region is made of blocks of about this size."""
MOST = 0.4
"""Of the image: a larger region is hardly worth the while, and no knee's cartilage."""


@dataclass(frozen=True, eq=False)
class RegionOfInterest:
    """Where the tissue is.

    Attributes:
        view: The name of the view that looked for it.
        region: bool of the image's shape; None where it is not certain.
        doubt: What is not certain, in words; empty otherwise.
        known: What the network of the view said of the slices that were looked at.
    """

    view: str
    region: np.ndarray | None
    doubt: str
    known: PredictedSlices

    def views(self, views: Mapping[str, View]) -> dict[str, View]:
        """The same views, of which the one that looked need not compute its slices again."""
        found, view = dict(views), views[self.view]
        if is_of_plane(view):
            found[self.view] = view.knowing(self.known)
        return found


def surveying_view(views: Mapping[str, SurveyedView]) -> str:
    """The name of the view that looks for the region of interest, see `SURVEYED_BY`."""
    return min(views, key=[plane.value for plane in SURVEYED_BY].index)


def localizer_slices(image: Volume, axis: int) -> range:
    """Positions of the slices that are looked at along an axis."""
    step = max(1, round(SURVEY_MM / image.spacing_mm[axis]))
    return range(min(step // 2, image.shape[axis] - 1), image.shape[axis], step)


def localize_roi(
    image: Volume,
    name: str,
    view: SurveyedView,
    tissues: Sequence[str],
    advance: Callable[[int], object] = lambda slices: None,
) -> RegionOfInterest:
    """Survey a knee by one view.

    Args:
        image: uint8, canonical axes.
        name: The name of the view.
        view: The view.
        tissues: The name of each class but background. A region is certain only where all of them were found: what the
            survey misses, no network is shown afterwards.
        advance: Told how many slices were just done, of `survey_length`.
    """
    blocks = np.maximum(1, np.rint(BLOCK_MM / image.spacing_mm)).astype(int)
    seen = view.resampled(image)
    found, present, known = _looked(image, seen, _plane_view(view), blocks, advance)
    missing = [tissue for tissue, there in zip(tissues, present[1:], strict=True) if not there]
    if missing:
        words = f"the quick look finds no {' and no '.join(missing)} in the {name} view"
        return RegionOfInterest(name, None, words, known)
    region = _widened(found, blocks, image.spacing_mm, seen.spacing_mm)
    if region.mean() > MOST:
        words = f"the quick look finds tissue all over, in {region.mean():.0%} of the image"
        return RegionOfInterest(name, None, words, known)
    return RegionOfInterest(name, _out_of_blocks(region, blocks, image.shape), "", known)


def touches_edge(labels: Volume, region: np.ndarray) -> bool:
    """Whether tissue lies at the edge of the region, so that there may be more beyond; the image's border is none.

    Pieces that touch it with less than `SPECK_MM2` are specks, as they are to the quick look.
    """
    box = bounding_box(region, 1)
    if box is None:
        return False
    pieces, count = ndimage.label(labels.array[box], np.ones((3, 3, 3)))
    region = region[box]  # with what is around it
    voxels = np.array(np.nonzero(pieces))
    contact = np.zeros(count + 1)
    for axis, size in enumerate(pieces.shape):
        face_mm2 = np.prod(np.delete(labels.spacing_mm, axis))
        for step in (-1, 1):
            beside = voxels.copy()
            beside[axis] = np.clip(beside[axis] + step, 0, size - 1)
            cut = voxels[:, ~region[tuple(beside)]]
            contact += face_mm2 * np.bincount(pieces[tuple(cut)], minlength=len(contact))
    return bool(contact.max() >= SPECK_MM2)


def _plane_view(view: SurveyedView) -> PlaneView:
    return view.view if isinstance(view, ResampledView) else view


def survey_length(image: Volume, view: SurveyedView) -> int:
    """The number of slices of an image that the survey of a view looks at."""
    return len(localizer_slices(view.grid(image), _plane_view(view).plane.axis))


def _looked(
    image: Volume, seen: Volume, view: PlaneView, blocks: np.ndarray, advance: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray, PredictedSlices]:
    """Blocks of the image in which a view finds tissue, which classes it finds, and what its network said.

    Args:
        image: The voxels that blocks are of.
        seen: What the view looks at: the image, or the image with the voxels of the network.
        view: The view on these.
        blocks: Voxels of a block.
        advance: Told how many slices were just done.
    """
    axis = view.plane.axis
    height, width = np.delete(seen.shape, axis).tolist()
    rectangle = slice(0, height), slice(0, width)
    block_of = [places // block for places, block in zip(_places_in(image, seen), blocks, strict=True)]
    across = [block_of[other] for other in range(3) if other != axis]
    found, known = np.zeros(-(-np.array(image.shape) // blocks), dtype=bool), dict[int, np.ndarray]()
    present = np.zeros(view.predictor.classes, dtype=bool)
    smallest = SPECK_MM2 / np.prod(np.delete(seen.spacing_mm, axis))
    for position, probabilities in view.sample(seen, localizer_slices(seen, axis), rectangle):
        known[position] = probabilities
        classes = probabilities.argmax(axis=-1)
        pieces, _ = ndimage.label(classes > 0, np.ones((3, 3)))
        classes[small_components(pieces, smallest)] = 0
        where = np.nonzero(classes)
        present[np.unique(classes)] = True
        there = np.moveaxis(found, axis, 0)[block_of[axis][position]]
        there[across[0][where[0]], across[1][where[1]]] = True
        advance(1)
    return found, present, PredictedSlices(known, rectangle)


def _places_in(image: Volume, seen: Volume) -> list[np.ndarray]:
    """The voxel of the image in which each voxel of what is seen lies, by axis."""
    ratios = seen.spacing_mm / image.spacing_mm
    return [
        np.arange(count) if count == other and abs(ratio - 1) < SAME else np.clip(
            np.rint((other - 1) / 2 + (np.arange(count) - (count - 1) / 2) * ratio).astype(int), 0, other - 1)
        for count, other, ratio in zip(seen.shape, image.shape, ratios, strict=True)
    ]  # fmt: skip


def _widened(found: np.ndarray, blocks: np.ndarray, spacing_mm: np.ndarray, seen_mm: np.ndarray) -> np.ndarray:
    """Blocks with the margin around them, and half of what lies between two slices: tissue may run on obliquely."""
    reach = np.maximum(MARGIN_MM, MARGIN_PIXELS * seen_mm) + SURVEY_MM / 2
    return ndimage.maximum_filter(found, tuple((2 * np.ceil(reach / (blocks * spacing_mm)).astype(int) + 1).tolist()))


def _out_of_blocks(region: np.ndarray, blocks: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    for axis, block in enumerate(blocks):
        region = region.repeat(block, axis=axis)
    return np.ascontiguousarray(region[tuple(slice(size) for size in shape)])
