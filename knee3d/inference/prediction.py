"""PlaneView: predict a volume along the slices of a plane, batch by batch. The protocols of predictors and views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.inference.rectangles import NOWHERE, Rectangle, contains, group_slices, slice_relative_to, widen_to_stride
from knee3d.postprocess.stack import stack_slices

BATCH_PIXELS = 4 * 384 * 384
"""Of the slices in one call: four times as many are 4 % faster (benchmarks/segment.py) and take 1 GB more."""
Part = tuple[Any, np.ndarray]
"""Where in the volume, as numpy indexes (Inferior, Posterior, Left), and (..., classes) float32."""


class Classifier(Protocol):
    """What a view asks, whatever it shows it."""

    @property
    def classes(self) -> int:
        """Number of classes, background included."""


class Predictor(Classifier, Protocol):
    """Whatever turns slices into probabilities: a SavedModel, an ONNX session, a made-up function in a test."""

    @property
    def context(self) -> int:
        """Neighbours it sees on each side of a slice: it takes 2 * context + 1 channels."""

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """Uint8 (n, height, width, 2 * context + 1) -> float32 (n, height, width, classes), adding up to 1."""


class View(Protocol):
    """A direction of looking at a knee, and the network that does it."""

    @property
    def predictor(self) -> Classifier:
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


def stack_neighbours(stack: np.ndarray, centres: Sequence[int] | range, context: int) -> np.ndarray:
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


def predict_slices(predictor: Predictor, slices: np.ndarray) -> np.ndarray:
    """The probabilities that a network gives for slices.

    Args:
        predictor: The network.
        slices: (n, height, width, 2 * context + 1) uint8.

    Returns:
        (n, height, width, classes) float32.

    Raises:
        ValueError: The network returns another shape.
    """
    return _checked(predictor(slices), slices, predictor)


def _checked(predicted: np.ndarray, slices: np.ndarray, predictor: Classifier) -> np.ndarray:
    expected = (*slices.shape[:3], predictor.classes)
    if predicted.shape != expected:
        raise ValueError(f"the predictor returned {predicted.shape}, not {expected}")
    return predicted


@dataclass(frozen=True, eq=False)
class PredictedSlices:
    """What a network has said already.

    Attributes:
        slices: By their position, (height, width, classes) of the rectangle.
        rectangle: Which part of the slices it is.
    """

    slices: Mapping[int, np.ndarray] = field(default_factory=dict)
    rectangle: Rectangle = NOWHERE

    def cut(self, position: int, part: Rectangle) -> np.ndarray | None:
        """A part of a slice, where it is known."""
        if position not in self.slices or not contains(self.rectangle, part):
            return None
        rows, columns = (slice_relative_to(side, outer) for side, outer in zip(part, self.rectangle, strict=True))
        return self.slices[position][rows, columns]


@dataclass(frozen=True)
class PlaneView:
    """Slices of one plane, as they lie in the array.

    Attributes:
        plane: Which.
        predictor: A network that was trained on it.
        known: What need not be computed again.
    """

    plane: Plane
    predictor: Predictor
    known: PredictedSlices = field(default_factory=PredictedSlices)

    def grid(self, image: Volume) -> Volume:
        """The voxels that the network sees: those of the image."""
        return image

    def resampled(self, image: Volume) -> Volume:
        """What the network sees: the image as it is."""
        return image

    def knowing(self, known: PredictedSlices) -> PlaneView:
        """The same view, which need not compute some slices again."""
        return replace(self, known=known)

    def steps(self, image: Volume) -> int:
        """Slices of the image."""
        return image.shape[self.plane.axis]

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """See `View`. Of a region, slices are computed within the rectangle that holds it.

        Raises:
            ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
        """
        stack, done = _stack(image, self.plane), 0
        for slab, part in self._groups(stack, region):
            answers = self._known_answers(slab, part)
            new = [position for position in slab if position not in answers]
            if new:
                outer = widen_to_stride(part, *stack.shape[1:])
                rows, columns = (slice_relative_to(side, wider) for side, wider in zip(part, outer, strict=True))
                slices = stack_neighbours(stack[:, *outer], new, self.predictor.context)
                computed = _checked(self.predictor(slices), slices, self.predictor)[:, rows, columns]
                answers.update(zip(new, computed, strict=True))
            whole = computed if len(new) == len(slab) else np.stack([answers[position] for position in slab])
            index: list[slice] = [*part]
            index.insert(self.plane.axis, slice(slab.start, slab.stop))
            yield tuple(index), np.moveaxis(whole, 0, self.plane.axis)
            advance(slab.stop - done)
            done = slab.stop
        advance(len(stack) - done)

    def _groups(self, stack: np.ndarray, region: np.ndarray | None) -> list[tuple[range, Rectangle]]:
        count, height, width = stack.shape
        if region is None:
            size, whole = max(1, round(BATCH_PIXELS / (height * width))), (slice(0, height), slice(0, width))
            return [(range(start, min(start + size, count)), whole) for start in range(0, count, size)]
        fresh = ~np.isin(np.arange(count), list(self.known.slices))
        return group_slices(np.moveaxis(region, self.plane.axis, 0), fresh, BATCH_PIXELS)

    def _known_answers(self, slab: range, part: Rectangle) -> dict[int, np.ndarray]:
        """Position to the probabilities of a rectangle of slices, where they are known already."""
        known = {position: self.known.cut(position, part) for position in slab}
        return {position: answer for position, answer in known.items() if answer is not None}

    def sample(self, image: Volume, positions: Sequence[int], part: Rectangle) -> Iterator[tuple[int, np.ndarray]]:
        """Some slices: their positions and (height, width, classes) of a part, in axes as `to_slices` has them.

        Args:
            image: uint8, canonical axes.
            positions: Of the slices.
            part: What the network sees of them; see `widen_to_stride`.
        """
        stack = _stack(image, self.plane)[:, *part]
        size = max(1, round(BATCH_PIXELS / (stack.shape[1] * stack.shape[2])))
        for start in range(0, len(positions), size):
            some = positions[start : start + size]
            yield from zip(
                some, predict_slices(self.predictor, stack_neighbours(stack, some, self.predictor.context)), strict=True
            )


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
