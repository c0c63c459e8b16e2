"""F = wc*C + wa*A + ws*S, and what it decides."""

import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.postprocess.blend import RULES, blend
from knee3d.postprocess.decision import decide_labels, fused_labels

NAMES = [plane.value for plane in Plane]


def opinion(seed: int, dtype: type = np.float32) -> Volume:
    array = np.random.default_rng(seed).dirichlet(np.ones(3), (4, 5, 6))
    return Volume(array.astype(dtype), np.eye(4))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_formula(dtype):
    views = {name: opinion(seed, dtype) for seed, name in enumerate(NAMES)}
    weights = dict(zip(NAMES, (0.5077, 0.4012, 0.0911), strict=True))  # the paper's
    expected = sum(weights[name] * view.array.astype(np.float64) for name, view in views.items())
    mixed = blend(iter(views.items()), weights)
    assert mixed.array.dtype == np.float32
    np.testing.assert_allclose(mixed.array, expected, atol=1e-6)


@given(st.permutations(range(3)))
def test_weights_go_by_name_and_not_by_order(order):
    views = [(name, opinion(seed)) for seed, name in enumerate(NAMES)]
    weights = dict(zip(NAMES, (0.2, 0.3, 0.5), strict=True))
    expected = blend(views, weights)
    np.testing.assert_allclose(blend([views[i] for i in order], weights).array, expected.array, atol=1e-6)


def test_only_one_view_is_held_at_a_time():
    made = []

    def views():
        for seed, name in enumerate(NAMES):
            assert not [reference for reference in made if reference() is not None]
            view = opinion(seed)
            made.append(weakref.ref(view))
            yield name, view
            del view

    blend(views(), dict.fromkeys(NAMES, 1 / 3))
    assert len(made) == 3


@pytest.mark.parametrize("weights", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="add up to 1"):
        blend([("a", opinion(0))], weights)


def test_views_and_weights_must_agree():
    view = opinion(0)
    with pytest.raises(ValueError, match="'b' came"):
        blend([("b", view)], {"a": 1.0})
    with pytest.raises(ValueError, match="'a' came"):
        blend([("a", view), ("a", view)], {"a": 1.0})
    with pytest.raises(ValueError, match="only"):
        blend([("a", view)], {"a": 0.5, "b": 0.5})
    elsewhere = Volume(view.array, np.diag([2.0, 1, 1, 1]))
    with pytest.raises(ValueError, match="grid"):
        blend([("a", view), ("b", elsewhere)], {"a": 0.5, "b": 0.5})


def test_bytes_are_shares_of_255():
    """A view saved in a byte for each class says the same, within half a step."""
    view = opinion(0)
    coarse = view.with_array(np.rint(255 * view.array).astype(np.uint8))
    np.testing.assert_allclose(blend([("a", coarse)], {"a": 1}).array, view.array, atol=0.5 / 255 + 1e-6)
    sure = Volume(np.array([[[[0, 255]]]], np.uint8), np.eye(4))
    assert blend([("a", sure)], {"a": 1}).array.ravel().tolist() == [0, 1]


