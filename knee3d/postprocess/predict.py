"""A canonical volume, a plane and a Predictor -> a probability volume, streamed batch by batch."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.slicing import to_slices
from knee3d.anatomy.volume import Volume
from knee3d.postprocess.stack import stack_slices


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


def with_neighbours(stack: np.ndarray, start: int, stop: int, context: int) -> np.ndarray:
    """Slices with their neighbours as channels; beyond the ends the outermost slice is repeated.

    Args:
        stack: (slices, height, width), all slices of a volume.
        start: First slice wanted.
        stop: One past the last.
        context: Neighbours on each side.

    Returns:
        (stop - start, height, width, 2 * context + 1) of the stack's dtype; the slice itself is the middle channel.
    """
    centres = np.arange(start, stop)[:, None]
    index = np.clip(centres + np.arange(-context, context + 1), 0, len(stack) - 1)
    return np.moveaxis(stack[index], 1, -1)


def predict_volume(
    image: Volume,
    plane: Plane,
    predictor: Predictor,
    batch_size: int = 8,
    advance: Callable[[int], object] = lambda slices: None,
) -> Volume:
    """Probabilities of every voxel, as one plane's network sees them.

    Args:
        image: uint8, canonical axes, three axes.
        plane: The plane the predictor was trained on.
        predictor: Sees `batch_size` slices at a time.
        batch_size: Slices in one call.
        advance: Told how many slices were just done, for a progress bar.

    Returns:
        (*shape, classes) of the predictor's dtype, float32, on the image's grid.

    Raises:
        ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
    """
    if image.array.dtype != np.uint8 or image.array.ndim != 3:
        raise ValueError(f"expected a 3-D uint8 image, got {image.array.dtype} of shape {image.array.shape}")
    stack = to_slices(image, plane)

    def batches() -> Iterator[tuple[range, np.ndarray]]:
        for start in range(0, len(stack), batch_size):
            stop = min(start + batch_size, len(stack))
            predicted = predictor(with_neighbours(stack, start, stop, predictor.context))
            expected = (stop - start, *stack.shape[1:], predictor.classes)
            if predicted.shape != expected:
                raise ValueError(f"the predictor returned {predicted.shape}, not {expected}")
            yield range(start, stop), predicted
            advance(stop - start)

    return stack_slices(batches(), plane, len(stack), image.affine)
