"""What the study says of its numbers; the study itself takes an hour and a half."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from knee3d.api.data import prepare_dataset, write_phantom
from knee3d.dataset.case_collection import Split
from knee3d.dataset.preparation import PrepareConfig
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENTS = ["A", "A", "B", "C", "D", "E", "F", "G"]
KNEES = "even"


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("study_answers")


def line(network, way, dice, assd=0.5, **more):
    """As the study writes it."""
    count = len(dice)
    tissues = {"cartilage": list(dice), "foreground": list(dice), "mean": list(dice)}
    return {
        "cell": network, "network": network, "way": way, "knees": KNEES, "patients": PATIENTS[:count], "took": 60.0,
        "dice": tissues, "assd_mm": {"cartilage": [assd] * (count - 1) + [None]},
        "volume_difference": {"cartilage": [-0.1, 0.3] * (count // 2)}, **more,
    }  # fmt: skip


def test_a_difference_is_paired_by_knee_and_each_patient_counts_once(answers):
    one = np.array([0.9, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    gain = np.array([0.1, 0.3, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16])
    found = {("a", "x", KNEES): line("a", "x", one), ("b", "x", KNEES): line("b", "x", one - gain)}
    said = answers.compared(found, ("a", "x", KNEES), ("b", "x", KNEES))
    each = [0.2, *gain[2:]]
    assert f"mean Dice {np.mean(each):+.3f}" in said
    assert f"p = {stats.wilcoxon(each).pvalue:.3f}, 7 patients; these networks differ." in said
    same = answers.compared(found, ("a", "x", KNEES), ("a", "x", KNEES))
    assert "mean Dice +0.000" in same
    assert "no difference that these knees could show" in same
    assert answers.compared(found, ("a", "x", KNEES), ("c", "x", KNEES)) == "Not run yet."


def test_the_table_has_every_line_and_errors_do_not_cancel(answers, balls):
    lines = [
        line("unet", plane, [0.5] * 8, parameters=2e6, gflop=99.0, seconds=1.5)
        for plane in ("axial", "coronal", "sagittal")
    ] + [line("unet", "three planes, equal", [0.6] * 8)]
    text = answers.written(lines, balls, [KNEES])
    assert "Knees: 2 train (2 patients), 1 val (1 patients), 1 test (1 patients). Took 1 minutes." in text
    (row,) = [row for row in text.splitlines() if row.startswith("| unet | axial")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert f"Voxels {KNEES}:" in text
    assert cells == ["unet", "axial", "0.500", "0.500 (0.500 to 0.500)", "0.50", "1", "20.0%", "2", "99", "1.5"]
    assert "three planes, equal (unet) against axial (unet)" in text
    assert "Do fitted weights beat equal ones? Not run yet." in text
    assert text.count("show tissue") == 3


def test_networks_are_shown_the_same_share_of_the_knees_in_as_many_steps(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    study = importlib.import_module("study")
    table = write_phantom(CohortConfig(3, (40, 30, 20)), tmp_path / "cohort", jobs=2)
    preparation = PrepareConfig(SCHEMES["cartilage"], None, fractions=(0.4, 0.3, 0.3))
    dataset = prepare_dataset(table, tmp_path / "dataset", preparation, None, jobs=2)
    shapes = np.array([case.shape for case in dataset.of_split(Split.TRAIN)])
    preset = replace(study.PRESETS["small"], shown=0.25, step=2400)
    small = study.Study(tmp_path, preset, dataset.folder)
    assert small.dataset(small.usual) == dataset.folder
    assert set(small.kinds).isdisjoint(study.SHAPES)  # nothing is said of their voxels that is true of rendered ones
    for axis, (plane, batch) in enumerate(zip(study.PLANES, (4, 3, 2), strict=True)):
        seen = small.shown(plane, preset.config, dataset, 1)
        assert seen.sampling.limit_slices == round(0.25 * shapes[:, axis].sum())
        assert seen.sampling.batch_size == batch
    one, all_three = (
        small.shown("oblique", preset.config.with_options(directions=6), dataset, count) for count in (1, 3)
    )
    voxels = [np.prod(case.spacing_mm) for case in dataset.of_split(Split.TRAIN)]
    assert float(one.sampling.spacing) ** 3 == pytest.approx(np.median(voxels), rel=1e-6)
    assert all_three.sampling.limit_slices == pytest.approx(3 * one.sampling.limit_slices, abs=2)
    full = replace(small, preset=study.PRESETS["full"])
    assert full.shown("oblique", full.preset.config, dataset, 3) is full.preset.config
