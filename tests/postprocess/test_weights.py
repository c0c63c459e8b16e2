"""Fusion weights: the best there are, found without looking at every voxel."""

import numpy as np
import pytest

from knee3d.anatomy.volume import Volume
from knee3d.postprocess.blend import blend
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.decide import decide
from knee3d.postprocess.weights import contested, fit_weights, foreground_dice

SHAPE = (12, 13, 14)
VIEWS = ("one", "two", "three")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def opinions(seed: int, classes: int = 3) -> dict[str, Volume]:
    """Mostly background, as a knee is."""
    rng = np.random.default_rng(seed)
    bias = np.array([1.5, *[0.0] * (classes - 1)])
    return {
        name: Volume(softmax(rng.normal(0, 1.5, (*SHAPE, classes)) + bias).astype(np.float32), np.eye(4))
        for name in VIEWS
    }


def planted(seed: int, weights: dict[str, float]) -> tuple[Volume, dict[str, Volume]]:
    """Truth that is the blend with these weights."""
    views = opinions(seed)
    return decide(blend(views.items(), weights)), views


@pytest.mark.parametrize("weights", [(0.55, 0.4, 0.05), (0.2, 0.2, 0.6), (0.0, 1.0, 0.0), (0.31, 0.47, 0.22)])
def test_planted_weights_are_recovered(weights):
    hidden = dict(zip(VIEWS, weights, strict=True))
    fusion = fit_weights([contested(*planted(seed, hidden)) for seed in range(3)])
    assert fusion.dice > 0.995
    for name in VIEWS:
        assert fusion.weights[name] == pytest.approx(hidden[name], abs=0.03)


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.3, 0.3, 0.4), (0.5077, 0.4012, 0.0911)])
def test_looking_at_contested_voxels_only_is_exact(weights):
    truth = Volume((np.random.default_rng(9).random(SHAPE) < 0.2).astype(np.uint8), np.eye(4))
    views = opinions(4)
    labels = decide(blend(views.items(), dict(zip(VIEWS, weights, strict=True))))
    whole = Scores(confusion_matrix(truth.array, labels.array, 3), ("a", "b")).foreground_dice
    case = contested(truth, views)
    assert len(case.truth) < truth.array.size
    assert case.missed > 0
    assert foreground_dice([case], np.array(weights)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_any_view_or_the_mean(seed):
    truth = Volume((np.random.default_rng(seed).random(SHAPE) < 0.2).astype(np.uint8), np.eye(4))
    case = contested(truth, opinions(seed))
    fusion = fit_weights([case])
    assert fusion.dice >= max(fusion.alone.values())
    assert fusion.dice >= foreground_dice([case], np.full(3, 1 / 3))
    assert sum(fusion.weights.values()) == pytest.approx(1)
    assert fit_weights([case]) == fusion


def test_equal_views_weigh_equally():
    views = dict.fromkeys(VIEWS, opinions(0)["one"])
    fusion = fit_weights([contested(decide(views["one"]), views)])
    assert list(fusion.weights.values()) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_views(count):
    views = {str(seed): opinions(seed)["one"] for seed in range(count)}
    fusion = fit_weights([contested(decide(views["0"]), views)])
    assert fusion.dice == pytest.approx(1)
    assert fusion.weights["0"] > 0.5


def test_what_cannot_be_fitted_is_refused():
    views = opinions(0)
    nothing = Volume(np.zeros(SHAPE, np.uint8), np.eye(4))
    with pytest.raises(ValueError, match="no tissue"):
        fit_weights([contested(nothing, views)])
    with pytest.raises(ValueError, match="same views"):
        fit_weights([contested(nothing, views), contested(nothing, {"one": views["one"]})])
    with pytest.raises(ValueError, match="same views"):
        fit_weights([])
    with pytest.raises(ValueError, match="not on the grid"):
        contested(Volume(nothing.array, np.diag([2.0, 1, 1, 1])), views)
