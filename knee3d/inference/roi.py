"""Find the region of interest of a knee from a few slices.

A coarse look: every `SURVEY_MM` of each plane one slice goes through its network, with the pixels that the network
knows, as networks know tissue by its size in pixels. What they find, and `MARGIN_MM` around it, is the region that is
then computed with every slice. Whatever makes that doubtful is said, and such a knee is better computed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage

from knee3d.geometry.axis_resampling import SAME
from knee3d.geometry.box import Box, bounding_box, box_between, box_corners, whole_box
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import PlaneView, PredictedSlices, View
from knee3d.inference.rectangles import contains, widen_to_stride
from knee3d.inference.resampled_view import ResampledView, SurveyedView, is_of_plane
from knee3d.postprocess.cleaning import small_components

SURVEY_MM = 6.0
MARGIN_MM = 3.0
MARGIN_PIXELS = 4
"""Around what the quick look finds, whichever is more. It is room for what lies between its slices, and it is what the
networks see beside the tissue: their receptive field is far larger, but what lies further away hardly counts (Luo et
al. 2016; benchmarks/fast.py measures it)."""
AROUND_MM = 10.0
"""Around what the views before have found, where the next ones look. Tissue beyond makes the whole doubtful."""
SPECK_MM2 = 10.0
"""Smaller patches in one slice are no cartilage; what they may have been the edge of the region tells."""
BLOCK_MM = 0.75
"""The region is made of blocks of about this size."""
MOST = 0.4
"""Of the image: a larger region is hardly worth the while, and no knee's cartilage."""
OVERLAP = 0.5
"""Least Dice of the regions of two views."""


@dataclass(frozen=True, eq=False)
class RegionOfInterest:
    """Where the tissue is.

    Attributes:
        region: bool of the image's shape; None where it is not certain.
        doubt: What is not certain, in words; empty otherwise.
        known: View name to what its network said of the slices that were looked at.
    """

    region: np.ndarray | None
    doubt: str
    known: Mapping[str, PredictedSlices]

    def views(self, views: Mapping[str, View]) -> dict[str, View]:
        """The same views, which know what was found already."""
        found = dict(views)
        for name, known in self.known.items():
            view = views[name]
            if is_of_plane(view):
                found[name] = view.knowing(known)
        return found


