"""What `import knee3d` gives: the ten-line journey, the Keras example, few names, few frames."""

import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
import traceback
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from made_up_models import make_models

import knee3d
from knee3d.cli import main
from knee3d.cli.training import train as train_command
from knee3d.models.backend import LoadedModel

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "journey.py"
MOST_FRAMES = 9


@pytest.fixture(scope="module")
def place(made_once) -> Path:
    """cohort/ of four knees, dataset/ of them, and models/ that suit them."""

    def make(folder: Path) -> None:
        table = knee3d.make_phantom(folder / "cohort", knees=4, shape=(40, 38, 36), seed=3)
        data = knee3d.prepare(table, folder / "dataset", split=(0.5, 0.25, 0.25))
        spacing = data.cases[0].spacing_mm.tolist()
        make_models(folder / "models", tuple(spacing))

    return made_once("public-api", make)


@pytest.fixture(scope="module")
def example():
    """The example of the documentation as a module."""
    found = importlib.util.spec_from_file_location("journey", EXAMPLE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_names_are_about_twenty_and_none_is_a_package():
    modules = {name for _, name, _ in pkgutil.iter_modules(knee3d.__path__)}
    assert 18 <= len(knee3d.__all__) <= 22
    assert not modules & set(knee3d.__all__)
    assert sorted(knee3d.__all__) == sorted(set(knee3d.__all__))
    for name in knee3d.__all__:
        assert getattr(knee3d, name).__doc__, name
        assert name in dir(knee3d)
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = knee3d.load


def test_import_is_quick_and_brings_no_framework():
    program = "import sys, knee3d; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tensorflow", "keras", "vtk", "pandas", "numpy", "scipy", "pydicom", "SimpleITK"} & set(loaded)


def test_the_ten_lines_run_as_they_are_written(example, tiny, tmp_path, capsys):
    table = knee3d.make_phantom(tmp_path / "cohort", knees=5, shape=(32, 32, 32), seed=1)
    config = knee3d.TrainConfig().with_options(
        network=tiny, encoder_weights="none", epochs=1, batch_size=4, learning_rate=1e-2, limit_slices=32
    )
    frame = example.journey(table, tmp_path, config)
    assert list(frame.columns) == ["case", "tissue", "region", "measure", "unit", "value"]
    assert "Dice, all cases pooled" in capsys.readouterr().out
    labels = knee3d.read(tmp_path / "labels.nii.gz")
    data = knee3d.Dataset.load(tmp_path / "dataset")
    image = knee3d.read(tmp_path / "cohort" / data.test.cases[0].name / "dicom")
    assert labels.same_grid(image)
    assert (tmp_path / "report.html").stat().st_size > 1e6
    voxels = {name: np.count_nonzero(labels.array == number) for number, name in enumerate(data.scheme.names, start=1)}
    volumes = frame[(frame.measure == "volume") & (frame.region == "whole")].set_index("tissue").value
    for name, mm3 in volumes.items():
        assert mm3 == pytest.approx(voxels[name] * labels.voxel_mm3)
    model = knee3d.train(data, tmp_path / "models", config=config)  # there already: nothing is trained
    assert model.view_names == tuple(sorted(plane.value for plane in knee3d.Plane))
    assert sum(model.weights.values()) == pytest.approx(1)


@pytest.mark.nightly  # a U-Net of full size; tests/networks has one of the parts together in the stage before
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed")  # Keras says so of every tf.data.Dataset
def test_the_parts_work_in_a_training_of_ones_own(place, tmp_path):
    data = knee3d.Dataset.load(place / "dataset")
    slices = data.slices("sagittal", split="train", batch_size=8)
    unet = knee3d.networks.unet(classes=data.scheme.classes, encoder="vgg16", weights=None)
    augment = knee3d.networks.Augmentation("medium", seed=1)
    unet.compile(
        "adam", loss=knee3d.losses.SoftDice(), metrics=[knee3d.metrics.Dice(classes=data.scheme.classes)]
    )  # fmt: skip
    history = unet.fit(
        slices.take(2).map(augment),
        validation_data=data.slices("sagittal", split="val", batch_size=8).take(1),
        callbacks=[keras.callbacks.ReduceLROnPlateau(), keras.callbacks.TensorBoard(tmp_path / "logs")],
        verbose=0,
    )
    assert 0 <= history.history["dice"][0] <= 1
    assert np.isfinite(history.history["val_loss"][0])


