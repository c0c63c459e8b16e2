"""Find the region of interest of a knee from a few slices.

A coarse look: every `SURVEY_MM` of each plane one slice goes through its network, at full resolution within the slice,
because networks know tissue by its size in pixels. What they find, and `MARGIN_MM` around it, is the region that is
then computed with every slice. Whatever makes that doubtful is said, and such a knee is better computed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import ndimage

from knee3d.geometry.box import Box, bounding_box, box_between, box_corners, whole_box
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import PlaneView, PredictedSlices, View
from knee3d.inference.rectangles import contains, widen_to_stride
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
        knowing = {name: replace(views[name], known=known) for name, known in self.known.items()}  # type: ignore
        return {**views, **knowing}


def localizer_slices(image: Volume, axis: int) -> range:
    """Positions of the slices that are looked at along an axis."""
    step = max(1, round(SURVEY_MM / image.spacing_mm[axis]))
    return range(min(step // 2, image.shape[axis] - 1), image.shape[axis], step)


def localize_roi(
    image: Volume, views: Mapping[str, PlaneView], advance: Callable[[int], object] = lambda slices: None
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
    for name, view in sorted(views.items(), key=lambda one: _share(image, one[1].plane.axis)):
        found, known[name] = _looked(image, view, box, blocks, advance)
        if not found.any():
            return RegionOfInterest(None, f"the quick look finds no tissue in the {name} view", known)
        regions[name] = _widened(found, view.plane.axis, blocks, image.spacing_mm)
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


def _share(image: Volume, axis: int) -> float:
    """Of the image that is looked at along an axis."""
    return len(localizer_slices(image, axis)) / image.shape[axis]


def _looked(
    image: Volume, view: PlaneView, box: Box, blocks: np.ndarray, advance: Callable[[int], object]
) -> tuple[np.ndarray, PredictedSlices]:
    """Blocks in which a view finds tissue within a box, and what its network said."""
    axis, every = view.plane.axis, localizer_slices(image, view.plane.axis)
    height, width = np.delete(image.shape, axis).tolist()
    rows, columns = (side for number, side in enumerate(box) if number != axis)
    part = widen_to_stride((rows, columns), height, width)
    found, known = np.zeros(-(-np.array(image.shape) // blocks), dtype=bool), dict[int, np.ndarray]()
    positions = [position for position in every if box[axis].start <= position < box[axis].stop]
    for position, probabilities in view.sample(image, positions, part):
        known[position] = probabilities
        tissue = np.zeros((height, width), dtype=bool)
        tissue[part] = probabilities.argmax(axis=-1) > 0
        pieces, _ = ndimage.label(tissue, np.ones((3, 3)))
        tissue &= ~small_components(pieces, SPECK_MM2 / np.prod(np.delete(image.spacing_mm, axis)))
        there = np.moveaxis(found, axis, 0)[position // blocks[axis]]
        there |= _in_blocks(tissue, np.delete(blocks, axis))
        advance(1)
    advance(len(every) - len(positions))
    return found, PredictedSlices(known, part)


def _widened(found: np.ndarray, axis: int, blocks: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Blocks with the margin around them, and along the axis what lies between two slices."""
    reach = np.maximum(MARGIN_MM, MARGIN_PIXELS * spacing_mm) + np.where(np.arange(3) == axis, SURVEY_MM / 2, 0)
    return ndimage.maximum_filter(found, tuple((2 * np.ceil(reach / (blocks * spacing_mm)).astype(int) + 1).tolist()))


def _around(region: np.ndarray, blocks: np.ndarray, shape: tuple[int, int, int], more: np.ndarray | int = 0) -> Box:
    """The voxels that hold some blocks, and more on each side."""
    starts, stops = box_corners(bounding_box(region) or whole_box(region.shape))
    return box_between(np.maximum(0, starts * blocks - more), np.minimum(shape, stops * blocks + more))


def _in_blocks(tissue: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Blocks of two axes that hold any."""
    rows, columns = (np.arange(0, size, block) for size, block in zip(tissue.shape, blocks, strict=True))
    return np.logical_or.reduceat(np.logical_or.reduceat(tissue, rows, axis=0), columns, axis=1)


def _out_of_blocks(region: np.ndarray, blocks: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    for axis, block in enumerate(blocks):
        region = region.repeat(block, axis=axis)
    return np.ascontiguousarray(region[tuple(slice(size) for size in shape)])
