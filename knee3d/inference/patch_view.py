"""PatchView: predict a volume from overlapping patches with Gaussian weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Protocol

import numpy as np

from knee3d.geometry.box import bounding_box, whole_box
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import Classifier, Part, check_image
from knee3d.inference.rectangles import slice_relative_to

OVERLAP = 0.5
"""Of neighbouring patches, at least."""
SIGMA = 1 / 8
"""Of the Gaussian weight of a patch's voxels, as a share of its side (Isensee et al., nnU-Net, 2021)."""
LEAST_WEIGHT = 1e-3
"""At a patch's corners, of the weight in its middle."""

Patch = tuple[int, int, int]


class PatchPredictor(Classifier, Protocol):
    """Whatever turns patches of a volume into probabilities."""

    @property
    def patch(self) -> Patch:
        """Its shape: what the network was trained on."""

    def __call__(self, patches: np.ndarray, /) -> np.ndarray:
        """Uint8 (n, *patch) -> float32 (n, *patch, classes), adding up to 1."""


@dataclass(frozen=True)
class PatchView:
    """Overlapping patches of a volume.

    Attributes:
        predictor: A network that was trained on patches.
    """

    predictor: PatchPredictor

    def steps(self, image: Volume) -> int:
        """Rows of the image, along its first axis."""
        return image.shape[0]

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """See `View`. Of a region, the box around it is covered by patches.

        Rows are summed up until no later patch reaches them, so that memory is that of a layer of patches.

        Raises:
            ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
        """
        check_image(image)
        box = whole_box(image.shape) if region is None else bounding_box(region)
        if box is None:
            advance(image.shape[0])
            return
        patch, done = self.predictor.patch, 0
        rows, *across = [_starts(*ends) for ends in zip(image.shape, patch, box, strict=True)]
        window = [slice(some[0], some[-1] + side) for some, side in zip(across, patch[1:], strict=True)]
        sums = np.zeros(
            (patch[0], *(side.stop - side.start for side in window), self.predictor.classes + 1), np.float32
        )
        inside = tuple(slice_relative_to(side, outer) for side, outer in zip(box[1:], window, strict=True))
        for first, following in zip(rows, [*rows[1:], rows[-1] + patch[0]], strict=True):
            for corner in product([first], *across):
                here = tuple(slice(at - side.start, at - side.start + size)
                             for at, side, size in zip(corner[1:], window, patch[1:], strict=True))  # fmt: skip
                sums[:, *here] += self._weighted(image, corner)
            part = slice(max(first, box[0].start), min(following, box[0].stop))
            ready = sums[part.start - first : part.stop - first, *inside]
            yield (part, *box[1:]), ready[..., :-1] / ready[..., -1:]
            sums[: first + patch[0] - following] = sums[following - first :].copy()
            sums[first + patch[0] - following :] = 0
            advance(part.stop - done)
            done = part.stop
        advance(image.shape[0] - done)

    def _weighted(self, image: Volume, corner: tuple[int, ...]) -> np.ndarray:
        """What the network says of a patch times its weight, and the weight: (*patch, classes + 1)."""
        patch = self.predictor.patch
        seen = image.array[tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True))]
        beyond = [(0, side - there) for side, there in zip(patch, seen.shape, strict=True)]
        said = self.predictor(np.pad(seen, beyond)[None])
        expected = (1, *patch, self.predictor.classes)
        if said.shape != expected:
            raise ValueError(f"the predictor returned {said.shape}, not {expected}")
        weight = gaussian_weights(patch)[..., None]
        return np.concatenate([said[0] * weight, weight], axis=-1)


@cache
def gaussian_weights(patch: Patch) -> np.ndarray:
    """How much each voxel of a patch counts: (*patch) float32, 1 in its middle."""
    axes = [np.exp(-(((np.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2) / 2) for side in patch]
    weight = np.einsum("i,j,k->ijk", *axes)
    return np.maximum(weight / weight.max(), LEAST_WEIGHT).astype(np.float32)


def _starts(size: int, side: int, wanted: slice) -> list[int]:
    """Where patches begin along an axis so that they overlap, hold a part of it, and stay within it if they can."""
    last = max(0, size - side)
    first = min(wanted.start, last)
    end = min(max(first, wanted.stop - side), last)
    count = 1 + int(np.ceil((end - first) / ((1 - OVERLAP) * side)))
    return [round(at) for at in np.linspace(first, end, count).tolist()]
