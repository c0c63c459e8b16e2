"""ResampledView: predict a volume by a network whose voxels have another size than those of the image.

The image is resampled along its own axes to the voxels of the network, and probabilities are brought back to the voxels
of the image slab by slab: a probability volume on the network's grid is never held, nor a second one on the image's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeGuard, TypeVar

import numpy as np
from scipy import sparse

from knee3d.geometry.axis_resampling import axis_grid, filter_axis, grid_filters, resample_axes
from knee3d.geometry.box import Box, bounding_box, whole_box
from knee3d.geometry.volume import Volume
from knee3d.inference.patch_view import PatchView
from knee3d.inference.prediction import BATCH_PIXELS, Classifier, Part, PlaneView, PredictedSlices, View, check_image
from knee3d.threads import map_on_all_cores

AnyView = TypeVar("AnyView", PlaneView, PatchView)


@dataclass(frozen=True, eq=False)
class ResampledView(Generic[AnyView]):
    """A view on voxels of its own.

    Attributes:
        view: The view on the resampled image. It predicts slab after slab, along one axis.
        spacing_mm: Voxel size of the network along Inferior, Posterior, Left. Along an axis on which the image has
            this voxel size, nothing is resampled.
    """

    view: AnyView
    spacing_mm: tuple[float, float, float]

    @property
    def predictor(self) -> Classifier:
        """The network."""
        return self.view.predictor

    @property
    def axis(self) -> int:
        """The axis along which the view predicts slab after slab."""
        return self.view.plane.axis if isinstance(self.view, PlaneView) else 0

    def grid(self, image: Volume) -> Volume:
        """The voxels that the network sees; their values do not matter."""
        return axis_grid(image, self.spacing_mm)

    def resampled(self, image: Volume) -> Volume:
        """The image with the voxels of the network: the image itself where they are the same."""
        return resample_axes(image, self.grid(image))

    def knowing(self: ResampledView[PlaneView], known: PredictedSlices) -> ResampledView[PlaneView]:
        """The same view of a plane, which need not compute some slices of its own voxels again."""
        return ResampledView(self.view.knowing(known), self.spacing_mm)

    def steps(self, image: Volume) -> int:
        """See `View`: steps of the view on the resampled image."""
        return self.view.steps(self.grid(image))

    def parts(
        self, image: Volume, region: np.ndarray | None = None, advance: Callable[[int], object] = lambda steps: None
    ) -> Iterator[Part]:
        """See `View`. Of a region, the box around it is predicted.

        Raises:
            ValueError: The image is not 3-D uint8, or the predictor returns another shape than it should.
        """
        check_image(image)
        seen = self.resampled(image)
        if seen is image:
            yield from self.view.parts(image, region, advance)
            return
        box = whole_box(image.shape) if region is None else bounding_box(region)
        if box is None:
            advance(self.view.steps(seen))
            return
        filters = [weights[side] for weights, side in zip(grid_filters(seen, image), box, strict=True)]
        needed = _needed(filters)
        inside = None
        if region is not None:
            inside = np.zeros(seen.shape, dtype=bool)
            inside[needed] = True
        slabs = self._slabs(self.view.parts(seen, inside, advance), needed)
        yield from _brought_back(
            slabs, [one[:, side] for one, side in zip(filters, needed, strict=True)], box, self.axis
        )

    def _slabs(self, parts: Iterator[Part], needed: Box) -> Iterator[np.ndarray]:
        """The probabilities of what is needed, slab after slab; what else comes along is cut off."""
        for index, part in parts:
            cut = [slice(max(want.start - have.start, 0), max(want.stop - have.start, 0))
                   for have, want in zip(index, needed, strict=True)]  # fmt: skip
            yield part[tuple(cut)]


SurveyedView = PlaneView | ResampledView[PlaneView]
"""A view of a plane, on the voxels of the image or on its own."""


def is_of_plane(view: View) -> TypeGuard[SurveyedView]:
    """Whether a view looks at the slices of a plane."""
    return isinstance(view.view if isinstance(view, ResampledView) else view, PlaneView)


def _needed(filters: list[sparse.csr_array]) -> Box:
    """The voxels of the network's grid that count for some voxels of the image, by axis."""
    first, second, third = (slice(int(one.indices.min()), int(one.indices.max()) + 1) for one in filters)
    return first, second, third


def _brought_back(slabs: Iterator[np.ndarray], filters: list[sparse.csr_array], box: Box, axis: int) -> Iterator[Part]:
    """Probabilities on the voxels of the image, as soon as all that counts for them is known.

    Args:
        slabs: (..., classes) float32 on the network's grid, consecutive along the axis.
        filters: For each axis the weights with which the network's voxels make up those of the image.
        box: Where in the image these lie.
        axis: The axis along which slabs come.
    """
    rows, columns = (filters[other] for other in range(3) if other != axis)
    along = filters[axis]
    first, last = along.indices[along.indptr[:-1]], along.indices[along.indptr[1:] - 1]  # indices of rows are sorted
    size = max(1, BATCH_PIXELS // (rows.shape[0] * columns.shape[0]))
    kept: np.ndarray | None = None  # (slices, rows, columns, classes) from slice `begin` on that are known and count
    begin = done = known = 0
    for slab in slabs:
        slices = np.moveaxis(slab, axis, 0)
        kept = slices if kept is None else np.concatenate([kept, slices])
        known += len(slices)
        ready = int(np.searchsorted(last, known, side="left"))  # all before need only what is known
        for start in range(done, ready, size):
            stop = min(start + size, ready)
            here = slice(int(first[start]), int(last[stop - 1]) + 1)
            between = filter_axis(kept[here.start - begin : here.stop - begin], along[start:stop, here], 0)
            index = list(box)
            index[axis] = slice(box[axis].start + start, box[axis].start + stop)
            yield tuple(index), np.moveaxis(_filtered_slices(between, rows, columns), 0, axis)
        done = max(done, ready)
        if done < len(first):
            kept, begin = kept[int(first[done]) - begin :], int(first[done])


def _filtered_slices(slices: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array) -> np.ndarray:
    """Rows and columns of slices (n, height, width, classes) weighed; each slice in a thread, as it fits the cache."""
    found = np.empty((len(slices), rows.shape[0], columns.shape[0], slices.shape[-1]), np.float32)

    def filter_slice(number: int) -> None:
        found[number] = filter_axis(filter_axis(slices[number], rows, 0), columns, 1)

    map_on_all_cores(filter_slice, range(len(slices)))
    return found