def test_slices_are_those_on_disk_and_shuffled_anew(place):
    data = knee3d.Dataset.load(place / "dataset")
    images, masks = next(iter(data.slices("axial", split="val", batch_size=3, context=2)))
    (case,) = data.val.cases
    np.testing.assert_array_equal(images.numpy()[..., 2], data.image(case).array[:3])
    np.testing.assert_array_equal(masks.numpy(), data.mask(case).array[:3])
    assert images.shape[-1] == 5
    train = data.slices("axial", batch_size=100, seed=4)
    first, second = ([batch[0].numpy() for batch in train] for _ in range(2))
    assert len(first) == len(train)
    assert any(not np.array_equal(one, two) for one, two in zip(first, second, strict=True))
    assert sum(map(np.sum, first), 0.0) == sum(map(np.sum, second), 0.0)  # the same slices in another order
    with pytest.raises(ValueError, match="unknown plane 'sagital'; there are: "):
        data.slices("sagital")


def test_things_say_what_they_are(place, caplog):
    data = knee3d.Dataset.load(place / "dataset")
    assert repr(data).endswith("cartilage: cartilage)")
    assert f"{len(data.train)} train" in repr(data)
    frame = data.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(data)
    model = knee3d.KneeModel.load(place / "models", precision="float32")
    assert repr(model) == f"KneeModel('{place / 'models'}', axial + coronal + sagittal, cartilage: cartilage)"
    image = knee3d.read(place / "cohort" / "P002-baseline" / "dicom")
    assert repr(image).startswith("KneeImage('P002-baseline', left, 38 x 40 x 36 voxels of ")
    result = model.segment(image)
    assert repr(result).startswith("Segmentation('P002-baseline', cartilage: cartilage ")
    page = result._repr_html_()
    assert "data:image/png;base64," in page
    assert "mm³" in page
    found = result.measure()
    assert repr(found) == "Measurements('P002-baseline', 2 numbers of cartilage)"
    assert "partial_volume" in found._repr_html_()
    assert json.loads(found.to_json())["measures"][0]["value"] == result.volumes_mm3["cartilage"]
    with pytest.raises(ValueError, match="a report is an HTML page: name a file such as .*report.html"):
        result.make_report("report.pdf")
    model.evaluate(data.train, surfaces=False)
    assert "these are the training knees" in caplog.text
    scores = model.evaluate(data.test, surfaces=False)
    assert repr(scores).startswith("Evaluation(test, 1 case, fused Dice: cartilage ")
    assert {"pooled", "mean"} <= set(scores.to_frame().case)
    assert "fused" in scores._repr_html_()


def test_fitted_weights_are_used_at_once(place, tmp_path):
    models = make_models(tmp_path / "models", tuple(knee3d.Dataset.load(place / "dataset").cases[0].spacing_mm))
    model = knee3d.KneeModel.load(models)
    equal = dict(model.weights)
    given = {view: share for view, share in zip(equal, (0.5, 0.25, 0.25), strict=True)}
    model.fit_fusion(place / "dataset", weights=given)
    assert model.weights == given != equal


def test_what_the_command_refuses_python_refuses_in_the_same_words(place, tmp_path):
    refused = {
        ("--loss", "dise"): {"loss": "dise"},
        ("--epochs", "0"): {"epochs": 0},
        ("--network", "unet3d", "--encoder", "vgg16"): {"network": "unet3d", "encoder": "vgg16"},
        ("--patch", "32,32,32"): {"patch": (32, 32, 32)},
        ("--directions", "3"): {"directions": 3},
    }
    for words, options in refused.items():
        command = [str(place / "dataset"), "--plane", "axial", "--models", str(tmp_path / "models"), *words]
        said = CliRunner().invoke(train_command, command)
        assert said.exit_code != 0, words
        with pytest.raises(ValueError, match=r".") as error:
            knee3d.train(
                place / "dataset", tmp_path / "models", planes="axial",
                config=knee3d.TrainConfig().with_options(**options),
            )  # fmt: skip
        if "Usage" not in said.output:  # click's own checks of numbers and choices come first
            assert str(error.value) in said.output
    assert not (tmp_path / "models").exists()


