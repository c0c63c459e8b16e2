"""Subregions of cartilage plates: medial and lateral, trochlear, central, posterior.

Wirth and Eckstein 2008 (IEEE Trans Med Imaging 27:737) and the nomenclature of Eckstein et al. 2006 (Osteoarthritis
Cartilage 14:974): the femoral condyles begin behind the intercondylar notch; their central, weight-bearing part (cMF,
cLF) goes from there to 60 % of the way to their posterior ends, the rest is posterior (pMF, pLF), and what lies before
the notch is the trochlea (TrF). The notch also parts medial from lateral. All is read off the extent of the femoral
cartilage itself, along the knee's own axes, so that it does not matter how the knee lies in the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import FEMORAL, TIBIAL
from knee3d.morphometry.femoral_axes import IntercondylarNotch, find_intercondylar_notch, knee_axes

CENTRAL_SHARE = 0.6
"""Of the way from the notch to the posterior end of a condyle."""
SPECK_MM3 = 50.0
"""Smaller pieces of femoral cartilage tell nothing of its extent."""

TROCHLEA = "trochlea"
REGIONS: Mapping[str, tuple[str, ...]] = {
    FEMORAL: (TROCHLEA, "central medial", "central lateral", "posterior medial", "posterior lateral"),
    TIBIAL: ("medial", "lateral"),
}
"""Tissue to its parts; a tissue that is not here has none. `FemoralLandmarks.region` numbers them in this order."""


@dataclass(frozen=True)
class FemoralLandmarks:
    """Where femoral cartilage is cut.

    Attributes:
        to_mm: (4, 4) from RAS mm to mm along (inferior, posterior, medial).
        notch: The notch and the ends of the condyles in those.
        own_axes: Whether inferior, posterior and medial are the knee's own, or those of the image.
    """

    to_mm: np.ndarray
    notch: IntercondylarNotch
    own_axes: bool = True

    def mirrored(self) -> FemoralLandmarks:
        """For a left knee whose mirror image these were found in."""
        return replace(self, to_mm=self.to_mm @ np.diag([-1.0, 1, 1, 1]))

    def along(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) RAS mm to mm along (inferior, posterior, medial)."""
        return points @ self.to_mm[:3, :3].T + self.to_mm[:3, 3]

    def cuts(self) -> tuple[float, float]:
        """Along posterior, where the central part of the medial and of the lateral condyle ends."""
        front = self.notch.posterior
        medial, lateral = (front + CENTRAL_SHARE * (end - front) for end in self.notch.condyle_ends)
        return medial, lateral

    def region(self, tissue: str, points: np.ndarray) -> np.ndarray:
        """Of each point its number in `REGIONS`, from 0.

        Args:
            tissue: A key of `REGIONS`.
            points: (n, 3) RAS mm.

        Returns:
            (n,) int64.
        """
        _, posterior, medial = self.along(points).T
        lateral = (medial <= self.notch.medial).astype(np.int64)
        if tissue == TIBIAL:
            return lateral
        central = posterior <= np.array(self.cuts())[lateral]
        return np.where(posterior <= self.notch.posterior, 0, np.where(central, 1, 3) + lateral)


def find_femoral_landmarks(femoral: Volume) -> FemoralLandmarks:
    """Read the knee's axes, the notch and the ends of the condyles off femoral cartilage. Specks do not count.

    Where it does not tell the knee's axes, those of the image serve.

    Args:
        femoral: bool, canonical axes, a right knee or one mirrored to right: Left is medial.

    Raises:
        ValueError: There is no femoral cartilage, or it has no notch.
    """
    mask = _without_specks(femoral)
    points = np.argwhere(mask.array) * mask.spacing_mm
    try:
        axes, own = knee_axes(points), True
    except ValueError:
        axes, own = np.eye(3), False
    to_mm = np.eye(4)
    to_mm[:3, :3] = axes
    to_mm @= np.linalg.inv(mask.affine @ np.diag([*1 / mask.spacing_mm, 1]))
    return FemoralLandmarks(to_mm, find_intercondylar_notch(points @ axes.T), own)


def _without_specks(mask: Volume) -> Volume:
    pieces, _ = ndimage.label(mask.array, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel()) * mask.voxel_mm3
    sizes[0] = 0
    return mask.with_array((sizes >= min(SPECK_MM3, sizes.max()))[pieces] & mask.array)
