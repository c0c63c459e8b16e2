"""The command line: what it says, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from knee3d import __version__
from knee3d.cli import main, train
from knee3d.cli.options import Command, add_command_hints
from knee3d.dataset.manifest import read_manifest


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", list(main.commands))
def test_every_command_explains_itself_with_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"knee3d {command}" in result.output or "knee3d-train" in result.output


def test_the_demo_ends_with_commands_that_are_there(monkeypatch, tmp_path):
    monkeypatch.setattr("knee3d.demo.demo", lambda *args: (SimpleNamespace(tables=tuple), "a loss"))
    said = run("demo", "--out", tmp_path / "demo").output
    (tensorboard,) = [word for word in said.split() if word.endswith("tensorboard")]
    assert Path(tensorboard).is_file()


def test_version_and_the_short_form_of_train():
    assert __version__ in run("--version").output
    result = CliRunner().invoke(train, ["--help"], prog_name="knee3d-train")
    assert result.exit_code == 0
    assert "--encoder-weights" in result.output


@pytest.mark.slow
def test_phantom_and_prepare_from_the_command_line(tmp_path):
    made = run("phantom", tmp_path / "cohort", "--knees", 3, "--shape", "20,18,16", "--seed", 5)
    assert made.exit_code == 0, made.output
    table = tmp_path / "cohort" / "knees.csv"
    assert str(table) in made.output
    prepared = run("prepare", table, tmp_path / "d", "--scheme", "iwoai", "--split", "0.34,0.33,0.33")
    assert prepared.exit_code == 0, prepared.output
    for split in ("train", "val", "test"):
        assert f" {split}" in prepared.output


@pytest.mark.slow
def test_phantom_takes_a_renderer_and_the_voxels_of_a_scan(tmp_path):
    words = ["phantom", tmp_path / "c", "--knees", 1, "--shape", "24,24,24", "--voxels", "4,5,6"]
    made = run(*words, "--renderer", "random-fields")
    assert made.exit_code == 0, made.output
    record = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert (record["renderer"], record["voxel_mm"]) == ("random-fields", [4, 5, 6])


def failing(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    """Command and the words that its one line of error must have."""
    table = tmp_path / "knees.csv"
    table.write_text("case,patient,visit,side,image,mask\nk,p,,R,nothing,\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "image.nii.gz").write_bytes(b"")
    return {
        "missing image": (["prepare", table, tmp_path / "d"], "nothing of case k does not exist"),
        "missing dataset": (["fuse", tmp_path / "nowhere"], "knee3d prepare"),
        "missing models": (["segment", empty / "image.nii.gz", "--models", empty], "holds no trained plane"),
        "no models folder": (
            ["segment", empty / "image.nii.gz", "--models", tmp_path / "nowhere"],
            "nowhere; a models folder is what",
        ),
        "missing models, left knee": (
            ["segment", empty / "image.nii.gz", "--models", empty, "--side", "L"],
            "holds no trained plane",
        ),
        "missing cases": (["evaluate", empty, "--models", empty], "no cases.json"),
        "one factor of thickness": (["phantom", tmp_path / "q", "--thickness", "0.5"], "two numbers"),
        "flexion": (["phantom", tmp_path / "q", "--flexion", "90"], "knees are bent by 0 to 20 degrees"),
        "bad shape": (["phantom", empty, "--shape", "64,64"], "three numbers"),
        "tiny shape": (["phantom", empty / "p", "--shape", "4,4,4"], "16 voxels"),
        "bad voxels": (["phantom", empty / "p", "--shape", "24,24,24", "--voxels", "1,1,1"], "more than twice as long"),
        "bad label map": (["phantom", empty / "p", "--from-labels", empty / "image.nii.gz"], "image.nii.gz"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "missing image",
        "missing dataset",
        "missing models",
        "no models folder",
        "one factor of thickness",
        "flexion",
        "missing models, left knee",
        "missing cases",
        "bad shape",
        "tiny shape",
        "bad voxels",
        "bad label map",
    ],
)
def test_failures_are_one_line_and_not_zero(tmp_path, name):
    command, words = failing(tmp_path)[name]
    result = run(*command)
    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_ctrl_c_is_a_line_and_an_exit_code_of_its_own():
    @click.command(cls=Command)
    def stopped() -> None:
        raise KeyboardInterrupt

    done = CliRunner().invoke(stopped)
    assert done.exit_code == 130
    assert done.output == "stopped; what is finished stays\n"


def test_a_weight_that_is_given_twice_is_not_chosen_from(tmp_path):
    words = ["--weight", "a", "0.5", "--weight", "a", "0.2", "--weight", "b", "0.8"]
    refused = CliRunner().invoke(main, ["fuse", str(tmp_path), *words])
    assert refused.exit_code == 2
    assert "a is given more than once" in refused.output


def test_a_knee_whose_name_is_not_utf8_is_left_out_of_a_table(tmp_path):
    (tmp_path / "knees").mkdir()
    for name in (b"A", b"M\xfcller", b"Z"):
        path = Path(os.fsdecode(os.fsencode(tmp_path / "knees") + b"/" + name + b".nii.gz"))
        path.write_bytes(b"")
    done = run("table", tmp_path / "knees", "-o", tmp_path / "knees.csv")
    assert done.exit_code == 0, done.output
    assert "udcfcller.nii.gz'; rename it" in done.output
    assert [knee.case for knee in read_manifest(tmp_path / "knees.csv")] == ["A", "Z"]


def test_an_error_that_names_an_option_says_which_command_has_it():
    """What the command itself has, and options after the name of a command, need no word."""
    inspect, segment = main.commands["inspect"], main.commands["segment"]
    assert add_command_hints("take it by --incomplete", inspect).endswith(
        "(--incomplete is an option of knee3d prepare, segment, report)"
    )
    assert add_command_hints("take it by --incomplete", segment) == "take it by --incomplete"
    for words in ("knee3d fuse DATASET --models models", "nothing", "say --no-such-thing"):
        assert add_command_hints(words, inspect) == words


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), pytest.param(("--verbose",), marks=pytest.mark.nightly)])
def test_tensorflow_speaks_on_request_only(tmp_path, more):
    """Its greeting about processors and GPUs."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TF_CPP_MIN_LOG_LEVEL", "KNEE3D_VERBOSE")
    }
    words = ["-c", "from knee3d.cli import main; main()", "export", str(tmp_path), *more]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert ("cpu_feature_guard" in done.stderr or "oneDNN" in done.stderr) == bool(more)
