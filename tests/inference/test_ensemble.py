"""Views that come part by part amount to what whole volumes do, in less memory; regions leave the rest background."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference import prediction
from knee3d.inference.ensemble import Ensemble, ProbabilityWriter
from knee3d.inference.prediction import PlaneView, predict_volume
from knee3d.postprocess.blend import RULES, BlendAccumulator, blend, select_weights
from knee3d.postprocess.decision import decide_labels
from knee3d.postprocess.quality import predictive_entropy

GRID = np.diag([0.5, 0.6, 0.7, 1])
IMAGE = Volume(np.random.default_rng(0).integers(0, 256, (37, 41, 29)).astype(np.uint8), GRID)
WEIGHTS = dict(zip((plane.value for plane in Plane), (0.5, 0.3, 0.2), strict=True))


@dataclass(frozen=True)
class Greys:
    """Three classes by brightness, each network with limits of its own."""

    shift: float
    classes: int = 3
    context: int = 1

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        grey = slices.astype(np.float32).mean(axis=-1) / 255 + self.shift
        scores = np.exp(-((grey[..., None] - np.array([0.2, 0.5, 0.8], np.float32)) ** 2) / 0.02)
        return (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)


VIEWS = {plane.value: PlaneView(plane, Greys(shift)) for plane, shift in zip(Plane, (0, 0.05, -0.05), strict=True)}


@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
def test_parts_amount_to_whole_volumes_bit_by_bit(rule, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 5000)
    whole = {name: predict_volume(IMAGE, view.plane, view.predictor) for name, view in VIEWS.items()}
    opinion = Ensemble(VIEWS, WEIGHTS, rule).predict(IMAGE, "looking")
    np.testing.assert_array_equal(opinion.fused.array, blend(whole.items(), WEIGHTS, rule).array)
    np.testing.assert_array_equal(opinion.labels.array, decide_labels(opinion.fused).array)
    for name, view in whole.items():
        np.testing.assert_array_equal(opinion.view_predictions[name].labels.array, decide_labels(view).array)
        doubt = predictive_entropy(view.array[opinion.view_predictions[name].labels.array > 0]).mean()
        assert opinion.view_predictions[name].predictive_entropy == pytest.approx(doubt)


@pytest.mark.parametrize("rule", RULES)
def test_outside_of_a_region_all_is_background(rule):
    region = np.zeros(IMAGE.shape, dtype=bool)
    region[5:9, 10:30, 3:11] = region[20:28, 2:6, 12:20] = True
    ensemble = Ensemble(VIEWS, WEIGHTS, rule)
    whole, part = ensemble.predict(IMAGE, "whole"), ensemble.predict(IMAGE, "part", region)
    # These networks see one voxel only, so that within the region nothing may change.
    box = slice(5, 28), slice(2, 30), slice(3, 20)
    assert part.fused.same_grid(IMAGE.part(box))
    within, fused = region[box], whole.fused.array[box]
    np.testing.assert_array_equal(part.fused.array[within], fused[within])
    np.testing.assert_allclose(part.fused.array[~within], [[1, 0, 0]] * np.count_nonzero(~within), atol=1e-6)
    assert not part.labels.array[~region].any()
    for name in VIEWS:
        expected = np.where(region, whole.view_predictions[name].labels.array, 0)
        np.testing.assert_array_equal(part.view_predictions[name].labels.array, expected)


def test_an_empty_region_is_all_background():
    opinion = Ensemble(VIEWS, WEIGHTS).predict(IMAGE, "nowhere", np.zeros(IMAGE.shape, dtype=bool))
    assert opinion.labels.same_grid(IMAGE)
    assert not opinion.labels.array.any()


def test_each_view_is_handed_out_when_it_is_complete():
    kept = {}
    Ensemble(VIEWS, WEIGHTS).predict(IMAGE, "looking", keep=ProbabilityWriter(np.float16, kept.__setitem__))
    assert list(kept) == list(VIEWS)
    for name, view in VIEWS.items():
        assert kept[name].array.dtype == np.float16
        whole = predict_volume(IMAGE, view.plane, view.predictor).array
        np.testing.assert_allclose(kept[name].array, whole, atol=5e-4)
    region = np.zeros(IMAGE.shape, dtype=bool)
    region[:5] = True
    Ensemble(VIEWS, WEIGHTS).predict(IMAGE, "looking", region, ProbabilityWriter(np.float32, kept.__setitem__))
    for volume in kept.values():
        np.testing.assert_allclose(volume.array.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_number_of_views(monkeypatch):
    """It is the sum over views, a batch, and of each view the labels: a byte a voxel."""
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 2 * 160 * 160)
    image = Volume(np.random.default_rng(1).integers(0, 256, (160, 160, 160)).astype(np.uint8), GRID)

    def peak(count: int) -> float:
        views = {str(number): PlaneView(Plane.SAGITTAL, Greys(0.0)) for number in range(count)}
        tracemalloc.start()
        Ensemble(views, dict.fromkeys(views, 1 / count)).predict(image, "looking")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / (image.array.size * 3 * 4)

    few, many = peak(2), peak(20)  # a peak may or may not meet the labels that are just handed on, 1 / 12
    assert few < 1.7
    assert many - few < 1.1 * 18 / 12


def test_weights_of_fewer_views_are_shared_out():
    assert select_weights({"a": 0.5, "b": 0.3, "c": 0.2}, ["a", "b"]) == pytest.approx({"a": 0.625, "b": 0.375})
    assert select_weights({"a": 1.0, "b": 0.0, "c": 0.0}, ["b", "c"]) == {"b": 0.5, "c": 0.5}
    by_class = select_weights({"a": [0.5, 1.0], "b": [0.25, 0.0], "c": [0.25, 0.0]}, ["b", "c"])
    assert by_class == {"b": [0.5, 0.5], "c": [0.5, 0.5]}


def test_parts_that_are_no_probabilities_are_refused():
    pool = BlendAccumulator(IMAGE, 2, {"a": 1.0})
    with pytest.raises(ValueError, match="do not add up to 1"):
        pool.add("a", (slice(0, 1), slice(None), slice(None)), np.full((1, 41, 29, 2), 3.0, np.float32))
    with pytest.raises(ValueError, match="weights must be"):
        BlendAccumulator(IMAGE, 2, {"a": 0.4})


@pytest.mark.parametrize("plane", Plane)
def test_a_part_is_seen_from_a_multiple_of_the_stride(plane):
    seen = []

    class Watching(Greys):
        def __call__(self, slices: np.ndarray) -> np.ndarray:
            seen.append(slices.shape[1:3])
            return super().__call__(slices)

    image = Volume(np.random.default_rng(0).integers(0, 256, (200, 210, 220)).astype(np.uint8), GRID)
    region = np.zeros(image.shape, dtype=bool)
    region[60:70, 100:110, 205:215] = True
    view = PlaneView(plane, Watching(0.0))
    whole = predict_volume(image, plane, Greys(0.0)).array
    parts = list(view.parts(image, region))
    covered = np.zeros(image.shape, dtype=int)
    for index, part in parts:
        covered[index] += 1
        np.testing.assert_array_equal(part, whole[index])
    assert covered.max() == 1
    assert covered[region].all()
    # 60 to 70 is seen from 32 to 96, 100 to 110 from 96 to 128, 205 to 215 from 192 to the border at 220.
    lengths = np.delete([64, 32, 28], plane.axis)
    assert set(seen) == {tuple(lengths.tolist())}
