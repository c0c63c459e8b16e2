"""A trained plane says the same in ONNX Runtime."""

import gc
import json
import shutil
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from made_up_models import made_up_card
from tiny_network import TINY

from knee3d.cli import main
from knee3d.geometry.plane import Plane
from knee3d.labels.scheme_files import scheme_from_json
from knee3d.models import onnx_export
from knee3d.networks import architecture

PLANE = Plane.CORONAL


@pytest.fixture(scope="module", params=[1, 2])
def models(request, tmp_path_factory):
    """An untrained plane, as `train_view` would leave it."""
    folder = tmp_path_factory.mktemp("models") / PLANE.value
    folder.mkdir()
    architecture.build_network(TINY, 3, request.param).save(folder / "model.keras")
    scheme = scheme_from_json({"name": "two", "tissues": [{"name": "femoral"}, {"name": "tibial"}]})
    classes = ("background", *scheme.names)
    card = replace(made_up_card(PLANE.value, (1, 1, 1), "cartilage"), scheme=scheme, class_names=classes)
    replace(card, settings={"context": request.param}).write(folder / "card.json")
    return folder.parent


def test_copies_that_a_converter_leaves_are_gone_early(models, tmp_path, monkeypatch):
    class Copy:
        def __init__(self):
            self.itself, self.nodes = self, [[] for _ in range(2000)]

    alive, most = weakref.WeakSet(), []

    def convert(self, path, format, verbose):
        for _ in range(100):
            alive.add(Copy())
            most.append(len(alive))
        Path(path).write_text("model")

    before = gc.get_threshold(), gc.get_freeze_count()
    monkeypatch.setattr(keras.Model, "export", convert)
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *what: 0.0)
    monkeypatch.setattr(onnx_export, "PACKAGES", ())
    monkeypatch.setattr(onnx_export, "load_onnx", lambda path: None)
    onnx_export.export_onnx(models, PLANE, tmp_path / "out")
    assert len(most) == 100
    assert max(most) < 20
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


@pytest.mark.slow
def test_onnx_says_what_the_network_says(models, tmp_path):
    for package in onnx_export.PACKAGES:
        pytest.importorskip(package, reason=f"{package} is an extra and is not installed")
    run = CliRunner().invoke(main, ["export", str(models), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    folder = tmp_path / "out" / PLANE.value
    assert str(folder) in run.output
    model = keras.models.load_model(models / PLANE.value / "model.keras")
    runtime = onnx_export.load_onnx(folder / onnx_export.MODEL)
    slices = np.random.default_rng(3).integers(0, 256, (3, 33, 70, model.input_shape[-1]), dtype=np.uint8)
    difference = np.abs(runtime(slices) - np.asarray(model(slices)))
    assert difference.shape == (3, 33, 70, 3)
    assert difference.max() < onnx_export.ONNX_PARITY
    assert json.loads((folder / "knee3d.json").read_text())["class_names"] == ["background", "femoral", "tibial"]
    import onnxruntime

    told = onnxruntime.InferenceSession(folder / onnx_export.MODEL).get_modelmeta().custom_metadata_map["knee3d"]
    assert json.loads(told) == json.loads((folder / "knee3d.json").read_text())


def test_a_difference_is_an_error_and_leaves_nothing(models, tmp_path, monkeypatch):
    def wrong(path):
        return lambda slices: np.zeros((*slices.shape[:3], 3), np.float32)

    monkeypatch.setattr(onnx_export, "PACKAGES", ())
    monkeypatch.setattr(onnx_export, "load_onnx", wrong)
    monkeypatch.setattr(keras.Model, "export", lambda self, path, format, verbose: Path(path).write_text("model"))
    (tmp_path / PLANE.value).mkdir()
    (tmp_path / PLANE.value / "old").write_text("stays")
    run = CliRunner().invoke(main, ["export", str(models), "--out", str(tmp_path)])
    assert run.exit_code == 1
    assert "differs from the network by" in run.output
    assert [path.name for path in (tmp_path / PLANE.value).iterdir()] == ["old"]


def test_a_network_that_fails_does_not_stop_the_others(models, tmp_path, monkeypatch):
    network = keras.models.load_model(models / PLANE.value / "model.keras")
    monkeypatch.setattr(onnx_export, "PACKAGES", ())
    monkeypatch.setattr(onnx_export, "load_onnx", lambda path: lambda slices: np.asarray(network(slices)))
    monkeypatch.setattr(keras.Model, "export", lambda self, path, format, verbose: Path(path).write_text("model"))
    shutil.copytree(models, tmp_path / "models")
    broken = tmp_path / "models" / Plane.AXIAL.value
    shutil.copytree(models / PLANE.value, broken)
    (broken / "model.keras").write_text("none")
    words = ["export", str(tmp_path / "models"), "--out", str(tmp_path / "out")]
    run = CliRunner().invoke(main, words)
    assert run.exit_code == 1
    assert str(broken) in run.output.splitlines()[-1]
    assert f"{tmp_path / 'out' / PLANE.value}   differs from the network by" in run.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == [PLANE.value]


def test_what_is_missing_is_named(models, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    run = CliRunner().invoke(main, ["export", str(models), "--out", str(tmp_path)])
    assert run.exit_code == 1
    assert "pip install 'knee3d[onnx]'" in run.output
    run = CliRunner().invoke(main, ["export", str(tmp_path), "--out", str(tmp_path)])
    assert run.exit_code == 1
    assert "holds no trained plane" in run.output
