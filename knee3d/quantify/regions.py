"""Parts of cartilage plates as osteoarthritis trials report them: medial and lateral, trochlear, central, posterior.

Wirth and Eckstein 2008 (IEEE Trans Med Imaging 27:737) and the nomenclature of Eckstein et al. 2006 (Osteoarthritis
Cartilage 14:974): the femoral condyles begin behind the intercondylar notch; their central, weight-bearing part (cMF,
cLF) goes from there to 60 % of the way to their posterior ends, the rest is posterior (pMF, pLF), and what lies before
the notch is the trochlea (TrF). The notch also parts medial from lateral. All is read off the extent of the femoral
cartilage itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from knee3d.anatomy.tissue import FEMORAL, TIBIAL
from knee3d.anatomy.volume import Volume

CENTRAL_SHARE = 0.6
"""Of the way from the notch to the posterior end of a condyle."""
MIDDLE = (0.3, 0.7)
"""Of the width of the femoral cartilage: here the notch is looked for."""
SMOOTH_MM = 2.0
SPECK_MM3 = 50.0
"""Smaller pieces of femoral cartilage tell nothing of its extent."""
LEAST_MM = 5.0
"""A notch is deeper than this, or it is none."""

TROCHLEA = "trochlea"
REGIONS: Mapping[str, tuple[str, ...]] = {
    FEMORAL: (TROCHLEA, "central medial", "central lateral", "posterior medial", "posterior lateral"),
    TIBIAL: ("medial", "lateral"),
}
"""Tissue to its parts; a tissue that is not here has none. `Landmarks.region` numbers them in this order."""


@dataclass(frozen=True)
class Landmarks:
    """Where femoral cartilage is cut, in mm along the array's axes from its first voxel.

    Attributes:
        to_mm: (4, 4) from RAS mm to mm along (Inferior, Posterior, medial).
        notch_medial: Along medial, what parts the condyles.
        notch_posterior: Along Posterior, the front of the notch.
        ends: Along Posterior, the posterior end of the medial and of the lateral condyle.
    """

    to_mm: np.ndarray
    notch_medial: float
    notch_posterior: float
    ends: tuple[float, float]

    def mirrored(self) -> Landmarks:
        """For a left knee whose mirror image these were found in."""
        return replace(self, to_mm=self.to_mm @ np.diag([-1.0, 1, 1, 1]))

    def region(self, tissue: str, points: np.ndarray) -> np.ndarray:
        """Of each point its number in `REGIONS`, from 0.

        Args:
            tissue: A key of `REGIONS`.
            points: (n, 3) RAS mm.

        Returns:
            (n,) int64.
        """
        along = points @ self.to_mm[:3, :3].T + self.to_mm[:3, 3]
        lateral = (along[:, 2] <= self.notch_medial).astype(np.int64)
        if tissue == TIBIAL:
            return lateral
        ends = np.array(self.ends)[lateral]
        central = along[:, 1] <= self.notch_posterior + CENTRAL_SHARE * (ends - self.notch_posterior)
        return np.where(along[:, 1] <= self.notch_posterior, 0, np.where(central, 1, 3) + lateral)


def find_landmarks(femoral: Volume) -> Landmarks:
    """Read the notch and the ends of the condyles off femoral cartilage. Specks do not count.

    Args:
        femoral: bool, canonical axes, a right knee or one mirrored to right: Left is medial.

    Raises:
        ValueError: There is no femoral cartilage, or it has no notch.
    """
    mask = _without_specks(femoral)
    spacing, (present, posterior) = mask.spacing_mm, _posterior_ends(mask)
    if not present.any():
        raise ValueError("there is no femoral cartilage to find the notch in")
    first, last = np.flatnonzero(present)[[0, -1]]
    low, high = (first + share * (last - first) for share in MIDDLE)
    columns = np.arange(len(present))
    smooth = ndimage.gaussian_filter1d(np.interp(columns, columns[present], posterior[present]), SMOOTH_MM / spacing[2])
    middle = columns[round(low) : round(high) + 1]
    notch = int(middle[smooth[middle].argmin()])
    parts = smooth[:notch][present[:notch]], smooth[notch + 1 :][present[notch + 1 :]]
    if not all(part.size and part.max() >= smooth[notch] + LEAST_MM for part in parts):
        raise ValueError("femoral cartilage has no notch between two condyles; is the image cut off?")
    ends = [float(part.max()) for part in parts]
    lateral, medial = ends
    frame = np.linalg.inv(mask.affine @ np.diag([*1 / spacing, 1]))
    return Landmarks(frame, float(notch * spacing[2]), float(smooth[notch]), (medial, lateral))


def _without_specks(mask: Volume) -> Volume:
    pieces, _ = ndimage.label(mask.array, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel()) * mask.voxel_mm3
    sizes[0] = 0
    return mask.with_array((sizes >= min(SPECK_MM3, sizes.max()))[pieces] & mask.array)


def _posterior_ends(mask: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Of each sagittal slice, whether it has any cartilage, and how far that reaches to posterior, in mm."""
    lines = np.asarray(mask.array.any(axis=0))  # posterior, left
    last = lines.shape[0] - 1 - lines[::-1].argmax(axis=0)
    return np.asarray(lines.any(axis=0)), last * mask.spacing_mm[1]
