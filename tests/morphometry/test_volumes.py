import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.volumes import tissue_volumes

SCHEME = SCHEMES["compartments"]


def test_volumes_are_voxels_times_the_volume_of_one():
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    labels[0], labels[1, 0] = 1, 3
    volumes = tissue_volumes(Volume(labels, np.diag([0.5, 2.0, 0.7, 1])), SCHEME)
    assert volumes.dtype == np.float64
    np.testing.assert_allclose(volumes, [30 * 0.7, 0, 6 * 0.7])


def test_shear_does_not_count():
    affine = np.array([[1, 0.5, 0, 0], [0, 1, 0.2, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    assert tissue_volumes(Volume(np.ones((2, 2, 2), dtype=np.int16), affine), SCHEME)[0] == pytest.approx(16)


@pytest.mark.parametrize(
    "array", [np.full((2, 2, 2), 4), np.full((2, 2, 2), -1), np.zeros((2, 2, 2)), np.zeros((2, 2, 2, 3), dtype=int)]
)
def test_what_are_not_labels_of_the_scheme_is_refused(array):
    with pytest.raises(ValueError, match="labels"):
        tissue_volumes(Volume(array, np.eye(4)), SCHEME)
