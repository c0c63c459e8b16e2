"""Fusion weights: as good as any that were tried, found without looking at every voxel."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from knee3d.geometry.volume import Volume
from knee3d.postprocess.blend import blend, softmax
from knee3d.postprocess.candidate_voxels import CONFIDENT, CandidateVoxels, find_candidates, load_candidates
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix
from knee3d.postprocess.decision import decide_labels
from knee3d.postprocess.fusion_fit import (
    GRID_POINTS,
    OBJECTIVES,
    FusionConfig,
    fit_class_weights,
    fit_fusion,
    fit_thresholds,
    fit_weights,
    fusion_with_given_weights,
    objective_dice,
    weight_grid,
)

SHAPE = (12, 13, 14)
VIEWS = ("one", "two", "three")
Save = Callable[..., list[Path]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write cases, (truth, views) or (truth, views, patient), to files."""

    def write(*cases) -> list[Path]:
        paths = [tmp_path / f"{number}.npz" for number in range(len(cases))]
        for case, path in zip(cases, paths, strict=True):
            find_candidates(*case, *("",) * (3 - len(case))).save(path)
        return paths

    return write


def score(matrix: np.ndarray, objective: str | int) -> float:
    return float(objective_dice(matrix, objective))


def pooled(paths: list[Path], weights, rule: str = "linear", thresholds=None) -> np.ndarray:
    return sum(load_candidates(path).confusion(tuple(weights), rule, thresholds) for path in paths)


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
    return decide_labels(blend(views.items(), weights)), views


def whole(truth: Volume, views: dict[str, Volume], weights, rule="linear", thresholds=None) -> np.ndarray:
    """The confusion matrix, the long way."""
    labels = decide_labels(blend(views.items(), dict(zip(VIEWS, weights, strict=True)), rule), thresholds)
    return confusion_matrix(truth.array, labels.array, 3)


def test_the_objective_is_the_dice_of_scores():
    matrix = np.array([[90, 3, 2], [4, 20, 1], [0, 5, 10]])
    scores = OverlapScores(matrix, ("a", "b"))
    assert score(matrix, "foreground") == scores.foreground_dice
    assert score(matrix, "tissues") == pytest.approx(scores.mean_dice)
    assert [score(matrix, tissue) for tissue in (1, 2)] == scores.dice.tolist()


def test_a_tissue_that_truth_lacks_does_not_count():
    matrix = np.array([[90, 3, 2], [4, 20, 1], [0, 0, 0]])
    assert score(matrix, "tissues") == score(matrix, 1)
    assert score(matrix, 2) == 0


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    "weights", [(0.55, 0.4, 0.05), (0.0, 1.0, 0.0), *(pytest.param(more, marks=pytest.mark.nightly)
                                                      for more in ((0.2, 0.2, 0.6), (0.31, 0.47, 0.22)))]
)  # fmt: skip
def test_planted_weights_are_recovered(weights, objective, save):
    hidden = dict(zip(VIEWS, weights, strict=True))
    fusion = fit_weights(save(*[(*planted(seed, hidden), str(seed)) for seed in range(3)]), objective)
    assert fusion.dice > 0.998
    for name in VIEWS:
        assert fusion.weights[name] == pytest.approx(hidden[name], abs=0.01)
        low, high = fusion.intervals[name]
        assert low - 0.03 < hidden[name] < high + 0.03


@pytest.mark.parametrize("thresholds", [None, (0.5, 0.5), (1 - CONFIDENT + 1e-6, CONFIDENT)])
@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.3, 0.3, 0.4), (0.5077, 0.4012, 0.0911)])
def test_counting_candidate_voxels_only_is_exact(weights, rule, thresholds):
    truth, views = noise(9), opinions(4)
    case = find_candidates(truth, views, "")
    assert len(case.truth) < truth.array.size
    assert case.others.sum() + len(case.truth) == truth.array.size
    np.testing.assert_array_equal(
        case.confusion(weights, rule, thresholds), whole(truth, views, weights, rule, thresholds)
    )