def test_views_may_lie_in_files(tmp_path):
    views = {name: opinion(seed) for seed, name in enumerate(NAMES)}
    weights = dict(zip(NAMES, (0.2, 0.3, 0.5), strict=True))
    mapped = {}
    for name, view in views.items():
        np.save(tmp_path / f"{name}.npy", view.array)
        mapped[name] = view.with_array(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    np.testing.assert_array_equal(blend(mapped.items(), weights).array, blend(views.items(), weights).array)
    np.testing.assert_array_equal(fused_labels(mapped, weights).array, fused_labels(views, weights).array)


def test_a_weight_for_each_class():
    """Each class has its own F = wc*C + wa*A + ws*S; what comes out adds up to 1 again."""
    views = {name: opinion(seed) for seed, name in enumerate(NAMES)}
    columns = np.random.default_rng(5).dirichlet(np.ones(3), 3).T  # (views, classes), each class adds up to 1
    total = sum(row * view.array.astype(np.float64) for row, view in zip(columns, views.values(), strict=True))
    expected = total / total.sum(axis=-1, keepdims=True)
    weights = dict(zip(NAMES, map(tuple, columns.tolist()), strict=True))
    np.testing.assert_allclose(blend(views.items(), weights).array, expected, atol=1e-6)
    same = {name: (weight,) * 3 for name, weight in zip(NAMES, (0.2, 0.3, 0.5), strict=True)}
    plain = {name: weight[0] for name, weight in same.items()}
    np.testing.assert_allclose(blend(views.items(), same).array, blend(views.items(), plain).array, atol=1e-6)
    with pytest.raises(ValueError, match="one weight for each class"):
        blend(views.items(), weights | {NAMES[0]: (0.5, 0.5)})


def test_the_logarithmic_pool_is_a_geometric_mean():
    views = {name: opinion(seed) for seed, name in enumerate(NAMES)}
    weights = dict(zip(NAMES, (0.2, 0.3, 0.5), strict=True))
    product = np.prod([np.maximum(view.array, 1e-6) ** weights[name] for name, view in views.items()], axis=0)
    expected = product / product.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(blend(views.items(), weights, "log").array, expected, atol=1e-6)


def test_no_view_can_veto_alone():
    sure, unsure = (Volume(np.array([[[[p, 1 - p]]]], np.float32), np.eye(4)) for p in (0.0, 0.999))
    fused = blend({"a": sure, "b": unsure, "c": unsure}.items(), dict.fromkeys("abc", 1 / 3), "log").array
    assert np.isfinite(fused).all()
    assert fused[0, 0, 0, 0] > 0.2


def test_the_majority_wins_a_vote_and_of_equals_the_lower_class():
    def says(*labels: int) -> Volume:
        return Volume(np.eye(3, dtype=np.float32)[list(labels)].reshape(1, 1, -1, 3), np.eye(4))

    views = {"a": says(1, 2, 0, 0), "b": says(1, 1, 2, 1), "c": says(2, 1, 2, 2)}
    fused = blend(views.items(), dict.fromkeys("abc", 1 / 3), "vote")
    np.testing.assert_allclose(fused.array[0, 0, 0], [0, 2 / 3, 1 / 3], atol=1e-6)
    assert decide_labels(fused).array.ravel().tolist() == [1, 1, 2, 0]


@given(
    st.sampled_from(sorted(RULES)),
    st.integers(1, 7),
    st.sampled_from([np.float16, np.float32, np.uint8]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_streamed_or_in_memory_the_labels_are_the_same(rule, count, dtype, per_class, limited, seed):
    """However many views there are."""
    rng = np.random.default_rng(seed)
    arrays = rng.dirichlet(np.ones(4), (count, 6, 7, 8))
    arrays = np.rint(255 * arrays).astype(dtype) if dtype is np.uint8 else arrays.astype(dtype)
    views = {f"view {i}": Volume(array, np.eye(4)) for i, array in enumerate(arrays)}
    shares = rng.dirichlet(np.ones(count), 4 if per_class else 1).T
    weights = {name: tuple(row) if per_class else row[0] for name, row in zip(views, shares.tolist(), strict=True)}
    limits = (0.3, 0.4, 0.5) if limited else None
    expected = decide_labels(blend(iter(views.items()), weights, rule), limits)
    np.testing.assert_array_equal(fused_labels(views, weights, rule, limits).array, expected.array)


@given(st.permutations([1, 2]))
def test_relabelling_the_classes_relabels_what_is_decided(order):
    views = {name: opinion(seed) for seed, name in enumerate(NAMES)}
    weights = dict.fromkeys(NAMES, 1 / 3)
    order = [0, *order]
    turned = {name: view.with_array(view.array[..., order]) for name, view in views.items()}
    expected = np.argsort(order)[fused_labels(views, weights).array]
    np.testing.assert_array_equal(fused_labels(turned, weights).array, expected)


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(ValueError, match="unknown rule 'mean'.*linear, log"):
        blend([("a", opinion(0))], {"a": 1}, "mean")


def test_in_memory_views_and_weights_must_agree_too():
    with pytest.raises(ValueError, match="views are"):
        fused_labels({"a": opinion(0)}, {"a": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="no last axis of classes"):
        fused_labels({"a": opinion(0).with_array(np.zeros((4, 5, 6)))}, {"a": 1})
    smaller = Volume(opinion(0).array[:, :, :5], np.eye(4))
    with pytest.raises(ValueError, match="grid"):
        fused_labels({"a": opinion(0), "b": smaller}, {"a": 1, "b": 0})


def test_what_is_no_probability_is_noticed():
    """Logits would make labels that look right."""
    logits = opinion(0).with_array(np.random.default_rng(0).normal(0, 3, (4, 5, 6, 3)).astype(np.float32))
    for work in (lambda: fused_labels({"a": logits}, {"a": 1}), lambda: blend([("a", logits)], {"a": 1})):
        with pytest.raises(ValueError, match="'a' do not add up to 1"):
            work()


def test_thresholds_replace_the_largest():
    """Of the tissues above theirs the one that is most times its threshold; otherwise background."""
    rows = [[0.6, 0.3, 0.1], [0.1, 0.45, 0.45], [0.2, 0.2, 0.6], [0.98, 0.01, 0.01]]
    volume = Volume(np.array(rows, np.float32).reshape(1, 1, 4, 3), np.eye(4))
    assert decide_labels(volume, (0.25, 0.5)).array.ravel().tolist() == [1, 1, 2, 0]
    for limits in [(0.5,), (0.5, 0.0), (0.5, 1.0), (0.5, float("nan"))]:
        with pytest.raises(ValueError, match="2 tissues need a threshold each"):
            decide_labels(volume, limits)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_decided(value):
    array = opinion(0).array.copy()
    array[1, 2, 3, 1] = value
    for limits in (None, (0.5, 0.5)):
        with pytest.raises(ValueError, match="not finite"):
            decide_labels(Volume(array, np.eye(4)), limits)


def test_the_most_probable_class_wins_and_doubt_is_background():
    array = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.5, 0.5, 0.0]]).reshape(1, 1, 3, 3)
    labels = decide_labels(Volume(array, np.eye(4)))
    assert labels.array.dtype == np.uint8
    assert labels.array.ravel().tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="classes"):
        decide_labels(labels)


