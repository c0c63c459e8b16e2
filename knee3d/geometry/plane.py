"""Plane: axial, coronal and sagittal. The only module that names them."""

from enum import Enum


class Plane(Enum):
    """An anatomical plane; its value is its name on disk, on the command line and in every report.

    Arrays run (Inferior, Posterior, Left), so a plane is an array axis and each of its slices comes out upright
    as radiologists hang it: axial slices have anterior on top, the other two have superior on top, and the
    patient's left is on the right of the picture.
    """

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    @property
    def axis(self) -> int:
        """Array axis that counts the slices of this plane: 0, 1 or 2."""
        return list(Plane).index(self)
