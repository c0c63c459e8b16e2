"""Remove small pieces of tissues and fill small holes, by their size in mm3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume

TOUCHING = np.ones((3, 3, 3), dtype=bool)  # faces, edges and corners: cartilage is thin and lies askew


@dataclass(frozen=True)
class CleaningConfig:
    """What is too small to be believed.

    Attributes:
        remove_below_mm3: A connected piece of a tissue smaller than this becomes background.
        fill_below_mm3: A hole of background within one tissue smaller than this becomes that tissue.
        keep_largest: Of each tissue, only the largest connected piece is kept, or as many as a knee has of it.

    Raises:
        ValueError: One is negative or not finite.
    """

    remove_below_mm3: float = 0.0
    fill_below_mm3: float = 0.0
    keep_largest: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.remove_below_mm3 < np.inf and 0 <= self.fill_below_mm3 < np.inf):
            sizes = f"{self.remove_below_mm3:g} and {self.fill_below_mm3:g}"
            raise ValueError(f"sizes in mm3 are finite and at least 0, got {sizes}")

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return self.remove_below_mm3 > 0 or self.fill_below_mm3 > 0 or self.keep_largest


NOTHING = CleaningConfig()


def clean_labels(labels: Volume, cleaning: CleaningConfig, pieces: Sequence[int] = ()) -> Volume:
    """Labels without specks and pinholes.

    Specks go first, each tissue by itself, connected by faces, edges or corners. A hole is background connected by
    faces that touches one tissue, and neither another, nor the border of the volume, nor a removed speck. So a voxel
    goes from tissue to background or back, and never from one tissue to another.

    Args:
        labels: Integers, 0 is background.
        cleaning: What is too small.
        pieces: Of each tissue from 1 on, how many pieces a knee has of it: two of tibial cartilage, medial and lateral.
            One of tissues that are not told.

    Returns:
        Of the same dtype and grid.
    """
    array = labels.array.copy()
    for tissue in np.unique(array)[1 if array.min() == 0 else 0 :]:
        found, _ = ndimage.label(array == tissue, TOUCHING)
        array[small_components(found, cleaning.remove_below_mm3 / labels.voxel_mm3)] = 0
        if cleaning.keep_largest:
            array[_all_but_the_largest(found, pieces[tissue - 1] if tissue <= len(pieces) else 1)] = 0
    if cleaning.fill_below_mm3 > 0:
        found, _ = ndimage.label(array == 0)
        small = small_components(found, cleaning.fill_below_mm3 / labels.voxel_mm3)
        specks = (array == 0) & (labels.array > 0)
        small[np.isin(found, np.unique(found[specks]))] = False
        holes = np.where(small, found, 0)
        for number, box in enumerate(ndimage.find_objects(holes), start=1):
            if box is not None:
                _fill(array, holes, number, box)
    return labels.with_array(array)


def small_components(pieces: np.ndarray, voxels: float) -> np.ndarray:
    """Where pieces with fewer voxels than that are; piece 0 is none."""
    sizes = np.bincount(pieces.ravel())
    sizes[0] = np.iinfo(sizes.dtype).max
    return (sizes < voxels)[pieces]


def _all_but_the_largest(pieces: np.ndarray, count: int) -> np.ndarray:
    """Where other pieces than the `count` largest are; of equally large ones the first stay."""
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = np.zeros(len(sizes), dtype=bool)
    kept[np.argsort(-sizes, kind="stable")[:count]] = True
    return (pieces > 0) & ~kept[pieces]


def _fill(array: np.ndarray, holes: np.ndarray, number: int, box: tuple[slice, ...]) -> None:
    if any(side.start == 0 or side.stop == size for side, size in zip(box, array.shape, strict=True)):
        return
    wider = tuple(slice(side.start - 1, side.stop + 1) for side in box)
    hole = holes[wider] == number
    around = np.unique(array[wider][ndimage.binary_dilation(hole) & ~hole])
    if len(around) == 1:
        array[wider][hole] = around[0]
