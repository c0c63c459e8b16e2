"""What could be read from a path, and what stands in the way."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydicom import dcmread, dcmwrite

from knee3d import api
from knee3d.cli import main
from knee3d.dataset.inspection import inspect
from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.headers import DicomError
from knee3d.io.dicom.segmentation import write_segmentation
from knee3d.io.dicom.series import SeriesSelector, find_slice_grids
from knee3d.io.dicom.writer import write_series
from knee3d.io.volume_file import write_volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.report.tables import volume_lines

IPL = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1.0]])
VOLUME = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), IPL)


@pytest.fixture
def study(tmp_path):
    """A right and a left knee; of the left one a slice is missing; and files that are something else."""
    folder = tmp_path / "study"
    write_series(VOLUME, folder / "a", Side.RIGHT, patient="P", description="DESS right", seed=1)
    write_series(VOLUME, folder / "b", Side.LEFT, patient="P", description="DESS left", seed=1)
    (folder / "b" / "IM0003.dcm").unlink()
    (folder / "notes.txt").write_text("hello")
    for path in (folder / "b").iterdir():
        image = dcmread(path)
        image.SeriesNumber = 2
        dcmwrite(path, image)
    return folder


def test_series_are_listed_with_their_problems(study):
    found = inspect(study)
    right, left = found.volumes
    assert (right.name, right.description, right.echo, right.time_ms, right.images) == ("1", "DESS right", 1, 4.7, 5)
    assert (right.shape, right.spacing_mm) == ((4, 3, 5), (0.4, 0.5, 0.7))
    assert (right.plane, right.side, right.problem) == (Plane.SAGITTAL, Side.RIGHT, "")
    assert (left.shape, left.side) == (None, "")
    assert "evenly spaced" in left.problem
    assert "between IM0004.dcm, IM0002.dcm" in left.problem
    assert (right.path, left.path) == (str(study / "a"), str(study / "b"))
    assert found.skipped == {"not DICOM": 1}


def test_a_broken_file_does_not_hide_the_others(study):
    path = study / "a" / "IM0002.dcm"
    path.write_bytes(path.read_bytes()[:300])
    found = inspect(study)
    assert len(found.volumes) == 2
    (broken,) = found.broken
    assert "IM0002.dcm" in broken


def test_broken_files_end_in_an_exit_code_and_are_no_flood(study):
    """As nothing of the folder is read by the other commands either."""
    for number in range(7):
        (study / "a" / f"X{number}.dcm").touch()
    shown = CliRunner().invoke(main, ["inspect", str(study)])
    assert shown.exit_code == 1
    assert shown.output.count("broken: X") == 5
    assert "broken: 2 more" in shown.output
    assert "not read while files in it are broken" in shown.output
    with pytest.raises(DicomError, match="X0"):
        find_slice_grids(study, SeriesSelector(series="1"))


def test_files_and_zips(study, tmp_path):
    write_volume(VOLUME, tmp_path / "knee.nrrd")
    (one,) = inspect(tmp_path / "knee.nrrd").volumes
    assert (one.name, one.shape, one.spacing_mm) == ("knee.nrrd", (3, 4, 5), (0.5, 0.4, 0.7))
    assert one.plane is Plane.SAGITTAL
    (tmp_path / "bad.nii").write_text("no")
    (bad,) = inspect(tmp_path / "bad.nii").volumes
    assert "bad.nii" in bad.problem
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in study.rglob("*.*"):
            file.write(path, path.relative_to(study))
    assert inspect(archive).to_json() == inspect(study).to_json().replace(str(study), str(archive))
    with pytest.raises(FileNotFoundError, match="nothing at"):
        inspect(tmp_path / "nowhere")


def test_columns_fit_a_terminal_of_80_and_say_the_place_below(study):
    first, *others = api.inspect(study).volumes
    first = replace(first, shape=(384, 384, 160), spacing_mm=(0.3646, 0.3646, 0.7003), description="\x1b[31mDESS")
    head, _, numbers, place = volume_lines([first, *others], one_line=False)
    assert max(len(head), len(numbers)) <= 80
    assert place == f"  {study / 'a'}  ?[31mDESS"


@pytest.mark.slow
def test_labels_are_named_as_such_and_a_closed_pipe_is_no_error(study, tmp_path):
    grid = find_slice_grids(study / "a")
    labels = Volume(np.ones(grid[0].shape, np.uint8), grid[0].affine)
    write_segmentation(labels, SCHEMES["cartilage"], Side.RIGHT, grid, tmp_path / "labels.dcm", "x")
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "labels.dcm")])
    assert shown.exit_code == 1
    assert shown.output.startswith(f"{tmp_path / 'labels.dcm'}: labels.dcm holds labels (DICOM-SEG)")
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", "inspect", str(study)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b""


def test_the_command_prints_a_table_or_json(study, tmp_path):
    shown = CliRunner().invoke(main, ["inspect", str(study)])
    assert shown.exit_code == 0
    problem = f"{study / 'b'}, series 2 echo 1: slices must be evenly spaced"
    for text in ("sagittal", "4x3x5", problem, "left aside: 1 file, not DICOM"):
        assert text in shown.output
    (series,) = [line for line in shown.output.splitlines() if line.startswith("1 ")]
    assert series.endswith(f"{study / 'a'}  DESS right")
    told = CliRunner().invoke(main, ["inspect", str(study), "--json"])
    assert api.Inspection.from_json(told.output) == api.inspect(study)
    Draft202012Validator(api.Inspection.json_schema()).validate(json.loads(told.output))
    assert [one["path"] for one in json.loads(told.output)["volumes"]] == [str(study / "a"), str(study / "b")]
    (tmp_path / "bad.nii").write_text("no")
    failed = CliRunner().invoke(main, ["inspect", str(tmp_path / "bad.nii")])
    assert failed.exit_code == 1
    assert "nothing in" in failed.output
