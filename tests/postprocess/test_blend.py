"""F = wc*C + wa*A + ws*S, and what it decides."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.volume import Volume
from knee3d.postprocess.blend import blend
from knee3d.postprocess.decide import decide
from knee3d.postprocess.ensemble import Ensemble

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


def test_the_most_probable_class_wins_and_doubt_is_background():
    array = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.5, 0.5, 0.0]]).reshape(1, 1, 3, 3)
    labels = decide(Volume(array, np.eye(4)))
    assert labels.array.dtype == np.uint8
    assert labels.array.ravel().tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="classes"):
        decide(labels)


def test_an_ensemble_refuses_weights_for_other_planes():
    class Network:
        classes, context = 2, 0

    predictors = {Plane.AXIAL: Network(), Plane.CORONAL: Network()}
    Ensemble(predictors, {Plane.AXIAL.value: 0.5, Plane.CORONAL.value: 0.5})
    with pytest.raises(ValueError, match="networks are for"):
        Ensemble(predictors, {Plane.AXIAL.value: 1.0})
    Network.classes, odd = 2, Network()
    odd.classes = 3
    with pytest.raises(ValueError, match="number of classes"):
        Ensemble({Plane.AXIAL: Network(), Plane.CORONAL: odd}, {Plane.AXIAL.value: 0.5, Plane.CORONAL.value: 0.5})
