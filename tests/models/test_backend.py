"""Precisions and devices: they agree with the SavedModel, and bfloat16 is chosen where it is faster."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from made_up_models import make_models

from knee3d.geometry.plane import Plane
from knee3d.models import backend

PLANE = Plane.SAGITTAL
SLICES = np.random.default_rng(0).integers(0, 256, (3, 40, 33, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models") / "models", (1, 1, 1), (PLANE,))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_engine_says_what_the_savedmodel_says(models, precision):
    network = backend.load_model(models, PLANE, backend.Backend(precision))
    assert (network.classes, network.context) == (2, 1)
    said = network(SLICES)
    assert (said.dtype, said.shape) == (np.float32, (3, 40, 33, 2))
    saved = tf.saved_model.load(str(models / PLANE.value / "saved_model"))
    expected = saved.serve(tf.constant(SLICES)).numpy()
    np.testing.assert_allclose(said, expected, atol=1e-5 if precision == "float32" else 0.3)
    assert np.mean(said.argmax(axis=-1) == expected.argmax(axis=-1)) > (0.9999 if precision == "float32" else 0.9)
    np.testing.assert_array_equal(network(SLICES), said)


def test_float32_stays_exact_beside_bfloat16(models):
    """The switch to bfloat16 is TensorFlow's and of the whole process: it must be off again."""
    plain = backend.load_model(models, PLANE)
    before = plain(SLICES)
    backend.load_model(models, PLANE, backend.Backend("bfloat16"))(SLICES)
    np.testing.assert_array_equal(plain(SLICES), before)
    assert not tf.config.optimizer.get_experimental_options().get("auto_mixed_precision_onednn_bfloat16", False)


def test_bfloat16_is_taken_where_it_is_faster(monkeypatch):
    for has, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(backend, "has_bfloat16", lambda has=has: has)
        assert backend.choose_backend("auto") == backend.Backend(precision)
    assert backend.choose_backend("float32", "cpu") == backend.Backend(device="CPU:0")


def test_the_processor_answers_the_same_each_time():
    backend.has_bfloat16.cache_clear()
    first = backend.has_bfloat16()
    backend.has_bfloat16.cache_clear()
    assert backend.has_bfloat16() == first


def test_precisions_and_devices_that_are_not_there():
    with pytest.raises(ValueError, match="float32, bfloat16"):
        backend.Backend("float8")
    with pytest.raises(ValueError, match="cpu:0"):
        backend.check_device("gpu:3")
    assert backend.check_device("cpu") == "CPU:0"
    assert backend.check_device(None) is None
