"""One anatomy, scanned by many protocols: a model with its own voxels finds it in the same place, of the same size."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from knee3d.geometry.orientation import axis_codes, from_canonical, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.inference.resampled_view import ResampledView

RADII_MM = np.array([17.0, 14.0, 11.0])
CENTRE_MM = np.array([4.0, -7.0, 12.0])
MODEL = {Plane.AXIAL: (1.4, 0.55, 0.55), Plane.CORONAL: (0.55, 1.4, 0.55), Plane.SAGITTAL: (0.55, 0.55, 1.4)}


@dataclass(frozen=True)
class Bright:
    """The brighter, the more likely tissue."""

    classes: int = 2
    context: int = 1

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = slices[..., 1].astype(np.float32) / 255
        return np.stack([1 - tissue, tissue], axis=-1)


def scan(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int], oblique_deg: float) -> Volume:
    """An ellipsoid in the scanner's frame, through a grid that is turned about two of its axes.

    Args:
        spacing_mm: Along the columns, the rows and the slices of sagittal images.
        shape: Voxels along them.
        oblique_deg: How far the grid is turned.
    """
    sagittal = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float)  # columns run forward, rows down, slices to the left
    turn = Rotation.from_euler("xz", [oblique_deg, oblique_deg / 2], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ sagittal @ np.diag(spacing_mm)
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array(shape) - 1) / 2 + [0.3, -0.2, 0.4])
    places = np.indices(shape).reshape(3, -1)
    fine = 5 if max(spacing_mm) > 1 else 1
    inside = np.zeros(places.shape[1])
    for step in (np.arange(fine) + 0.5) / fine - 0.5:  # thick slices show a mean over their thickness
        moved = places + np.array([[0], [0], [step]])
        mm = (affine[:3, :3] @ moved) + affine[:3, 3:] - CENTRE_MM[:, None]
        away = np.linalg.norm(mm / RADII_MM[:, None], axis=0)
        inside += np.clip(0.5 + (1 - away) * RADII_MM.mean() / spacing_mm[0], 0, 1) / fine
    return Volume(np.rint(255 * inside).astype(np.uint8).reshape(shape), affine)


@pytest.mark.parametrize(
    ("spacing_mm", "shape", "oblique_deg"),
    [
        ((0.3, 0.3, 0.3), (150, 130, 110), 0),
        ((0.36, 0.36, 0.7), (256, 192, 50), 8),
        ((0.31, 0.31, 1.5), (288, 288, 26), 20),
        ((0.55, 0.55, 1.4), (256, 256, 30), 0),
        ((0.5, 0.5, 3.0), (320, 320, 14), 30),
        ((0.3, 0.3, 4.5), (640, 640, 9), 15),
        ((0.625, 0.625, 4.0), (256, 256, 10), 45),
        ((1.0, 1.0, 1.0), (64, 60, 40), 45),
        ((0.8, 0.8, 0.3), (80, 80, 120), 5),
    ],
)
def test_one_anatomy_measures_the_same_on_any_scan(spacing_mm, shape, oblique_deg):
    image = scan(spacing_mm, shape, oblique_deg)
    views = {plane.value: ResampledView(PlaneView(plane, Bright()), size) for plane, size in MODEL.items()}
    canonical = to_canonical(image)
    found = Ensemble(views, dict.fromkeys(views, 1 / 3)).predict(canonical, "").labels
    labels = from_canonical(found, axis_codes(image.affine))
    assert labels.same_grid(image)
    places = np.argwhere(labels.array > 0)
    mm = places @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    voxel = max(spacing_mm)
    assert np.abs(mm.mean(axis=0) - CENTRE_MM).max() < 0.1 + 0.05 * voxel
    volume, true = len(places) * np.prod(labels.spacing_mm), 4 / 3 * np.pi * np.prod(RADII_MM)
    assert volume == pytest.approx(true, rel=0.02 + 0.01 * voxel)
    distance = np.linalg.norm((mm - CENTRE_MM) / RADII_MM, axis=1).max()
    assert distance < 1 + (0.2 + 0.6 * voxel) / RADII_MM.min()
