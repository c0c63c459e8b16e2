"""Random fields are smooth, and as large as they say."""

import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.phantom.random_field import (
    field_from_coefficients,
    field_from_samples,
    knot_places_mm,
    random_coefficients,
    random_field,
    refine_coefficients,
)

GRID = Volume(np.zeros((60, 50, 40), np.uint8), np.diag([0.5, 0.5, 0.8, 1]))


def every_row(field):
    return field.rows(slice(0, GRID.shape[0]))


def test_a_random_field_has_mean_0_and_standard_deviation_1_where_voxels_are_small():
    values = every_row(random_field(GRID, 1.6, np.random.default_rng(0)))
    assert values.shape == GRID.shape
    assert values.dtype == np.float32
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.1)


def test_voxels_longer_than_the_scale_have_less_of_it():
    coarse = Volume(np.zeros((30, 30, 30), np.uint8), np.diag([2, 2, 2, 1]))
    values = random_field(coarse, 1.0, np.random.default_rng(0)).rows(slice(0, 30))
    assert 0.2 < values.std() < 0.5


def test_neighbours_are_alike_within_the_scale_and_not_beyond():
    values = every_row(random_field(GRID, 4.0, np.random.default_rng(1)))
    near = np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]
    far = np.corrcoef(values[40:].ravel(), values[:-40].ravel())[0, 1]
    assert near > 0.95
    assert abs(far) < 0.3


def test_some_rows_are_those_rows_of_all():
    field = random_field(GRID, 3.0, np.random.default_rng(2))
    np.testing.assert_array_equal(field.rows(slice(7, 11)), every_row(field)[7:11])


def test_a_spline_takes_straight_lines_as_they_are():
    """A cubic B-spline reproduces lines, so that places of knots as coefficients give places of voxels."""
    knot_mm = (4.0, 3.0, 5.0)
    places = [knot_places_mm(length, knot) for length, knot in zip((30, 25, 32), knot_mm, strict=True)]
    for axis, voxel in enumerate(GRID.spacing_mm):
        coefficients = np.array(np.broadcast_arrays(*np.meshgrid(*places, indexing="ij"))[axis], np.float32)
        along = np.moveaxis(every_row(field_from_coefficients(coefficients, knot_mm, GRID)), axis, 0)
        wanted = (np.arange(GRID.shape[axis]) + 0.5) * voxel
        np.testing.assert_allclose(along, np.broadcast_to(wanted[:, None, None], along.shape), atol=1e-4)


def test_a_finer_lattice_has_the_same_field():
    coefficients = random_coefficients(GRID, (10, 10, 10), np.random.default_rng(3))
    finer = refine_coefficients(coefficients, (10, 10, 10), (2, 2, 2), GRID)
    before = every_row(field_from_coefficients(coefficients, (10, 10, 10), GRID))
    after = every_row(field_from_coefficients(finer, (2, 2, 2), GRID))
    assert np.abs(before - after)[5:-5, 5:-5, 5:-5].max() < 0.15


def test_samples_are_met_and_lines_lie_between_them():
    samples = np.arange(8 * 10 * 10, dtype=np.float32).reshape(8, 10, 10)
    values = every_row(field_from_samples(samples, (8, 5, 4), GRID))
    np.testing.assert_allclose(values[::8, ::5, ::4], samples, rtol=1e-5)
    np.testing.assert_allclose(values[4, 0, 0], (samples[0, 0, 0] + samples[1, 0, 0]) / 2, rtol=1e-5)