def test_an_ensemble_refuses_weights_for_other_planes():
    class Network:
        classes, context = 2, 0

    views = {plane.value: PlaneView(plane, Network()) for plane in (Plane.AXIAL, Plane.CORONAL)}
    halves = dict.fromkeys(views, 0.5)
    Ensemble(views, halves)
    with pytest.raises(ValueError, match="networks are for"):
        Ensemble(views, {Plane.AXIAL.value: 1.0})
    Network.classes, odd = 2, Network()
    odd.classes = 3
    with pytest.raises(ValueError, match="number of classes"):
        Ensemble(views | {Plane.CORONAL.value: PlaneView(Plane.CORONAL, odd)}, halves)


def test_beyond_its_inputs_fusion_takes_one_accumulator_or_none():
    """Of arrays, at any moment: a view at a time 1.3 accumulators at most; with all views at hand 0.3 of one."""
    rng = np.random.default_rng(0)
    tissue = rng.random((160, 160, 160, 4), dtype=np.float32) * 0.2
    tissue[..., 0] = 1 - tissue[..., 1:].sum(axis=-1)
    views = {name: Volume(tissue, np.eye(4)) for name in NAMES}
    weights = dict.fromkeys(NAMES, 1 / 3)

    def peak(work) -> float:
        tracemalloc.start()
        work()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / tissue.nbytes

    assert 1 < peak(lambda: decide_labels(blend(views.items(), weights))) < 1.3
    assert peak(lambda: fused_labels(views, weights)) < 0.3
