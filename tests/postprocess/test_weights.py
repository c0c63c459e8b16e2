"""Fusion weights: the best there are, found without looking at every voxel, and proven to be."""

from dataclasses import replace

import numpy as np
import pytest

from knee3d.anatomy.volume import Volume
from knee3d.postprocess.blend import blend, softmax
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.postprocess.contested import (
    CONFIDENT,
    Stored,
    contested,
    load_contested,
    matrix_of,
    narrowed,
    save_contested,
)
from knee3d.postprocess.decide import decide
from knee3d.postprocess.merit import OBJECTIVES, merit
from knee3d.postprocess.search import CLOSE_ENOUGH
from knee3d.postprocess.weights import (
    Wanted,
    fit,
    fit_class_weights,
    fit_thresholds,
    fit_weights,
    given_weights,
    sum_of,
)

SHAPE = (12, 13, 14)
VIEWS = ("one", "two", "three")


def opinions(seed: int, classes: int = 3) -> dict[str, Volume]:
    """Mostly background, as a knee is."""
    rng = np.random.default_rng(seed)
    bias = np.array([1.5, *[0.0] * (classes - 1)])
    return {
        name: Volume(softmax((rng.normal(0, 2.5, (*SHAPE, classes)) + bias).astype(np.float32)), np.eye(4))
        for name in VIEWS
    }


def noise(seed: int, classes: int = 3) -> Volume:
    rng = np.random.default_rng(seed)
    return Volume(np.where(rng.random(SHAPE) < 0.2, rng.integers(1, classes, SHAPE), 0).astype(np.uint8), np.eye(4))


def planted(seed: int, weights: dict[str, float]) -> tuple[Volume, dict[str, Volume]]:
    """Truth that is the blend with these weights."""
    views = opinions(seed)
    return decide(blend(views.items(), weights)), views


def whole(truth: Volume, views: dict[str, Volume], weights, rule="linear", thresholds=None) -> np.ndarray:
    """The confusion matrix, the long way."""
    labels = decide(blend(views.items(), dict(zip(VIEWS, weights, strict=True)), rule), thresholds)
    return confusion_matrix(truth.array, labels.array, 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weights", [(0.55, 0.4, 0.05), (0.2, 0.2, 0.6), (0.0, 1.0, 0.0), (0.31, 0.47, 0.22)])
def test_planted_weights_are_recovered(weights, objective):
    hidden = dict(zip(VIEWS, weights, strict=True))
    fusion = fit_weights([contested(*planted(seed, hidden), str(seed)) for seed in range(3)], objective)
    assert fusion.dice > 0.998
    assert fusion.bound <= CLOSE_ENOUGH + 1e-12
    for name in VIEWS:
        assert fusion.weights[name] == pytest.approx(hidden[name], abs=0.02)
        low, high = fusion.intervals[name]
        assert low - 0.03 < hidden[name] < high + 0.03


@pytest.mark.parametrize("thresholds", [None, (0.5, 0.5), (1 - CONFIDENT + 1e-6, CONFIDENT)])
@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.3, 0.3, 0.4), (0.5077, 0.4012, 0.0911)])
def test_looking_at_contested_voxels_only_is_exact(weights, rule, thresholds):
    truth, views = noise(9), opinions(4)
    case = contested(truth, views)
    assert len(case.truth) < truth.array.size
    assert case.settled.sum() + len(case.truth) == truth.array.size
    np.testing.assert_array_equal(
        matrix_of(case, weights, rule, thresholds), whole(truth, views, weights, rule, thresholds)
    )
    if thresholds is None:
        fewer = narrowed(case)
        assert len(fewer.truth) < len(case.truth)
        np.testing.assert_array_equal(matrix_of(fewer, weights, rule), whole(truth, views, weights, rule))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
def test_no_weights_are_better_than_the_bound_says(rule, objective):
    """Thousands of random ones are tried; and none of the views alone, nor their mean, is better at all."""
    cases = [contested(noise(seed), opinions(seed)) for seed in range(2)]
    fusion = fit_weights(cases, objective, rule)
    assert fusion.dice == merit(
        sum(whole(noise(s), opinions(s), fusion.weights.values(), rule) for s in range(2)), objective
    )
    assert fusion.dice >= max(*fusion.alone.values(), fusion.equal)
    assert sum(fusion.weights.values()) == pytest.approx(1)
    assert 0 <= fusion.bound < (1 if rule == "vote" else 0.005)  # votes tie along lines, which no piece gets clear of
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 1000):
        assert merit(sum_of(cases, weights, rule), objective) <= fusion.dice + fusion.bound + 1e-12


