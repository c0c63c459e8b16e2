"""KneeImage: the MR image of a knee, which knows its side."""

from __future__ import annotations

from dataclasses import dataclass, replace

from knee3d.geometry.orientation import Side, axis_codes, find_side, reorient, to_canonical
from knee3d.geometry.volume import Volume


@dataclass(frozen=True, eq=False)
class KneeImage(Volume):
    """The MR image of one knee: intensities, their place in the patient, and the side of the knee.

    Attributes:
        array: Intensities, (i, j, k), integers or floats, as the scanner made them. Kept as a read-only view.
        affine: (4, 4) float64, voxel index (i, j, k, 1) to millimetres in the scanner's RAS frame.
        side: Whether it is a left or a right knee. The default is unknown: files other than DICOM do not tell.
        name: The name of the knee in progress bars, file names and tables. The default is "knee".

    Raises:
        ValueError: As `Volume`, or the side is none of "L", "R" and "" (unknown).

    Example:
        >>> import numpy as np
        >>> KneeImage(np.zeros((4, 5, 6), np.int16), np.diag([0.5, 0.5, 1.0, 1.0]), Side.LEFT)
        KneeImage('knee', left, 4 x 5 x 6 voxels of 0.50 x 0.50 x 1.00 mm, axes RAS, int16)
    """

    side: Side = Side.UNKNOWN
    name: str = "knee"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "side", find_side(self.side))

    @property
    def axes(self) -> str:
        """Three letters of R/L, A/P and S/I that say where each array index increases to, such as "PIR"."""
        return axis_codes(self.affine)

    def reorient(self, axes: str) -> KneeImage:
        """Put the array axes in another order. Voxels keep their values and their places in the patient.

        Args:
            axes: Three letters, one each of R/L, A/P and S/I, that say where each array index increases to.

        Returns:
            The image with these axes. Its array is a view of the same memory.

        Raises:
            ValueError: The letters do not name one direction of each pair.

        Example:
            >>> import numpy as np
            >>> KneeImage(np.zeros((4, 5, 6), np.int16), np.diag([0.5, 0.5, 1.0, 1.0])).reorient("IPL").shape
            (6, 5, 4)
        """
        moved = reorient(self, axes)
        return replace(self, array=moved.array, affine=moved.affine)

    def canonical(self) -> Volume:
        """Give the axes that knee3d computes in: Inferior, Posterior, Left. A left knee is mirrored to a right one.

        An image of unknown side is not mirrored. Nothing is resampled.

        Returns:
            The intensities, (inferior, posterior, left). The array is a view of the same memory.

        Example:
            >>> import numpy as np
            >>> KneeImage(np.zeros((4, 5, 6), np.int16), np.diag([0.5, 0.5, 1.0, 1.0])).canonical().shape
            (6, 5, 4)
        """
        return to_canonical(self, self.side)

    def __repr__(self) -> str:
        side = {Side.LEFT: "left", Side.RIGHT: "right"}.get(self.side, "side unknown")
        voxels = " x ".join(map(str, self.shape))
        spacing = " x ".join(f"{mm:.2f}" for mm in self.spacing_mm)
        return (
            f"KneeImage({self.name!r}, {side}, {voxels} voxels of {spacing} mm, axes {self.axes}, {self.array.dtype})"
        )
