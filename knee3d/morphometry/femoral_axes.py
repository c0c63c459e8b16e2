"""Find the intercondylar notch and the axes of the knee from femoral cartilage.

Medial runs through the centres of circles around the sagittal profiles of the two condyles, the cylinder axis of knee
kinematics (Eckhoff et al. 2005, J Bone Joint Surg Am 87 Suppl 2:71; Yin et al. 2015, PLoS ONE 10:e0128877). Inferior is
across it where the arch that all femoral cartilage makes from the side is flattest, its least principal axis. Miranda
et al. 2010 (J Biomech 43:1623) make axes of bones from cylinders and inertia in this way. Bones are not needed, and the
axes turn with the femur where the knee is bent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

COLUMN_MM = 1.0
"""Along medial: of each column it is told how far back cartilage reaches."""
SMOOTH_MM = 2.0
MIDDLE = (0.3, 0.7)
"""Of the width of the femoral cartilage: here the notch is looked for."""
LEAST_MM = 5.0
"""A notch is deeper than this, or it is none."""

MOST_POINTS = 50_000
"""That axes are told from; a knee has more, and they would change no axis by a tenth of a degree."""
LEAST_POINTS = 100
ROUNDS = 20
SETTLED, RESTLESS = np.radians(0.05), np.radians(1)
"""Turned by less in a round, axes are found; by more in the last round, they are not. Between the two they go to and
fro on coarse voxels."""
FURTHEST = np.radians(45)
"""From the axes that the image has: what is turned by more has axes of other names."""
UNLIKE = 1.4
"""The larger radius of two condyles over the smaller; 1.0 to 1.2 in knees, 2 where cartilage of one is worn away."""
LEAST_FLATNESS = 1.5
"""Variance along the arch over that across; 4 to 5 in whole knees, 1 of what has no direction."""


@dataclass(frozen=True)
class IntercondylarNotch:
    """The intercondylar notch and the ends of the condyles, in mm along (inferior, posterior, medial).

    Attributes:
        medial: Along medial, what parts the condyles.
        posterior: Along posterior, the front of the notch.
        condyle_ends: Along posterior, the posterior end of the medial and of the lateral condyle.
    """

    medial: float
    posterior: float
    condyle_ends: tuple[float, float]


def find_intercondylar_notch(along: np.ndarray) -> IntercondylarNotch:
    """Where femoral cartilage reaches least far back, between where it reaches furthest.

    Args:
        along: (n, 3) places of femoral cartilage of a right knee, mm along (inferior, posterior, medial).

    Raises:
        ValueError: There is no femoral cartilage, or it has no notch.
    """
    if not len(along):
        raise ValueError("there is no femoral cartilage to find the notch in")
    first = along[:, 2].min()
    columns = ((along[:, 2] - first) / COLUMN_MM).astype(np.int64)
    reach = np.full(columns.max() + 1, -np.inf)
    np.maximum.at(reach, columns, along[:, 1])
    present = np.flatnonzero(np.isfinite(reach))
    every = np.arange(len(reach))
    smooth = ndimage.gaussian_filter1d(np.interp(every, present, reach[present]), SMOOTH_MM / COLUMN_MM)
    low, high = (round(share * every[-1]) for share in MIDDLE)
    notch = low + int(smooth[low : high + 1].argmin())
    lateral, medial = (smooth[part].max(initial=-np.inf) for part in (slice(notch), slice(notch + 1, None)))
    if min(lateral, medial) < smooth[notch] + LEAST_MM:
        raise ValueError("femoral cartilage has no notch between two condyles; is the image cut off?")
    return IntercondylarNotch(
        float(first + (notch + 0.5) * COLUMN_MM), float(smooth[notch]), (float(medial), float(lateral))
    )


def knee_axes(points: np.ndarray) -> np.ndarray:
    """The knee's own axes.

    Each round looks for condyles and arch along the axes found so far, until they no longer turn: 4 to 8 rounds.

    Args:
        points: (n, 3) places of femoral cartilage of a right knee, mm along roughly (inferior, posterior, medial).

    Returns:
        (3, 3) float64, a rotation: its rows are inferior, posterior and medial.

    Raises:
        ValueError: There is too little femoral cartilage, or it has not the shape of two condyles.
    """
    if len(points) < LEAST_POINTS:
        raise ValueError("there is too little femoral cartilage to tell the knee's own axes")
    points = points[:: 1 + len(points) // MOST_POINTS]
    axes = np.eye(3)
    for _ in range(ROUNDS):
        before = axes
        axes = _frame(axes[2], _flattest(points @ axes.T) @ axes)
        centres, radii = _condyles(points @ axes.T)
        axes = _frame((centres[0] - centres[1]) @ axes, axes[0])
        turned = _angle(axes @ before.T)
        if turned < SETTLED:
            break
    if turned > RESTLESS or _angle(axes) > FURTHEST or max(radii) > UNLIKE * min(radii):
        raise ValueError("femoral cartilage does not tell the knee's own axes; is there too little left of it?")
    return axes


def _frame(medial: np.ndarray, inferior: np.ndarray) -> np.ndarray:
    """Rows inferior, posterior and medial of a rotation; of inferior counts what is across medial."""
    medial = medial / np.linalg.norm(medial)
    posterior = np.cross(medial, inferior)
    posterior /= np.linalg.norm(posterior)
    return np.stack([np.cross(posterior, medial), posterior, medial])


def _flattest(along: np.ndarray) -> np.ndarray:
    """(3,): across medial, where the arch of femoral cartilage is flattest, downwards."""
    spread, directions = np.linalg.eigh(np.cov(along[:, :2].T))
    if spread[1] < LEAST_FLATNESS * spread[0]:
        raise ValueError("femoral cartilage is no arch")
    return np.array([*directions[:, 0], 0.0]) * np.sign(directions[0, 0])


def _condyles(along: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Centres and radii of the circles around the medial and the lateral condyle."""
    notch = find_intercondylar_notch(along)
    behind, medially = along[:, 1] > notch.posterior, along[:, 2] > notch.medial
    circles = [_circle(along[behind & side]) for side in (medially, ~medially)]
    return [centre for centre, _ in circles], [radius for _, radius in circles]


def _circle(condyle: np.ndarray) -> tuple[np.ndarray, float]:
    """Around its sagittal profile: the centre, (3,), at the middle of its width, and the radius."""
    profile = condyle[:, :2]
    centre = fit_circle_centre(profile)
    return np.array([*centre, condyle[:, 2].mean()]), float(np.linalg.norm(profile - centre, axis=1).mean())


def fit_circle_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the circle that fits points best, by least squares of x2 + y2 = 2ax + 2by + c (Kasa 1976).

    Args:
        points: (n, 2).

    Returns:
        (2,) float64.
    """
    middle = points.mean(axis=0)
    around = points - middle
    columns = np.column_stack([2 * around, np.ones(len(around))])
    return np.linalg.lstsq(columns, (around**2).sum(axis=1), rcond=None)[0][:2] + middle


def _angle(rotation: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
