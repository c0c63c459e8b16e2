"""Oblique views: every voxel once, constants stay constant, what is smooth keeps its place; in little memory."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from knee3d.geometry.directions import sphere_rotations
from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import oblique_grid, resample
from knee3d.geometry.volume import Volume
from knee3d.inference import oblique_view
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.oblique_view import ObliqueView
from knee3d.inference.prediction import PlaneView, View, stack_neighbours
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice

CANONICAL = np.array([[0, 0, -0.7, 30], [0, -0.4, 0, 20], [-0.5, 0, 0, 10], [0, 0, 0, 1.0]])
TILTED = np.eye(4)
TILTED[:3, :3] = Rotation.from_euler("xyz", [12, -9, 20], degrees=True).as_matrix() @ CANONICAL[:3, :3]
LIMIT = 128


@dataclass(frozen=True)
class Sure:
    """What is brighter than a limit is tissue: it sees one voxel."""

    limit: float = LIMIT
    classes: int = 2
    context: int = 1

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[(slices[..., self.context] > self.limit).astype(int)]


@dataclass(frozen=True)
class Gentle:
    """The brighter, the more likely tissue: linear, and the next slices count as well."""

    classes: int = 2
    context: int = 1

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = slices.astype(np.float32).mean(axis=-1) / 255
        return np.stack([1 - tissue, tissue], axis=-1)


@dataclass(frozen=True)
class Constant:
    """The same everywhere."""

    said: tuple[float, ...] = (0.2, 0.3, 0.5)
    context: int = 2

    @property
    def classes(self) -> int:
        return len(self.said)

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.float32(self.said), (*slices.shape[:3], self.classes))


def blob(affine: np.ndarray, shape: tuple[int, int, int] = (44, 52, 30), radius_mm: float = 6.0) -> Volume:
    """Bright around the centre, fading smoothly: `LIMIT` at the radius."""
    volume = Volume(np.zeros(shape, dtype=np.uint8), affine)
    centre = affine @ [*(np.array(shape) / 2), 1]
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    away = np.linalg.norm((places - centre[:3]) * [1, 1.2, 0.8], axis=-1)
    return volume.with_array(np.clip(LIMIT + 40 * (radius_mm - away), 0, 255).astype(np.uint8))


def noise(affine: np.ndarray, shape: tuple[int, int, int] = (23, 31, 17)) -> Volume:
    return Volume(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8), affine)


def gathered(view: View, image: Volume, region: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """How often each voxel came, and what came for it."""
    count = np.zeros(image.shape, dtype=int)
    found = np.full((*image.shape, view.predictor.classes), np.nan, dtype=np.float32)
    for index, part in view.parts(image, region):
        np.add.at(count, index, 1)
        assert part.dtype == np.float32
        found[index] = part
    return count, found


@pytest.mark.parametrize("affine", [CANONICAL, TILTED], ids=["anisotropic", "tilted"])
@pytest.mark.parametrize("spacing_mm", [0.35, 0.9])
@pytest.mark.parametrize("turn", sphere_rotations(4))
def test_every_voxel_that_is_wanted_comes_once(affine, spacing_mm, turn):
    image = noise(affine)
    view = ObliqueView(turn, spacing_mm, Constant())
    count, found = gathered(view, image)
    assert (count == 1).all()
    np.testing.assert_allclose(found, np.broadcast_to([0.2, 0.3, 0.5], found.shape), atol=1e-6)
    region = np.zeros(image.shape, dtype=bool)
    region[3:9, 5:20, 2:11] = region[15:, :4, 12:] = True  # two pieces, with layers between them that hold nothing
    count, found = gathered(view, image, region)
    np.testing.assert_array_equal(count, region)
    assert not list(view.parts(image, np.zeros(image.shape, dtype=bool)))


@pytest.mark.parametrize("shape", [(1, 9, 8), (7, 1, 6), (1, 1, 1), (5, 6, 1)])
@pytest.mark.parametrize("turn", [np.eye(3), *sphere_rotations(2)])
def test_an_image_may_be_as_thin_as_a_slice(shape, turn):
    count, found = gathered(ObliqueView(turn, 0.6, Constant()), noise(CANONICAL, shape))
    assert (count == 1).all()
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)


@given(st.integers(0, 999), st.sampled_from([400, 3000, 10**6]), st.sampled_from([1, 3, 8]))
@settings(max_examples=30, deadline=None)
def test_slabs_amount_to_the_whole_oblique_volume(seed, pixels, slab):
    """There and back in one piece, as the definition has it; a network that sees its pixel and the next slices."""
    rng = np.random.default_rng(seed)
    image = noise(CANONICAL, tuple(rng.integers(2, 20, 3).tolist()))
    turn, spacing_mm = Rotation.random(random_state=seed).as_matrix(), rng.uniform(0.3, 0.8)
    grid = oblique_grid(image, turn, spacing_mm)
    grey = np.rint(resample(image, grid, 1).array).astype(np.uint8)
    stack = np.moveaxis(grey, 2, 0)
    said = np.moveaxis(Gentle()(stack_neighbours(stack, range(len(stack)), 1)), 0, 2)
    padded = Volume(np.pad(said, ((1, 1), (1, 1), (1, 1), (0, 0)), mode="edge"), shifted(grid.affine))
    classes = [padded.with_array(padded.array[..., number]) for number in range(said.shape[-1])]
    expected = np.stack([resample(one, image, 1).array for one in classes], axis=-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oblique_view, "BATCH_PIXELS", pixels)
        patch.setattr(oblique_view, "SLAB", slab)
        patch.setattr(oblique_view, "VOXELS", 50)
        region = rng.random(image.shape) < 0.1
        whole, part = (gathered(ObliqueView(turn, spacing_mm, Gentle()), image, one)[1] for one in (None, region))
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(part[region], expected[region], atol=1e-5)


def shifted(affine: np.ndarray) -> np.ndarray:
    """Of a grid with a voxel more on each side: rounding must not take what lies on the outermost voxel for outside."""
    moved = affine.copy()
    moved[:, 3] = affine @ [-1, -1, -1, 1]
    return moved


@pytest.mark.parametrize("affine", [CANONICAL, TILTED], ids=["anisotropic", "tilted"])
def test_a_smooth_blob_is_found_where_it_is_from_every_side(affine):
    image = blob(affine)
    truth = (image.array > LIMIT).astype(np.uint8)
    assert 0.01 < truth.mean() < 0.3
    views = {f"view-{number}": ObliqueView(turn, 0.45, Sure()) for number, turn in enumerate(sphere_rotations(6))}
    opinion = Ensemble(views, dict.fromkeys(views, 1 / 6)).predict(image, "looking")
    assert dice(confusion_matrix(truth, opinion.labels.array, 2))[1] > 0.97
    np.testing.assert_allclose(opinion.fused.array.sum(axis=-1), 1, atol=1e-5)
    for look in opinion.view_predictions.values():
        assert dice(confusion_matrix(truth, look.labels.array, 2))[1] > 0.95
    # Only where the surface is do they differ.
    differ = opinion.labels.array != truth
    assert np.abs(image.array[differ].astype(int) - LIMIT).max() < 30


@pytest.mark.parametrize("turn", sphere_rotations(3))
def test_a_region_is_what_it_is_within_the_whole(turn):
    image = noise(TILTED, (40, 36, 30))
    region = blob(TILTED, (40, 36, 30), radius_mm=4).array > LIMIT
    view = ObliqueView(turn, 0.5, Sure())
    (_, whole), (_, part) = gathered(view, image), gathered(view, image, region)
    np.testing.assert_allclose(part[region], whole[region], atol=1e-6)
    assert np.isnan(part[~region]).all()


def test_it_counts_among_planes_in_an_ensemble_with_a_region():
    image = blob(CANONICAL)
    truth = image.array > LIMIT
    views: dict[str, View] = {plane.value: PlaneView(plane, Sure()) for plane in Plane}
    views["turned"] = ObliqueView(sphere_rotations(1)[0], 0.5, Sure())
    region = image.array > LIMIT - 60
    opinion = Ensemble(views, dict.fromkeys(views, 0.25)).predict(image, "looking", region)
    assert dice(confusion_matrix(truth, opinion.labels.array, 2))[1] > 0.99
    assert not opinion.labels.array[~region].any()


def test_progress_goes_as_far_as_was_said():
    image = noise(CANONICAL)
    region = np.zeros(image.shape, dtype=bool)
    region[4:8, 4:8, 4:8] = True
    view = ObliqueView(sphere_rotations(2)[1], 0.4, Constant())
    for one in (None, region, np.zeros_like(region)):
        told: list[int] = []
        list(view.parts(image, one, told.append))
        assert sum(told) == view.steps(image)


@pytest.fixture
def watching():
    """A network that writes down the shapes that it is shown, and these."""
    seen: list[tuple[int, ...]] = []

    class Watching(Constant):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            seen.append(slices.shape)
            return super().__call__(slices)

    return Watching(), seen


def test_slices_are_seen_in_rectangles_that_begin_at_a_multiple_of_the_stride(watching):
    network, seen = watching
    image = noise(np.diag([1.0, 1, 1, 1]), (150, 160, 140))
    region = np.zeros(image.shape, dtype=bool)
    region[70:74, 80:84, 50:74] = True
    list(ObliqueView(sphere_rotations(3)[1], 1.0, network).parts(image, region))
    assert 1 < max(shape[0] for shape in seen) <= oblique_view.SLAB + 1
    assert 15 < sum(shape[0] for shape in seen) < 40
    assert {shape[3] for shape in seen} == {5}
    assert {side for shape in seen for side in shape[1:3]} <= {32, 64}


def test_slices_are_whole_for_a_network_that_must_see_them_so(watching):
    network, seen = watching
    image = noise(np.diag([1.0, 1, 1, 1]), (50, 60, 40))
    region = np.zeros(image.shape, dtype=bool)
    region[20:24, 30:34, 5:9] = True
    turn = sphere_rotations(3)[1]
    parts = {whole: list(ObliqueView(turn, 1.0, network, whole).parts(image, region)) for whole in (True, False)}
    size = oblique_grid(image, turn, 1.0).shape[:2]
    assert seen[0][1:3] == size
    assert seen[-1][1:3] != size
    assert sum(len(where[0]) for where, _ in parts[True]) == sum(len(where[0]) for where, _ in parts[False])


def test_what_a_network_may_not_say_or_see_is_refused():
    class Wrong(Constant):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            return super().__call__(slices)[:, :-1]

    with pytest.raises(ValueError, match="the predictor returned"):
        list(ObliqueView(np.eye(3), 0.5, Wrong()).parts(noise(CANONICAL)))
    floats = noise(CANONICAL).with_array(np.zeros((23, 31, 17)))
    with pytest.raises(ValueError, match="expected a 3-D uint8 image"):
        list(ObliqueView(np.eye(3), 0.5, Constant()).parts(floats))


@pytest.mark.slow
def test_the_oblique_volume_is_never_held(monkeypatch):
    """Beyond the image there are its voxels' order, 14 bytes each while they are sorted, and a batch."""
    monkeypatch.setattr(oblique_view, "BATCH_PIXELS", 2 * 100 * 100)
    image, said = noise(np.diag([0.5, 0.5, 0.5, 1]), (100, 100, 100)), (0.1,) * 10
    view = ObliqueView(sphere_rotations(3)[1], 0.5, Constant(said))
    volume = np.prod(oblique_grid(image, view.turn, 0.5).shape) * len(said) * 4
    tracemalloc.start()
    for _ in view.parts(image):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * volume
    assert peak < 25 * image.array.size