@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
@pytest.mark.parametrize("corners", [np.eye(3), [(0.6, 0.4, 0.0), (0.4, 0.5, 0.1), (0.5, 0.5, 0.0)]])
def test_counting_voxels_that_differ_within_a_simplex_of_weights_is_exact(corners, rule):
    truth, views = noise(9), opinions(4)
    case = find_candidates(truth, views, "")
    fewer = case.within(np.array(corners), rule)
    assert len(fewer.truth) < len(case.truth)
    for shares in np.random.default_rng(0).dirichlet(np.ones(3), 30):
        weights = tuple(shares @ np.array(corners))
        np.testing.assert_array_equal(fewer.confusion(weights, rule), whole(truth, views, weights, rule))


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", ["linear", "log", "vote"])
def test_no_random_weights_are_better(rule, objective, save):
    """Nor is any view alone, or their mean. The Dice is that of the whole volumes."""
    paths = save(*[(noise(seed), opinions(seed)) for seed in range(2)])
    fusion = fit_weights(paths, objective, rule)
    assert fusion.dice == score(
        sum(whole(noise(s), opinions(s), fusion.weights.values(), rule) for s in range(2)), objective
    )
    assert fusion.dice >= max(*fusion.alone.values(), fusion.equal)
    assert sum(fusion.weights.values()) == pytest.approx(1)
    cases = [load_candidates(path).within(np.eye(3), rule) for path in paths]
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 1000):
        matrix = sum(case.confusion(tuple(weights), rule) for case in cases)
        assert score(matrix, objective) <= fusion.dice + 1e-4


@pytest.mark.slow
def test_the_same_cases_give_the_same_weights(save):
    hidden = dict(zip(VIEWS, (0.5, 0.3, 0.2), strict=True))
    paths = save(*[(*planted(seed, hidden), str(seed)) for seed in range(2)])
    wanted = FusionConfig(per_class=True, thresholds=True)
    assert fit_fusion(paths, wanted) == fit_fusion(paths, wanted)


