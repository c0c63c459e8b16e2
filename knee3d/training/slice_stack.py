"""Stacks of slices of a knee: along a plane from PNGs, or oblique ones that are resampled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.dataset.case_collection import Case, CaseCollection
from knee3d.dataset.png_slices import read_slices
from knee3d.geometry.axis_resampling import axis_grid, resample_axes, resample_labels
from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import LINEAR, NEAREST, oblique_grid, resample
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume


@dataclass(frozen=True)
class PlaneStack:
    """Slices along a plane, as they lie on disk.

    Attributes:
        case: Name of the knee.
        key: What it is called in a cache: different wherever pixels may be.
        shape: Slices, height, width.
        voxel_mm: Along slices, height and width.
        images: PNG paths in order.
        masks: The same of the masks.
        plane: Its name.
    """

    case: str
    key: str
    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    plane: str = ""

    @classmethod
    def of(cls, dataset: CaseCollection, case: Case, plane: Plane) -> PlaneStack:
        """The slices of a labelled case."""
        images, masks = (tuple(map(str, dataset.slice_paths(case, plane, kind))) for kind in ("image", "mask"))
        axes = [plane.axis, *(axis for axis in range(3) if axis != plane.axis)]
        height, width = (case.shape[axis] for axis in axes[1:])
        depth_mm, height_mm, width_mm = case.spacing_mm[axes].tolist()
        key = f"{case.name}-{plane.value}-{case.fingerprint[:16]}"
        return cls(
            case.name, key, (len(images), height, width), (depth_mm, height_mm, width_mm), images, masks, plane.value
        )

    def load(self) -> np.ndarray:
        """(2, slices, height, width) uint8, image and mask; of 16 bits the upper 8.

        Raises:
            FileNotFoundError: A PNG is missing.
            ValueError: A PNG is damaged.
        """
        image, mask = (read_slices([Path(path) for path in paths]) for paths in (self.images, self.masks))
        return np.stack([image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8), mask])


@dataclass(frozen=True, eq=False)
class ObliqueStack:
    """Slices across a turned grid around the knee, as `inference.oblique_view` cuts them.

    Attributes:
        dataset: Where the knee lies.
        knee: Which.
        turn: (3, 3) rotation, see `geometry.resampling.oblique_grid`.
        spacing_mm: Between pixels and between slices.
    """

    dataset: CaseCollection
    knee: Case
    turn: np.ndarray
    spacing_mm: float

    @property
    def case(self) -> str:
        """See `PlaneStack`."""
        return self.knee.name

    @property
    def key(self) -> str:
        """See `PlaneStack`."""
        turn = hashlib.sha256(self.turn.round(6).tobytes()).hexdigest()[:16]
        return f"{self.case}-oblique-{self.spacing_mm:.4f}-{turn}-{self.knee.fingerprint[:16]}"

    @property
    def plane(self) -> str:
        """None: batches are of many directions."""
        return ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `PlaneStack`."""
        here = Volume(np.broadcast_to(np.uint8(0), self.knee.shape), self.knee.affine)
        height, width, slices = oblique_grid(here, self.turn, self.spacing_mm).shape
        return slices, height, width

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """See `PlaneStack`."""
        return self.spacing_mm, self.spacing_mm, self.spacing_mm

    def load(self) -> np.ndarray:
        """See `PlaneStack`; the image trilinearly, the mask from the nearest voxel."""
        image, mask = self.dataset.image(self.knee), self.dataset.mask(self.knee)
        grid = oblique_grid(image, self.turn, self.spacing_mm)
        grey, labels = resample(image, grid, LINEAR).array, resample(mask, grid, NEAREST).array
        return np.ascontiguousarray(np.moveaxis(np.stack([np.rint(grey).astype(np.uint8), labels]), 3, 1))


@dataclass(frozen=True, eq=False)
class ResampledStack:
    """Slices along a plane with the voxels of a model, as `inference.resampled_view` cuts them.

    Attributes:
        dataset: Where the knee lies.
        knee: Which.
        along: The plane.
        spacing_mm: Voxel size of the model along Inferior, Posterior, Left.
    """

    dataset: CaseCollection
    knee: Case
    along: Plane
    spacing_mm: tuple[float, float, float]

    @property
    def _grids(self) -> tuple[Volume, Volume]:
        """Of the knee, and of the model."""
        here = Volume(np.broadcast_to(np.uint8(0), self.knee.shape), self.knee.affine)
        return here, axis_grid(here, self.spacing_mm)

    @property
    def is_another_grid(self) -> bool:
        """Whether the knee has to be resampled at all."""
        here, grid = self._grids
        return not here.same_grid(grid)

    @property
    def case(self) -> str:
        """See `PlaneStack`."""
        return self.knee.name

    @property
    def key(self) -> str:
        """See `PlaneStack`."""
        size = "-".join(f"{mm:.4f}" for mm in self.spacing_mm)
        return f"{self.case}-{self.plane}-{size}-{self.knee.fingerprint[:16]}"

    @property
    def plane(self) -> str:
        """See `PlaneStack`."""
        return self.along.value

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `PlaneStack`."""
        return _along_first(self._grids[1].shape, self.along)

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """See `PlaneStack`."""
        return _along_first(tuple(self._grids[1].spacing_mm.tolist()), self.along)

    def load(self) -> np.ndarray:
        """See `PlaneStack`; labels are those with most of each voxel."""
        image, mask = self.dataset.image(self.knee), self.dataset.mask(self.knee)
        grid = axis_grid(image, self.spacing_mm)
        both = (to_slices(one, self.along) for one in (resample_axes(image, grid), resample_labels(mask, grid)))
        return np.stack([*both])


def _along_first(values: tuple[Any, ...], plane: Plane) -> tuple[Any, Any, Any]:
    """What belongs to the axis of the slices first, then to height and width."""
    first, second, third = (values[plane.axis], *(value for axis, value in enumerate(values) if axis != plane.axis))
    return first, second, third


Stack = PlaneStack | ObliqueStack | ResampledStack
"""All slices of one knee in one direction, with their masks."""
