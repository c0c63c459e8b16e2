"""ObliqueView: predict a volume along slices of any direction.

The image is resampled onto oblique slices and the network's answers are brought back to the image's voxels, both
trilinearly and a few slices at a time: the oblique volume, several times as large as the image, is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from knee3d.geometry.resampling import LINEAR, oblique_grid, resample
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import BATCH_PIXELS, Part, Predictor, check_image, predict_slices, stack_neighbours
from knee3d.inference.rectangles import Rectangle, slice_relative_to, widen_to_stride

VOXELS = 1 << 16
"""Interpolated at a time: few enough to stay in the cache."""

SLAB = 8
"""Slices of one call, of which the same rectangle is cut out."""


@dataclass(frozen=True, eq=False)
class ObliqueView:
    """Slices across a turned grid around the image.

    Attributes:
        turn: (3, 3) rotation in the scanner's frame, see `geometry.resampling.oblique_grid`; slices are counted along
            the turned third axis.
        spacing_mm: Between pixels and between slices, the same along each axis: what the network was trained on.
        predictor: A network that was trained on oblique slices.
        whole_slices_only: Whether it must see whole slices, as it did in training; otherwise it sees the parts that are
            wanted.
    """

    turn: np.ndarray
    spacing_mm: float
    predictor: Predictor
    whole_slices_only: bool = False

    def steps(self, image: Volume) -> int:
        """Layers of the image: each lies between two oblique slices."""
        return _count_layers(oblique_grid(image, self.turn, self.spacing_mm))

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """See `View`. Each voxel that is wanted, and no other, comes once, slab by slab of the oblique slices.

        What a network sees of a slice is the rectangle that holds the voxels, with its surroundings, unless it must
        see all of it.

        Raises:
            ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
        """
        check_image(image)
        grid = oblique_grid(image, self.turn, self.spacing_mm)
        sorted_voxels = _Sorted.of(image, grid, region, self.whole_slices_only)
        last: _Slices | None = None
        for layers in sorted_voxels.slabs():
            rectangle = sorted_voxels.rectangle(layers)
            kept = last if last is not None and last.first == layers.start else None
            predicted = self._predict(image, grid, layers.start + (kept is not None), layers.stop, rectangle)
            slices = predicted if kept is None else kept.joined_to(predicted)
            for voxels in sorted_voxels.chunks(layers):
                where = np.unravel_index(voxels, image.shape)
                yield where, slices.between(_places(where, sorted_voxels.steps))
            last = slices.last()
            advance(layers.stop - layers.start)
        advance(_count_layers(grid) - sorted_voxels.occupied)

    def _predict(self, image: Volume, grid: Volume, first: int, last: int, rectangle: Rectangle) -> _Slices:
        """The network's answer for the slices from the first to the last, or to the grid's last, within a rectangle."""
        context, size = self.predictor.context, grid.shape[2]
        last = min(last, size - 1)
        outer = widen_to_stride(rectangle, *grid.shape[:2])
        seen = slice(max(0, first - context), min(size, last + context + 1))
        grey = resample(image, grid.part((outer[0], outer[1], seen)), LINEAR).array
        stack = np.moveaxis(np.rint(grey).astype(np.uint8), 2, 0)
        # Where neighbours were cut off at an end of the grid, and only there, the outermost slice is repeated.
        slices = stack_neighbours(stack, range(first - seen.start, last + 1 - seen.start), context)
        predicted = predict_slices(self.predictor, slices)
        return _Slices(
            first,
            rectangle,
            predicted[:, slice_relative_to(rectangle[0], outer[0]), slice_relative_to(rectangle[1], outer[1])],
        )


@dataclass(frozen=True, eq=False)
class _Slices:
    """Probabilities of consecutive oblique slices within a rectangle.

    Attributes:
        first: Number of the first slice.
        rectangle: Of each slice.
        array: (slices, height, width, classes) float32.
    """

    first: int
    rectangle: Rectangle
    array: np.ndarray

    def last(self) -> _Slices:
        """The last of them, without the memory of the others."""
        return _Slices(self.first + len(self.array) - 1, self.rectangle, self.array[-1:].copy())

    def joined_to(self, others: _Slices) -> _Slices:
        """This slice before others, within their rectangle; zeros where this one was not known."""
        array = np.empty((1 + len(others.array), *others.array.shape[1:]), others.array.dtype)
        array[0], array[1:] = 0, others.array
        both = [
            slice(max(mine.start, theirs.start), max(mine.start, theirs.start, min(mine.stop, theirs.stop)))
            for mine, theirs in zip(self.rectangle, others.rectangle, strict=True)
        ]
        there, here = (
            tuple(slice_relative_to(side, outer) for side, outer in zip(both, one.rectangle, strict=True))
            for one in (others, self)
        )
        array[0][there] = self.array[0][here]
        return _Slices(self.first, others.rectangle, array)

    def between(self, places: np.ndarray) -> np.ndarray:
        """Trilinear, so that classes add up to what they do in the slices, but for rounding.

        Args:
            places: (3, n) rows, columns and slices of the grid, all within.

        Returns:
            (n, classes) float32.
        """
        shape = np.array([*self.array.shape[1:3], len(self.array)])[:, None]
        inside = places - np.array([self.rectangle[0].start, self.rectangle[1].start, self.first])[:, None]
        below = np.clip(np.floor(inside).astype(np.int64), 0, np.maximum(shape - 2, 0))
        share = np.clip(inside - below, 0, 1).astype(np.float32)
        flat = self.array.reshape(-1, self.array.shape[-1])
        found = np.zeros((places.shape[1], flat.shape[1]), np.float32)
        for corner in np.ndindex(2, 2, 2):
            ahead = np.array(corner)[:, None]
            row, column, number = np.minimum(below + ahead, shape - 1)
            weight = np.where(ahead, share, 1 - share).prod(axis=0)
            found += weight[:, None] * flat[(number * shape[0] + row) * shape[1] + column]
        return found


@dataclass(frozen=True, eq=False)
class _Sorted:
    """The voxels that are wanted of an image, by the layer between two oblique slices in which they lie.

    Attributes:
        steps: (4, 4) from the image's indices to the grid's.
        size: Rows and columns of the grid.
        order: (n,) flat indices of the voxels, layer after layer.
        begins: (layers + 1,) where each layer begins in it.
        spans: (layers, 2, 2) for rows and columns the first and the one after the last that are computed for the layer.
    """

    steps: np.ndarray
    size: tuple[int, int]
    order: np.ndarray = field(repr=False)
    begins: np.ndarray = field(repr=False)
    spans: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, image: Volume, grid: Volume, region: np.ndarray | None, whole: bool) -> _Sorted:
        """Sort them; slices are computed around the voxels of a layer, or whole."""
        steps = np.linalg.solve(grid.affine, image.affine)
        layers = _layers(image.shape, steps[2], _count_layers(grid))
        if region is None:
            layers, wanted = layers.ravel(), None
        else:
            layers, wanted = layers[region], np.flatnonzero(region)
        order = np.argsort(layers, kind="stable").astype(np.min_scalar_type(-image.array.size))  # half of the memory
        begins = np.searchsorted(layers[order], np.arange(_count_layers(grid) + 1))
        if wanted is not None:
            order = wanted[order]
        spans = np.zeros((len(begins) - 1, 2, 2), dtype=np.int64)
        for layer in np.flatnonzero(np.diff(begins)):
            voxels = order[begins[layer] : begins[layer + 1]]
            around = _places(np.unravel_index(voxels, image.shape), steps[:2])
            spans[layer] = np.stack([np.floor(around.min(axis=1)), np.floor(around.max(axis=1)) + 2], axis=-1)
            if whole:
                spans[layer] = [[0, size] for size in grid.shape[:2]]
        spans = np.clip(spans, 0, np.array(grid.shape[:2])[:, None])
        return cls(steps, grid.shape[:2], order, begins, spans)

    @property
    def occupied(self) -> int:
        """Layers that hold any voxel."""
        return int(np.count_nonzero(np.diff(self.begins)))

    def rectangle(self, layers: range) -> Rectangle:
        """What holds the voxels of some layers, and of the one after them, with which they share a slice."""
        some = slice(layers.start, layers.stop + 1)
        spans = self.spans[some][np.diff(self.begins)[some] > 0]
        (top, left), (bottom, right) = spans[..., 0].min(axis=0).tolist(), spans[..., 1].max(axis=0).tolist()
        return slice(top, bottom), slice(left, right)

    def slabs(self) -> Iterator[range]:
        """Layers that are computed together, each with some voxel: as many as a batch has room for."""
        occupied = np.diff(self.begins) > 0
        start = 0
        while start < len(occupied):
            stop = start + 1
            while stop < len(occupied) and occupied[start : stop + 1].all() and self._fit(range(start, stop + 1)):
                stop += 1
            if occupied[start]:
                yield range(start, stop)
            start = stop

    def chunks(self, layers: range) -> Iterator[np.ndarray]:
        """Flat indices of the voxels of some layers, some at a time."""
        stop = self.begins[layers.stop]
        for start in range(self.begins[layers.start], stop, VOXELS):
            yield self.order[start : min(start + VOXELS, stop)]

    def _fit(self, layers: range) -> bool:
        height, width = (side.stop - side.start for side in widen_to_stride(self.rectangle(layers), *self.size))
        return len(layers) <= SLAB and len(layers) * height * width <= BATCH_PIXELS


def _count_layers(grid: Volume) -> int:
    """Gaps between its slices; with a single slice there is one as well."""
    return max(1, grid.shape[2] - 1)


def _layers(shape: tuple[int, int, int], steps: np.ndarray, count: int) -> np.ndarray:
    """The layer of each voxel of an image.

    Args:
        shape: Of the image.
        steps: (4,) slices of the grid for a step along each of the image's axes, and where its first voxel lies.
        count: Layers.

    Returns:
        Of the shape, and of as few bytes as the count needs: they are sorted by counting then, which is quicker.
    """
    layers = np.empty(shape, dtype=np.min_scalar_type(count))
    within_row = steps[1] * np.arange(shape[1])[:, None] + steps[2] * np.arange(shape[2]) + steps[3]
    for row, part in enumerate(layers):
        part[:] = np.clip(np.floor(within_row + steps[0] * row), 0, count - 1)
    return layers


def _places(where: tuple[np.ndarray, ...], steps: np.ndarray) -> np.ndarray:
    """Where voxels lie in the grid: (axes, n) float64."""
    return np.stack([sum(step * one for step, one in zip(row[:3], where, strict=True)) + row[3] for row in steps[:3]])
