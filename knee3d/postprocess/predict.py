"""A view of a knee: a canonical volume and a Predictor -> probabilities, streamed batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.slicing import to_slices
from knee3d.anatomy.volume import Volume
from knee3d.postprocess.stack import stack_slices

BATCH_PIXELS = 4 * 384 * 384
"""Of the slices in one call: four times as many are 4 % faster (benchmarks/segment.py) and take 1 GB more."""
SLAB = 8
"""Slices of one call where only a part of each is wanted, which is cut out of all of them alike."""
STRIDE = 32
"""Of the networks' deepest layer. A part that begins at a multiple of it is pooled as it is within the whole slice."""

Part = tuple[Any, np.ndarray]
"""Where in the volume, as numpy indexes (Inferior, Posterior, Left), and (..., classes) float32."""


class Predictor(Protocol):
    """Whatever turns slices into probabilities: a SavedModel, an ONNX session, a made-up function in a test."""

    @property
    def classes(self) -> int:
        """Number of classes, background included."""

    @property
    def context(self) -> int:
        """Neighbours it sees on each side of a slice: it takes 2 * context + 1 channels."""

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """Uint8 (n, height, width, 2 * context + 1) -> float32 (n, height, width, classes), adding up to 1."""


class View(Protocol):
    """A direction of looking at a knee, and the network that does it."""

    @property
    def predictor(self) -> Predictor:
        """The network."""

    def steps(self, image: Volume) -> int:
        """How far `parts` will tell `advance` to go."""

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """Probabilities of a uint8 image in canonical axes, piece by piece, no voxel twice.

        Args:
            image: uint8, three axes.
            region: Of the voxels wanted, bool of the image's shape; others may come along. None wants all.
            advance: Told how many steps were just done, for a progress bar.
        """


def with_neighbours(stack: np.ndarray, centres: Sequence[int] | range, context: int) -> np.ndarray:
    """Slices with their neighbours as channels; beyond the ends the outermost slice is repeated.

    Args:
        stack: (slices, height, width), all slices of a volume.
        centres: Positions of the slices wanted.
        context: Neighbours on each side.

    Returns:
        (centres, height, width, 2 * context + 1) of the stack's dtype; the slice itself is the middle channel.
    """
    index = np.clip(np.asarray(centres)[:, None] + np.arange(-context, context + 1), 0, len(stack) - 1)
    return np.moveaxis(stack[index], 1, -1)


def ask(predictor: Predictor, slices: np.ndarray) -> np.ndarray:
    """The predictor's answer.

    Raises:
        ValueError: It has another shape than it should.
    """
    predicted = predictor(slices)
    expected = (*slices.shape[:3], predictor.classes)
    if predicted.shape != expected:
        raise ValueError(f"the predictor returned {predicted.shape}, not {expected}")
    return predicted