def test_files_keep_a_case_and_damage_is_noticed(save):
    truth, views = noise(1), opinions(1)
    (path,) = save((truth, views, "a patient"))
    made, read = find_candidates(truth, views, "a patient"), load_candidates(path)
    assert (read.views, read.patient) == (VIEWS, "a patient")
    for name in ("probabilities", "truth", "others"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        assert getattr(read, name).dtype == getattr(made, name).dtype
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"0\.npz"):
        load_candidates(path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases(save, monkeypatch):
    """A case is let go soon after the next one is read."""
    paths, read = save(*[(noise(seed), opinions(seed), str(seed)) for seed in range(5)]), []

    def counted(path: Path) -> CandidateVoxels:
        case = load_candidates(path)
        read.append(weakref.ref(case))
        assert sum(one() is not None for one in read) <= 3
        return case

    monkeypatch.setattr("knee3d.postprocess.fusion_fit.load_candidates", counted)
    fit_fusion(paths, FusionConfig(thresholds=True))
    assert len(read) > len(paths)


def test_equal_views_weigh_equally(save):
    views = dict.fromkeys(VIEWS, opinions(0)["one"])
    fusion = fit_weights(save((decide_labels(views["one"]), views)))
    assert list(fusion.weights.values()) == pytest.approx([1 / 3] * 3)
    assert not fusion.intervals


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_any_number_of_views(count, save):
    views = {str(seed): opinions(seed)["one"] for seed in range(count)}
    fusion = fit_weights(save((decide_labels(views["0"]), views)))
    assert fusion.dice == pytest.approx(1)
    assert fusion.weights["0"] > 0.5


@pytest.mark.parametrize("views", [1, 2, 3, 4, 6, 9, 15])
def test_the_grid_is_bounded_and_has_each_view_alone_and_the_mean(views):
    points = weight_grid(views)
    assert len(points) <= GRID_POINTS + views**2
    assert points.min() >= 0
    np.testing.assert_allclose(points.sum(axis=1), 1)
    for wanted in (*np.eye(views), np.full(views, 1 / views)):
        assert np.abs(points - wanted).max(axis=1).min() < 1e-12


def test_each_tissue_gets_the_view_that_knows_it(save):
    """One view sees tissue 1 and calls all tissue 2 background, another the other way round."""
    rng = np.random.default_rng(0)
    truth = noise(5)
    certain = np.eye(3, dtype=np.float32)[truth.array] * 0.8 + 0.2 / 3

    def blind_for(tissue: int) -> Volume:
        array = certain.copy()
        array[truth.array == tissue] = rng.dirichlet((4, 1, 1), (truth.array == tissue).sum())
        return Volume(array, np.eye(4))

    views = {"one": blind_for(2), "two": blind_for(1)}
    paths = save((truth, views))
    common = fit_weights(paths, "tissues")
    fusion = fit_class_weights(paths, common)
    assert fusion.dice >= common.dice
    labels = decide_labels(blend(views.items(), fusion.weights))
    assert OverlapScores(confusion_matrix(truth.array, labels.array, 3), ("a", "b")).mean_dice > 0.9


def test_thresholds_help_a_timid_network(save):
    """It gives cartilage a third of its probability where there is some, and none elsewhere."""
    truth = noise(1, classes=2)
    array = np.where(truth.array > 0, 0.35, 0.1).astype(np.float32)
    paths = save((truth, {"only": Volume(np.stack([1 - array, array], axis=-1), np.eye(4))}))
    fusion = fit_weights(paths)
    assert fusion.dice == 0
    better = fit_thresholds(paths, fusion)
    assert better.dice == 1
    assert 0.2 <= better.thresholds[0] < 0.35
    assert fit_thresholds(paths, better) == better


def test_thresholds_are_the_best_of_each_tissue(save):
    paths = save(*[(noise(seed), opinions(seed)) for seed in range(2)])
    fusion = fit_thresholds(paths, replace(fit_weights(paths, "tissues"), dice=-1.0))
    for tissue in (1, 2):
        for limit in np.arange(0.21, 0.8, 0.07):
            other = [0.79, 0.79]
            mine, others = (
                score(
                    pooled(
                        paths,
                        fusion.weights.values(),
                        "linear",
                        [value if t == tissue else o for t, o in enumerate(other, 1)],
                    ),
                    tissue,
                )
                for value in (fusion.thresholds[tissue - 1], limit)
            )
            assert mine >= others - 0.01  # the tissues' thresholds meet in a few voxels only


def test_the_papers_weights_can_be_given(save):
    weights = dict(zip(VIEWS, (0.5077, 0.4012, 0.0911), strict=True))
    paths = save((noise(0), opinions(0)))
    fusion = fit_fusion(paths, FusionConfig(weights=weights))
    assert fusion.weights == weights
    assert fusion.dice == score(whole(noise(0), opinions(0), weights.values()), "foreground")
    assert not fusion.intervals
    with pytest.raises(ValueError, match="but views are"):
        fusion_with_given_weights(paths, {"one": 1.0})


def test_what_cannot_be_fitted_is_refused(save):
    views = opinions(0)
    nothing = Volume(np.zeros(SHAPE, np.uint8), np.eye(4))
    sure = {name: Volume(np.eye(3, dtype=np.float32)[nothing.array], np.eye(4)) for name in VIEWS}
    for probabilities in (sure, views):
        with pytest.raises(ValueError, match="no tissue"):
            fit_weights(save((nothing, probabilities)))
    with pytest.raises(ValueError, match="same views"):
        fit_weights(save((nothing, views), (nothing, {"one": views["one"]})))
    with pytest.raises(ValueError, match="same views"):
        fit_weights([])
    with pytest.raises(ValueError, match="not on the grid"):
        find_candidates(Volume(nothing.array, np.diag([2.0, 1, 1, 1])), views, "")
    with pytest.raises(ValueError, match="0 to 2"):
        find_candidates(Volume(nothing.array + np.uint8(3), np.eye(4)), views, "")
    with pytest.raises(ValueError, match="unknown objective"):
        FusionConfig(objective="all")


EDITS = {
    "counts that are NaN": {"others": lambda others: np.full(others.shape, np.nan)},
    "counts below 0": {"others": np.negative},
    "too few counts": {"others": lambda others: others[:2, :2]},
    "probabilities below 0": {"probabilities": np.negative},
    "probabilities above 1": {"probabilities": lambda probabilities: probabilities + 1},
    "probabilities that are NaN": {"probabilities": lambda probabilities: probabilities * np.nan},
    "too few probabilities": {"probabilities": lambda probabilities: probabilities[:, 5:]},
    "too few truths": {"truth": lambda truth: truth[5:]},
    "unknown classes": {"truth": lambda truth: truth + np.uint8(7)},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_arrays_that_do_not_go_together_are_damage(save, edit):
    (path,) = save((noise(1), opinions(1), "a patient"))
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **(arrays | {name: change(arrays[name]) for name, change in edit.items()}))
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .*delete it"):
        load_candidates(path)
