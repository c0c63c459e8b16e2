"""Choose the voxel size of a model: the size of the pixels of a plane and the step between its slices."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from knee3d.choices import AUTO_SPACING, NATIVE_SPACING, spacing_numbers
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import SOLID
from knee3d.models.model_card import Spacing

log = logging.getLogger(__name__)

ALIKE = 1.05
"""Voxel sizes of knees whose ratio is at most this, along each axis, count as one size."""
MOST_TIMES = 16.0
"""How many times as many voxels as its scan a resampled knee has, at most."""


def model_spacings(choice: str | None, planes: Sequence[Plane], spacings_mm: np.ndarray) -> dict[str, Spacing]:
    """The voxel size to which images are resampled for the networks of planes, or for that of the volume.

    Args:
        choice: "native": images are not resampled. "auto": the median of the knees along each axis. One
            number: the size of pixels and the step between slices in mm; two: size and step; three: along Inferior,
            Posterior and Left. None is "native" where the knees have one voxel size, and "auto" otherwise.
        planes: The planes; none is the volume.
        spacings_mm: (knees, 3) voxel sizes of training and validation knees along Inferior, Posterior, Left.

    Returns:
        Name of each plane, or of the volume, to voxel size along Inferior, Posterior, Left; empty for native ones.

    Raises:
        ValueError: The volume has no slices, and two numbers are given; or a resampled knee has more than `MOST_TIMES`
            times as many voxels as its scan.

    Example:
        >>> model_spacings("0.55,1.4", [Plane.SAGITTAL], np.array([[0.36, 0.36, 0.7]]))
        {'sagittal': (0.55, 0.55, 1.4)}
    """
    differ = (spacings_mm.max(axis=0) / spacings_mm.min(axis=0)).max() > ALIKE
    if choice is None and differ:
        choice = AUTO_SPACING
        log.info("the voxels of the knees differ by more than 5 %: images are resampled (--spacing auto)")
    if choice == NATIVE_SPACING and differ:
        log.warning(
            "the voxels of the knees differ by more than 5 %, and --spacing native does not resample them; knees whose "
            "voxels differ by more than a quarter from the median will be refused"
        )
    if choice in (None, NATIVE_SPACING):
        return {}
    names = [plane.value for plane in planes] or [SOLID]
    if choice == AUTO_SPACING:
        first, second, third = np.median(spacings_mm, axis=0).round(3).tolist()
        found: dict[str, Spacing] = dict.fromkeys(names, (first, second, third))
    else:
        found = {name: _of_numbers(spacing_numbers(str(choice)), name) for name in names}
    _check_fineness(found, np.median(spacings_mm, axis=0))
    for name, size in found.items():
        log.info("%s: images are resampled to %s mm", name, " x ".join(f"{mm:g}" for mm in size))
    return found


def _check_fineness(own: Mapping[str, Spacing], spacing_mm: np.ndarray) -> None:
    """Refuse voxels so fine that resampled knees would fill the memory and show nothing more than their scans."""
    for name, size in own.items():
        times = float(np.prod(spacing_mm / size))
        if times > MOST_TIMES:
            mine, theirs = (" x ".join(f"{mm:.2g}" for mm in one) for one in (size, spacing_mm))
            raise ValueError(
                f"--spacing: with voxels of {mine} mm for {name}, a knee has {times:.0f} times as many voxels as its "
                f"scan, whose voxels are {theirs} mm; finer voxels than the scan's show nothing more: take auto"
            )


def _of_numbers(numbers: list[float], name: str) -> Spacing:
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    if len(numbers) == 2 and name == SOLID:
        raise ValueError("a network of the volume has no slices: give --spacing one size, or three")
    size = [numbers[0]] * 3
    if len(numbers) == 2:
        size[Plane(name).axis] = numbers[1]
    return size[0], size[1], size[2]