def test_the_same_cases_give_the_same_weights_in_memory_and_from_files(tmp_path):
    hidden = dict(zip(VIEWS, (0.5, 0.3, 0.2), strict=True))
    cases = [contested(*planted(seed, hidden), str(seed)) for seed in range(2)]
    paths = tuple(tmp_path / f"{seed}.npz" for seed in range(2))
    for case, path in zip(cases, paths, strict=True):
        save_contested(case, path)
    wanted = Wanted(per_class=True, thresholds=True)
    assert fit(Stored(paths), wanted) == fit(cases, wanted)
    paths[0].write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"0\.npz is damaged"):
        load_contested(paths[0])


def test_equal_views_weigh_equally():
    views = dict.fromkeys(VIEWS, opinions(0)["one"])
    fusion = fit_weights([contested(decide(views["one"]), views)])
    assert list(fusion.weights.values()) == pytest.approx([1 / 3] * 3)
    assert not fusion.intervals


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_views(count):
    views = {str(seed): opinions(seed)["one"] for seed in range(count)}
    fusion = fit_weights([contested(decide(views["0"]), views)])
    assert fusion.dice == pytest.approx(1)
    assert fusion.weights["0"] > 0.5


def test_each_tissue_gets_the_view_that_knows_it():
    """One view sees tissue 1 and calls all tissue 2 background, another the other way round."""
    rng = np.random.default_rng(0)
    truth = noise(5)
    certain = np.eye(3, dtype=np.float32)[truth.array] * 0.8 + 0.2 / 3

    def blind_for(tissue: int) -> Volume:
        array = certain.copy()
        array[truth.array == tissue] = rng.dirichlet((4, 1, 1), (truth.array == tissue).sum())
        return Volume(array, np.eye(4))

    cases = [contested(truth, {"one": blind_for(2), "two": blind_for(1)})]
    common = fit_weights(cases, "tissues")
    fusion = fit_class_weights(cases, common)
    assert fusion.dice >= common.dice
    views = {"one": blind_for(2), "two": blind_for(1)}
    labels = decide(blend(views.items(), fusion.weights))
    assert Scores(confusion_matrix(truth.array, labels.array, 3), ("a", "b")).mean_dice > 0.9


def test_thresholds_help_a_timid_network():
    """It gives cartilage a third of its probability where there is some, and none elsewhere."""
    truth = noise(1, classes=2)
    array = np.where(truth.array > 0, 0.35, 0.1).astype(np.float32)
    cases = [contested(truth, {"only": Volume(np.stack([1 - array, array], axis=-1), np.eye(4))})]
    fusion = fit_weights(cases)
    assert fusion.dice == 0
    better = fit_thresholds(cases, fusion)
    assert better.dice == 1
    assert 0.2 <= better.thresholds[0] < 0.35
    assert fit_thresholds(cases, better) == better


def test_thresholds_are_the_best_of_each_tissue():
    cases = [contested(noise(seed), opinions(seed)) for seed in range(2)]
    fusion = fit_thresholds(cases, replace(fit_weights(cases, "tissues"), dice=-1.0))
    for tissue in (1, 2):
        for limit in np.arange(0.21, 0.8, 0.07):
            other = [0.79, 0.79]
            mine, others = (
                merit(
                    sum_of(
                        cases,
                        fusion.weights.values(),
                        "linear",
                        [value if t == tissue else o for t, o in enumerate(other, 1)],
                    ),
                    tissue,
                )
                for value in (fusion.thresholds[tissue - 1], limit)
            )
            assert mine >= others - 0.01  # the tissues' thresholds meet in a few voxels only


def test_the_papers_weights_can_be_given():
    weights = dict(zip(VIEWS, (0.5077, 0.4012, 0.0911), strict=True))
    cases = [contested(noise(0), opinions(0))]
    fusion = fit(cases, Wanted(weights=weights))
    assert fusion.weights == weights
    assert fusion.dice == merit(whole(noise(0), opinions(0), weights.values()), "foreground")
    assert np.isnan(fusion.bound)
    with pytest.raises(ValueError, match="but views are"):
        given_weights(cases, {"one": 1.0})


def test_what_cannot_be_fitted_is_refused():
    views = opinions(0)
    nothing = Volume(np.zeros(SHAPE, np.uint8), np.eye(4))
    sure = {name: Volume(np.eye(3, dtype=np.float32)[nothing.array], np.eye(4)) for name in VIEWS}
    with pytest.raises(ValueError, match="no tissue"):
        fit_weights([contested(nothing, sure)])
    with pytest.raises(ValueError, match="same views"):
        fit_weights([contested(nothing, views), contested(nothing, {"one": views["one"]})])
    with pytest.raises(ValueError, match="same views"):
        fit_weights([])
    with pytest.raises(ValueError, match="not on the grid"):
        contested(Volume(nothing.array, np.diag([2.0, 1, 1, 1])), views)
    with pytest.raises(ValueError, match="3 classes"):
        contested(Volume(nothing.array + np.uint8(3), np.eye(4)), views)
    with pytest.raises(ValueError, match="unknown objective"):
        Wanted(objective="all")