def localizer_slices(image: Volume, axis: int) -> range:
    """Positions of the slices that are looked at along an axis."""
    step = max(1, round(SURVEY_MM / image.spacing_mm[axis]))
    return range(min(step // 2, image.shape[axis] - 1), image.shape[axis], step)


def localize_roi(
    image: Volume, views: Mapping[str, SurveyedView], advance: Callable[[int], object] = lambda slices: None
) -> RegionOfInterest:
    """Survey a knee: one view as a whole, the one with least to compute, the others around what it finds.

    Args:
        image: uint8, canonical axes.
        views: View name to view.
        advance: Told how many slices were just done, of `localizer_slices` of each view.
    """
    if not views:
        return RegionOfInterest(None, "there is no plane for a quick look", {})
    blocks = np.maximum(1, np.rint(BLOCK_MM / image.spacing_mm)).astype(int)
    regions: dict[str, np.ndarray] = {}
    known: dict[str, PredictedSlices] = {}
    box = whole_box(image.shape)
    for name, view in sorted(views.items(), key=lambda one: _share(image, one[1])):
        seen = view.resampled(image)
        found, known[name] = _looked(image, seen, _plane_view(view), box, blocks, advance)
        if not found.any():
            return RegionOfInterest(None, f"the quick look finds no tissue in the {name} view", known)
        regions[name] = _widened(found, _plane_view(view).plane.axis, blocks, image.spacing_mm, seen.spacing_mm)
        if not contains(box, _around(regions[name], blocks, image.shape)):
            return RegionOfInterest(
                None, f"the {name} view finds tissue beyond where the quick look has found any before", known
            )
        region = np.logical_or.reduce([*regions.values()])
        box = _around(region, blocks, image.shape, np.ceil(AROUND_MM / image.spacing_mm).astype(int))
    for (one, first), (other, second) in combinations(regions.items(), 2):
        if 2 * np.count_nonzero(first & second) < OVERLAP * (np.count_nonzero(first) + np.count_nonzero(second)):
            return RegionOfInterest(None, f"the {one} and {other} views find tissue in different places", known)
    if region.mean() > MOST:
        return RegionOfInterest(
            None, f"the quick look finds tissue all over, in {region.mean():.0%} of the image", known
        )
    return RegionOfInterest(_out_of_blocks(region, blocks, image.shape), "", known)


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


def _share(image: Volume, view: SurveyedView) -> float:
    """Of the image that a view looks at."""
    return survey_length(image, view) / view.grid(image).shape[_plane_view(view).plane.axis]


def _looked(
    image: Volume, seen: Volume, view: PlaneView, box: Box, blocks: np.ndarray, advance: Callable[[int], object]
) -> tuple[np.ndarray, PredictedSlices]:
    """Blocks of the image in which a view finds tissue within a box, and what its network said.

    Args:
        image: The voxels that blocks and box are of.
        seen: What the view looks at: the image, or the image with the voxels of the network.
        view: The view on these.
        box: Where to look.
        blocks: Voxels of a block.
        advance: Told how many slices were just done.
    """
    axis, every = view.plane.axis, localizer_slices(seen, view.plane.axis)
    height, width = np.delete(seen.shape, axis).tolist()
    inside = _box_seen(image, seen, box)
    rows, columns = (side for number, side in enumerate(inside) if number != axis)
    part = widen_to_stride((rows, columns), height, width)
    block_of = [places // block for places, block in zip(_places_in(image, seen), blocks, strict=True)]
    across = [block_of[other] for other in range(3) if other != axis]
    found, known = np.zeros(-(-np.array(image.shape) // blocks), dtype=bool), dict[int, np.ndarray]()
    positions = [position for position in every if inside[axis].start <= position < inside[axis].stop]
    for position, probabilities in view.sample(seen, positions, part):
        known[position] = probabilities
        tissue = np.zeros((height, width), dtype=bool)
        tissue[part] = probabilities.argmax(axis=-1) > 0
        pieces, _ = ndimage.label(tissue, np.ones((3, 3)))
        tissue &= ~small_components(pieces, SPECK_MM2 / np.prod(np.delete(seen.spacing_mm, axis)))
        there = np.moveaxis(found, axis, 0)[block_of[axis][position]]
        where = np.nonzero(tissue)
        there[across[0][where[0]], across[1][where[1]]] = True
        advance(1)
    advance(len(every) - len(positions))
    return found, PredictedSlices(known, part)


def _places_in(image: Volume, seen: Volume) -> list[np.ndarray]:
    """The voxel of the image in which each voxel of what is seen lies, by axis."""
    ratios = seen.spacing_mm / image.spacing_mm
    return [
        np.arange(count) if count == other and abs(ratio - 1) < SAME else np.clip(
            np.rint((other - 1) / 2 + (np.arange(count) - (count - 1) / 2) * ratio).astype(int), 0, other - 1)
        for count, other, ratio in zip(seen.shape, image.shape, ratios, strict=True)
    ]  # fmt: skip


def _box_seen(image: Volume, seen: Volume, box: Box) -> Box:
    """The voxels of what is seen that lie in a box of the image."""
    within = [np.flatnonzero((places >= side.start) & (places < side.stop))
              for places, side in zip(_places_in(image, seen), box, strict=True)]  # fmt: skip
    return box_between(*np.array([(one[0], one[-1] + 1) if len(one) else (0, 0) for one in within]).T)


def _widened(
    found: np.ndarray, axis: int, blocks: np.ndarray, spacing_mm: np.ndarray, seen_mm: np.ndarray
) -> np.ndarray:
    """Blocks with the margin around them, and along the axis what lies between two slices."""
    reach = np.maximum(MARGIN_MM, MARGIN_PIXELS * seen_mm) + np.where(np.arange(3) == axis, SURVEY_MM / 2, 0)
    return ndimage.maximum_filter(found, tuple((2 * np.ceil(reach / (blocks * spacing_mm)).astype(int) + 1).tolist()))


def _around(region: np.ndarray, blocks: np.ndarray, shape: tuple[int, int, int], more: np.ndarray | int = 0) -> Box:
    """The voxels that hold some blocks, and more on each side."""
    starts, stops = box_corners(bounding_box(region) or whole_box(region.shape))
    return box_between(np.maximum(0, starts * blocks - more), np.minimum(shape, stops * blocks + more))


def _out_of_blocks(region: np.ndarray, blocks: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    for axis, block in enumerate(blocks):
        region = region.repeat(block, axis=axis)
    return np.ascontiguousarray(region[tuple(slice(size) for size in shape)])