def test_a_training_writes_settings_that_the_next_one_takes(balls, tmp_path, monkeypatch):
    """The next one is interrupted when it has written its own."""

    def stop(*args):
        raise KeyboardInterrupt

    common = ["--plane", "axial", "--network", "tiny_network:alone", "--encoder-weights", "none", "--limit-slices", "8"]
    words = [str(balls.folder), *common, "--epochs", "1", "--batch-size", "4", "--models"]
    first = CliRunner().invoke(train_command, [*words, str(tmp_path / "first")])
    assert first.exit_code == 0, first.output
    written = tmp_path / "first" / "axial" / "train.toml"
    assert tomllib.loads(written.read_text())["schedule"]["epochs"] == 1
    again = [str(balls.folder), "--plane", "axial", "--config", str(written), "--models", str(tmp_path / "again")]
    monkeypatch.setattr("knee3d.training.train_view.fit_network", stop)
    second = CliRunner().invoke(train_command, [*again, "--batch-size", "2"])
    assert second.exit_code == 130, second.output
    config = knee3d.TrainConfig.from_toml(tmp_path / "again" / "axial.training" / "train.toml")
    assert config == knee3d.TrainConfig.from_toml(written).with_options(batch_size=2)
    (tmp_path / "bad.toml").write_text("[schedule]\nepoch = 3\n")
    refused = CliRunner().invoke(train_command, [*again[:-3], str(tmp_path / "bad.toml")])
    assert refused.exit_code == 1
    assert "unknown setting in [schedule] 'epoch'; there are: epochs" in refused.output


def test_settings_name_no_folder_and_never_turn_into_defaults(tmp_path):
    """Folders may be called as a person; what is not found again is an error, not another setting."""
    config = knee3d.TrainConfig().with_options(
        init=str(tmp_path / "Jane Doe" / "models"), encoder_weights=str(tmp_path / "Jane Doe" / "vgg.h5")
    )
    path = tmp_path / "train.toml"
    path.write_text(config.to_toml())
    assert "Doe" not in path.read_text()
    again = knee3d.TrainConfig.from_toml(path)
    assert (again.network.init, again.network.encoder_weights) == ("models", "vgg.h5")
    path.write_text(knee3d.TrainConfig().with_options(optimizer=keras.optimizers.Lion(1e-4)).to_toml())
    with pytest.raises(ValueError, match="unknown optimizer 'Lion'"):
        knee3d.TrainConfig.from_toml(path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: knee3d.SegmentConfig(oblique_views=31), "0 to 30"),
        (lambda: knee3d.SegmentConfig(label_format="analyze"), "unknown label_format 'analyze'; there are: nifti"),
        (lambda: knee3d.TrainConfig().with_options(directions=31), "at most 30"),
        (lambda: knee3d.TrainConfig().with_options(epoch=3), "unknown setting 'epoch'; did you mean 'epochs'"),
        (lambda: knee3d.read("knee.nii", side="X"), "side 'X' is none; a knee is R, L"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_ones(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_wrong_bits_are_refused(place, tmp_path):
    with pytest.raises(ValueError, match="unknown bits 12; there are: 8, 16"):
        knee3d.prepare(place / "cohort" / "knees.csv", tmp_path, bits=12)


def test_labels_are_saved_for_slicer_with_their_names(place, tmp_path):
    image = knee3d.read(place / "cohort" / "P001-baseline" / "dicom")
    result = knee3d.KneeModel.load(place / "models", precision="float32").segment(image)
    path = result.save(tmp_path / "new" / "labels.seg.nrrd")
    assert b"Segment0_Name:=cartilage" in path.read_bytes()
    with pytest.raises(ValueError, match="labels.png"):
        result.save(tmp_path / "labels.png")


def frames_to_the_network(monkeypatch: pytest.MonkeyPatch, run) -> list[str]:
    """Functions of knee3d on the stack of the thread that calls a network, from the outermost inwards."""
    package, stacks = os.path.dirname(knee3d.__file__), []

    def answer(self, slices):
        frames = traceback.extract_stack()[:-1]
        stacks.append([f"{Path(one.filename).stem}.{one.name}" for one in frames if one.filename.startswith(package)])
        return self.run(slices)

    monkeypatch.setattr(LoadedModel, "__call__", answer)
    run()
    return stacks[0]


def test_few_frames_lie_between_a_user_and_the_network(place, tmp_path, monkeypatch, plainly):
    """Of the command, those of the main thread until the knee is handed to a thread are counted, too."""
    image = knee3d.read(place / "cohort" / "P001-baseline" / "dicom")
    model = knee3d.KneeModel.load(place / "models", precision="float32")
    in_python = frames_to_the_network(monkeypatch, lambda: model.segment(image))
    assert in_python == ["knee_model.segment", "segment_image.segment_image", "ensemble.predict", "prediction.parts"]
    words = ["segment", place / "cohort" / "P001-baseline" / "dicom", "--models", place / "models", "--out", tmp_path]
    command = [*map(str, words), "--precision", "float32"]
    in_thread = frames_to_the_network(monkeypatch, lambda: CliRunner().invoke(main, command))
    before = [
        "options.invoke",
        "segmentation.segment",
        "batch_segmentation.segment",
        "batch_segmentation.segment_cases",
    ]
    assert in_thread[0] == "batch_segmentation.__call__"
    assert len(before + in_thread) <= MOST_FRAMES, before + in_thread
