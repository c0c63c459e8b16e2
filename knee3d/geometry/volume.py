"""Volume: voxels together with their place in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from knee3d.geometry.box import Box, box_between

TOLERANCE_MM = 1e-2
"""Places so near are the same: file formats keep affines as float32 or decimal text."""
LARGEST = 2**31
"""Voxels: a file that claims more is corrupt. A knee with voxels of 0.2 mm has an eighth of it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their place in the patient.

    Attributes:
        array: Voxels, three axes of space and optionally one of channels, last. Kept as a read-only view.
        affine: (4, 4) float64, voxel index (i, j, k, 1) to millimetres in the scanner's RAS frame (x to the
            patient's Right, y to Anterior, z to Superior), the convention of NIfTI and nibabel.

    Raises:
        ValueError: The array does not have 3 or 4 axes or is empty, or the affine is not an invertible (4, 4)
            matrix of finite numbers with last row 0 0 0 1.

    Example:
        >>> Volume(np.zeros((4, 5, 6)), np.diag([0.5, 0.5, 2.0, 1.0])).voxel_mm3
        0.5
    """

    array: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        array = np.asarray(self.array).view()
        affine = np.array(self.affine, dtype=np.float64)
        if array.ndim not in (3, 4) or array.size == 0:
            raise ValueError(f"a volume needs 3 axes, or 4 with channels last, none empty; got shape {array.shape}")
        if affine.shape != (4, 4):
            raise ValueError(f"affine must have shape (4, 4), got {affine.shape}")
        if not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise ValueError(f"affine must be finite with last row 0 0 0 1, got {affine.tolist()}")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if spacing.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
            raise ValueError(f"affine must span three dimensions, got {affine.tolist()}")
        array.flags.writeable = False
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the three axes of space."""
        first, second, third = self.array.shape[:3]
        return first, second, third

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) float64, distance in mm between neighbouring voxels along each array axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm3; right for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def with_array(self, array: np.ndarray) -> Volume:
        """Other voxels at the same place.

        Args:
            array: Any dtype; its first three axes must have this volume's shape.

        Raises:
            ValueError: The shape differs.
        """
        if array.shape[:3] != self.shape:
            raise ValueError(f"expected voxels of shape {self.shape}, got {array.shape}")
        return Volume(array, self.affine)

    def same_grid(self, other: Volume, tolerance_mm: float = TOLERANCE_MM) -> bool:
        """Whether both volumes have the same shape and each corner lies at the same place, within a tolerance."""
        return self.shape == other.shape and self.corners_apart_mm(other) <= tolerance_mm

    def corners_apart_mm(self, other: Volume) -> float:
        """How far corners of this volume and another are apart at most, along one of the scanner's axes."""
        return float(np.abs(self._corners() - other._corners()).max())

    def part(self, box: Box) -> Volume:
        """The voxels of a box, as a view of the same memory.

        Args:
            box: Of each axis of space, from `start` to before `stop`, both within the volume.
        """
        affine = self.affine.copy()
        affine[:, 3] = self.affine @ [*(side.start for side in box), 1]
        return Volume(self.array[box], affine)

    def box_of(self, part: Volume, tolerance_mm: float = TOLERANCE_MM) -> Box:
        """Where the voxels of another volume lie in this one: the inverse of `part`.

        Args:
            part: A volume whose voxels are some of this one's.
            tolerance_mm: How far centres of corner voxels may be apart.

        Raises:
            ValueError: They are not.
        """
        last = np.array(part.shape) - 1
        first = np.rint(np.linalg.solve(self.affine, part.affine[:, 3])[:3]).astype(int)
        corners = np.array(list(np.ndindex(2, 2, 2))) * last
        here = corners @ part.affine[:3, :3].T + part.affine[:3, 3]
        there = (corners + first) @ self.affine[:3, :3].T + self.affine[:3, 3]
        if np.abs(here - there).max() > tolerance_mm or first.min() < 0 or (first + last >= self.shape).any():
            raise ValueError(f"a volume of shape {part.shape} is no part of the grid of shape {self.shape}")
        return box_between(first, first + part.shape)

    def padded_to(self, grid: Volume, tolerance_mm: float = TOLERANCE_MM) -> Volume:
        """The same voxels within a larger grid, zeros around them; nothing is resampled.

        Args:
            grid: Any volume with the same directions of axes.
            tolerance_mm: How far centres of corner voxels may be apart.

        Raises:
            ValueError: The voxels of this volume are not some of the grid's.
        """
        box = grid.box_of(self, tolerance_mm)
        array = np.zeros((*grid.shape, *self.array.shape[3:]), self.array.dtype)
        array[box] = self.array
        return Volume(array, grid.affine)

    def _corners(self) -> np.ndarray:
        index = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
        return index * np.array([*self.shape, 1]) @ self.affine.T
