"""What is exported says what the network says, in every way that it is loaded."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from jsonschema import Draft202012Validator
from made_up_models import made_up_card, make_network
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tiny_network import TINY

from knee3d.inference.prediction import stack_neighbours
from knee3d.models import backend, saved_model
from knee3d.models.known_patients import hash_patients
from knee3d.models.model_card import NamesBySplit, SavedModelDescription, saved_model_description
from knee3d.networks import architecture


def small_network(context: int, classes: int = 3):
    """A network of any-size slices that is exported in a second."""
    keras.utils.set_random_seed(1)
    slices = keras.Input((None, None, 2 * context + 1), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 64)(slices)
    scores = keras.layers.Conv2D(classes, 3, padding="same")(pixels)
    return keras.Model(slices, keras.layers.Softmax()(scores))


DESCRIPTION = saved_model_description(made_up_card("axial", (0.5, 0.5, 0.5), "compartments"))


@pytest.fixture(scope="module", params=[0, 1, 2])
def exported(request, tmp_path_factory):
    """(context, network, folder of its SavedModel)."""
    folder = tmp_path_factory.mktemp("exported") / "saved_model"
    network = small_network(request.param)
    assert saved_model.export_saved_model(network, folder, DESCRIPTION) < saved_model.PARITY
    return request.param, network, folder


STACK = np.random.default_rng(0).integers(0, 256, (19, 21, 18), dtype=np.uint8)


def test_every_signature_gives_the_networks_answer(exported):
    context, network, folder = exported
    loaded = tf.saved_model.load(str(folder))
    slices = stack_neighbours(STACK, range(len(STACK)), context)
    expected = np.asarray(network(slices))
    np.testing.assert_allclose(loaded.serve(tf.constant(slices)), expected, atol=1e-5)
    np.testing.assert_allclose(loaded.volume(tf.constant(STACK)), expected, atol=1e-5)
    labels = loaded.labels(tf.constant(slices)).numpy()
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected.argmax(axis=-1))
    assert set(loaded.signatures) == {"serve", "serving_default", "labels", "volume", "about"}
    (default,) = loaded.signatures["serving_default"](slices=tf.constant(slices)).values()
    np.testing.assert_allclose(default, expected, atol=1e-5)
    (one,) = loaded.signatures["volume"](stack=tf.constant(STACK[:1])).values()
    assert one.shape == (1, 21, 18, 3)


def test_keras_takes_it_as_a_layer(exported):
    context, network, folder = exported
    slices = stack_neighbours(STACK, range(4), context)
    layer = keras.layers.TFSMLayer(str(folder), call_endpoint="serve")
    np.testing.assert_allclose(np.asarray(layer(slices)), np.asarray(network(slices)), atol=1e-5)


def test_it_says_itself_what_it_is(exported):
    _, _, folder = exported
    text = (folder / "assets.extra" / "knee3d.json").read_text()
    assert SavedModelDescription.from_json(text) == DESCRIPTION
    Draft202012Validator(SavedModelDescription.json_schema()).validate(json.loads(text))


def test_the_request_of_the_documentation_fits_what_serving_reads(exported):
    """As TensorFlow Serving does with REST: the signature's own types, and a list for each input by its name."""
    context, network, folder = exported
    slices = stack_neighbours(STACK, range(2), context)
    page = (Path(__file__).parents[2] / "models" / "README.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("content = json.dumps(")]
    request = json.loads(eval(line.removeprefix("content = "), {"json": json, "slices": slices}))
    described = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
    signature = described[request["signature_name"]]
    assert signature.method_name == "tensorflow/serving/predict"
    assert set(request["inputs"]) == set(signature.inputs)
    assert described["labels"].method_name == "tensorflow/serving/predict"
    given = {
        name: tf.constant(value, tf.as_dtype(signature.inputs[name].dtype)) for name, value in request["inputs"].items()
    }
    loaded = tf.saved_model.load(str(folder))
    answer = loaded.signatures[request["signature_name"]](**given)
    assert len(answer) == len(signature.outputs) == 1  # Serving then leaves its name out of "outputs"
    np.testing.assert_allclose(next(iter(answer.values())), np.asarray(network(slices)), atol=1e-5)


@pytest.mark.nightly
def test_the_command_line_tool_of_tensorflow_shows_its_signatures(exported):
    context, _, folder = exported
    tool = Path(sys.executable).parent / "saved_model_cli"
    command = [tool, "show", "--dir", str(folder), "--tag_set", "serve", "--all"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("serve", "serving_default", "labels", "volume"):
        assert f"signature_def['{name}']" in shown
    assert f"(-1, -1, -1, {2 * context + 1})" in shown
    assert "DT_UINT8" in shown


def test_a_savedmodel_that_says_something_else_is_refused(exported, monkeypatch, tmp_path):
    _, network, _ = exported
    monkeypatch.setattr(saved_model, "PARITY", -1.0)
    with pytest.raises(RuntimeError, match="differs from the network by"):
        saved_model.export_saved_model(network, tmp_path / "other", DESCRIPTION)


@keras.saving.register_keras_serializable("tests")
class RoundsAsTF32(keras.layers.Layer):
    """Off by 1.2e-3 where a GPU with TF32 would compute at once, and not in a graph."""

    def call(self, scores):
        rounding = tf.executing_eagerly() and tf.config.experimental.tensor_float_32_execution_enabled()
        return scores + (1.2e-3 if rounding else 0.0)


def test_a_gpu_that_rounds_in_its_own_way_fails_no_export(tmp_path):
    """TF32 is as it was afterwards; and off for an engine of float32 alone."""
    slices = keras.Input((None, None, 3), dtype="uint8")
    scores = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Rescaling(1 / 64)(slices))
    network = keras.Model(slices, RoundsAsTF32()(keras.layers.Softmax()(scores)))
    tf.config.experimental.enable_tensor_float_32_execution(True)
    assert saved_model.export_saved_model(network, tmp_path / "saved_model", DESCRIPTION) < saved_model.PARITY
    assert tf.config.experimental.tensor_float_32_execution_enabled()
    seen = []

    class Loaded:
        def serve(self, slices):
            seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
            return tf.zeros((1,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "load_saved_model", lambda folder: Loaded())
        for precision in backend.PRECISIONS:
            backend._computed(tmp_path, backend.Backend(precision))(np.zeros((1, 2, 2, 3), np.uint8))
    assert dict(zip(backend.PRECISIONS, seen, strict=True)) == {"float32": False, "bfloat16": True}


def test_an_export_leaves_the_root_logger_as_it_was(tmp_path, monkeypatch):
    """TensorFlow would set it up, and what the user sets up afterwards would have no effect."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    make_network(tmp_path, "axial", (1, 1, 1), "cartilage", 170.0)
    assert logging.getLogger().handlers == []


def test_a_stack_of_no_slices_is_refused_in_words(exported):
    loaded = tf.saved_model.load(str(exported[2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a stack needs at least one slice"):
        loaded.volume(tf.zeros((0, 21, 18), tf.uint8))


C_API = """
import ctypes, json, sys
import numpy as np
folder, names, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
tf = ctypes.CDLL(sys.argv[4])
for name in ("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel", "TF_AllocateTensor",
             "TF_GraphOperationByName", "TF_TensorData", "TF_Message"):
    getattr(tf, name).restype = ctypes.c_void_p

class Output(ctypes.Structure):
    _fields_ = [("oper", ctypes.c_void_p), ("index", ctypes.c_int)]

def pointer(value):
    return ctypes.c_void_p(value)

def check():
    assert tf.TF_GetCode(pointer(status)) == 0, ctypes.string_at(tf.TF_Message(pointer(status)))

status, graph, options = tf.TF_NewStatus(), tf.TF_NewGraph(), tf.TF_NewSessionOptions()
tags = (ctypes.c_char_p * 1)(b"serve")
session = tf.TF_LoadSessionFromSavedModel(pointer(options), None, folder.encode(), tags, 1, pointer(graph), None,
                                          pointer(status))
check()

def end(name):
    operation, index = name.split(":")
    return Output(tf.TF_GraphOperationByName(pointer(graph), operation.encode()), int(index))

slices = np.random.default_rng(0).integers(0, 256, (2, 21, 18, 3), dtype=np.uint8)
shape = (ctypes.c_int64 * 4)(*slices.shape)
given = tf.TF_AllocateTensor(4, shape, 4, ctypes.c_size_t(slices.nbytes))  # 4 is TF_UINT8
ctypes.memmove(tf.TF_TensorData(pointer(given)), slices.ctypes.data, slices.nbytes)
answer = (ctypes.c_void_p * 1)()
tf.TF_SessionRun(pointer(session), None, (Output * 1)(end(names["input"])), (ctypes.c_void_p * 1)(given), 1,
                 (Output * 1)(end(names["output"])), answer, 1, None, 0, None, pointer(status))
check()
tf.TF_Dim.restype, tf.TF_TensorByteSize.restype = ctypes.c_int64, ctypes.c_size_t
sizes = [tf.TF_Dim(pointer(answer[0]), axis) for axis in range(4)]
content = ctypes.string_at(tf.TF_TensorData(pointer(answer[0])), tf.TF_TensorByteSize(pointer(answer[0])))
np.savez(out, slices=slices, found=np.frombuffer(content, np.float32).reshape(sizes))
assert not {"tensorflow", "keras", "knee3d"} & set(sys.modules)
"""


@pytest.mark.slow
def test_the_c_api_computes_it_without_any_python_of_ours(tmp_path):
    """As a program in C, Go or Rust would; the wheel of TensorFlow has the library."""
    network = small_network(1)
    saved_model.export_saved_model(network, tmp_path / "saved_model", DESCRIPTION)
    content = SavedModel()
    content.ParseFromString((tmp_path / "saved_model" / "saved_model.pb").read_bytes())
    signature = content.meta_graphs[0].signature_def["serving_default"]
    (given,), (told,) = signature.inputs.values(), signature.outputs.values()
    names = json.dumps({"input": given.name, "output": told.name})
    place = Path(tf.sysconfig.get_lib())
    library = next(place.glob("libtensorflow_cc.so*"))
    path = {"LD_LIBRARY_PATH": str(place), "TF_CPP_MIN_LOG_LEVEL": "3"}
    words = [sys.executable, "-c", C_API, str(tmp_path / "saved_model"), names, str(tmp_path / "out.npz"), str(library)]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | path)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["found"], np.asarray(network(out["slices"])), atol=saved_model.PARITY)


def test_it_tells_about_itself_to_whoever_asks(tmp_path):
    """By plain TensorFlow; counts, and no names of cases or patients."""
    card = made_up_card(
        "axial",
        (0.3, 0.3, 0.7),
        "compartments",
        cases=NamesBySplit(("secret-1", "secret-2"), ("secret-3",)),
        patients=NamesBySplit(("hidden",), ("hidden too",)),
        inherited=(hash_patients("secret key", ["hidden a", "hidden b"], []),),
    )
    saved_model.export_saved_model(small_network(1), tmp_path / "saved_model", saved_model_description(card))
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
    text = loaded.about().numpy().decode()
    told = json.loads(text)
    assert told["slice_axes"] == {"slices": "inferior", "height": "posterior", "width": "left"}
    assert told["channels"] == [-1, 0, 1]
    assert told["colours"][0] == "#000000"
    assert len(set(told["colours"])) == 4
    assert told["trained_on"] == {"cases": {"train": 2, "val": 1}, "patients": {"train": 3, "val": 1}}
    assert told["scores"] == {"val_dice": 0.5}
    assert "secret" not in text
    assert "hidden" not in text
    (again,) = loaded.signatures["about"]().values()
    assert again.numpy().decode() == text


@pytest.mark.parametrize(
    "name", [TINY, *(pytest.param(name, marks=pytest.mark.nightly) for name in ("unet", "pspnet"))]
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite:UserWarning")
def test_converters_read_it(tmp_path, name):
    """LiteRT's is the one that knows the fewest operations; Keras' own upsampling it does not read."""
    network = architecture.build_network(name, 4)
    saved_model.export_saved_model(network, tmp_path / "saved_model", DESCRIPTION)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(tmp_path / "saved_model"), signature_keys=["serving_default"]
    )
    run = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner("serving_default")
    slices = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    (found,) = run(slices=slices).values()
    np.testing.assert_allclose(found, np.asarray(network(slices)), atol=1e-4)