@dataclass(frozen=True)
class PlaneView:
    """Slices of one plane, as they lie in the array.

    Attributes:
        plane: Which.
        predictor: A network that was trained on it.
        known: Slices of which it is known already what the network says, by position, (height, width, classes): they
            are not computed again.
    """

    plane: Plane
    predictor: Predictor
    known: Mapping[int, np.ndarray] = field(default_factory=dict)

    def steps(self, image: Volume) -> int:
        """Slices of the image."""
        return image.shape[self.plane.axis]

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """See `View`. Of a region, each slab of slices is computed within the rectangle that holds it.

        Raises:
            ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
        """
        stack = _stack(image, self.plane)
        wanted = None if region is None else np.moveaxis(region, self.plane.axis, 0)
        size = SLAB if wanted is not None else max(1, round(BATCH_PIXELS / (stack.shape[1] * stack.shape[2])))
        first, stop = 0, len(stack)
        if wanted is not None:
            slices = np.flatnonzero(wanted.any(axis=(1, 2)))
            first, stop = (int(slices[0]), int(slices[-1]) + 1) if slices.size else (0, 0)
        for start in range(first, stop, size):
            slab = range(start, min(start + size, stop))
            found = outer = (slice(0, stack.shape[1]), slice(0, stack.shape[2]))
            if wanted is not None:
                found = _rectangle(wanted[slab.start : slab.stop])
                outer = (on_strides(found[0], stack.shape[1]), on_strides(found[1], stack.shape[2]))
            if found[0].stop:
                predicted = self._predicted(stack, slab, found, outer)
                index = [*found]
                index.insert(self.plane.axis, slice(slab.start, slab.stop))
                yield tuple(index), np.moveaxis(predicted, 0, self.plane.axis)
            advance(len(slab))
        advance(len(stack) - (stop - first))

    def _predicted(
        self, stack: np.ndarray, slab: range, found: tuple[slice, slice], outer: tuple[slice, slice]
    ) -> np.ndarray:
        """What the network says of a rectangle of slices, (slices, height, width, classes), seen in a wider one."""
        new = [position for position in slab if position not in self.known]
        part = (slice(None), within(found[0], outer[0]), within(found[1], outer[1]))
        if not new:
            return np.stack([self.known[position][found] for position in slab])
        answers = ask(self.predictor, with_neighbours(stack[:, outer[0], outer[1]], new, self.predictor.context))[part]
        if len(new) == len(slab):
            return answers
        computed = iter(answers)
        return np.stack([self.known[one][found] if one in self.known else next(computed) for one in slab])

    def sample(self, image: Volume, positions: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Some whole slices: their positions and (height, width, classes), in axes as `to_slices` has them."""
        stack = _stack(image, self.plane)
        size = max(1, round(BATCH_PIXELS / (stack.shape[1] * stack.shape[2])))
        for start in range(0, len(positions), size):
            some = positions[start : start + size]
            yield from zip(some, ask(self.predictor, with_neighbours(stack, some, self.predictor.context)), strict=True)


def predict_volume(image: Volume, plane: Plane, predictor: Predictor) -> Volume:
    """Probabilities of every voxel, as one plane's network sees them.

    Args:
        image: uint8, canonical axes, three axes.
        plane: The plane the predictor was trained on.
        predictor: Sees some slices at a time.

    Returns:
        (*shape, classes) of the predictor's dtype, float32, on the image's grid.

    Raises:
        ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
    """

    def batches() -> Iterator[tuple[range, np.ndarray]]:
        for index, part in PlaneView(plane, predictor).parts(image):
            slab = index[plane.axis]
            yield range(slab.start, slab.stop), np.moveaxis(part, plane.axis, 0)

    return stack_slices(batches(), plane, image.shape[plane.axis], image.affine)


def check_image(image: Volume) -> None:
    """Refuse what the networks were not trained on.

    Raises:
        ValueError: The image is not 3-D uint8.
    """
    if image.array.dtype != np.uint8 or image.array.ndim != 3:
        raise ValueError(f"expected a 3-D uint8 image, got {image.array.dtype} of shape {image.array.shape}")


def _stack(image: Volume, plane: Plane) -> np.ndarray:
    check_image(image)
    return to_slices(image, plane)


def _rectangle(wanted: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a slab that hold all that is wanted of it; empty where nothing is."""
    spans = [np.flatnonzero(wanted.any(axis=(0, 3 - axis))) for axis in (1, 2)]
    rows, columns = (slice(int(span[0]), int(span[-1]) + 1) if span.size else slice(0, 0) for span in spans)
    return rows, columns


def on_strides(side: slice, size: int) -> slice:
    """What a network is given of an axis to know a part: it begins, and but at the border ends, at a stride."""
    start = side.start // STRIDE * STRIDE
    stop = start + -(-(side.stop - start) // STRIDE) * STRIDE
    return slice(start, min(size, stop))


def within(side: slice, outer: slice) -> slice:
    """A part of an axis, counted from the beginning of a larger part."""
    return slice(side.start - outer.start, side.stop - outer.start)
