"""A dataset looked over: what it counts, what it finds, what it draws."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from knee3d import api
from knee3d.cli import main
from knee3d.dataset.audit import CaseAudit, DatasetAudit, audit_case, audit_summary, flag_outliers
from knee3d.dataset.case_collection import CaseCollection, Split, save_cases
from knee3d.geometry.orientation import Side
from knee3d.lease import leased

PLAIN = CaseAudit("k", "p", "", "R", "train", (10, 10, 10), (0.5, 0.4, 0.7), (0.0, 900.0), (1000,), (140.0,))


def cohort(**odd: object) -> list[CaseAudit]:
    """Nine that are alike, and one that is not."""
    alike = [replace(PLAIN, case=f"k{n}", mm3=(140.0 + n,), window=(0.0, 900.0 + 10 * n)) for n in range(9)]
    return [*alike, replace(PLAIN, case="odd", **odd)]


def test_cases_are_counted(balls):
    case = balls.cases[0]
    facts = audit_case(case, balls.mask(case), balls.scheme.names)
    voxels = int((balls.mask(case).array == 1).sum())
    assert (facts.voxels, facts.mm3) == ((voxels,), (pytest.approx(voxels * 0.5 * 0.4 * 0.7, abs=0.1),))
    assert (facts.shape, facts.spacing_mm, facts.window) == (case.shape, (0.5, 0.4, 0.7), (0, 255))
    assert facts.notes == ()
    assert audit_case(replace(case, side=Side.UNKNOWN), None, balls.scheme.names).notes == ("side unknown",)


def test_absent_tissues_are_noted(balls):
    case = balls.cases[0]
    mask = balls.mask(case)
    assert audit_case(case, mask, ("cartilage", "bone")).notes == ("no bone",)


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        ({"mm3": (60.0,)}, "cartilage in mm3 is 60, usual is 143.5"),
        ({"spacing_mm": (0.5, 0.4, 1.5)}, "spacing along L in mm is 1.5, usual is 0.7"),
        ({"shape": (10, 16, 10)}, "extent along P in mm is 6.4, usual is 4"),
        ({"window": (0.0, 4000.0)}, "width of the window is 4000"),
    ],
)
def test_what_is_unlike_the_others_is_noted(odd, note):
    *alike, strange = flag_outliers(cohort(**odd), ("cartilage",))
    assert note in "; ".join(strange.notes)
    assert not any(one.notes for one in alike)


@pytest.mark.parametrize("odd", [{}, {"mm3": (0.0,), "voxels": (0,)}, {"mm3": None, "voxels": None}])
def test_what_is_alike_or_absent_is_not_unusual(odd):
    assert not any(one.notes for one in flag_outliers(cohort(**odd), ("cartilage",)))
    assert not any(one.notes for one in flag_outliers(cohort(mm3=(1.0,))[-4:], ("cartilage",)))


def test_splits_and_leaks(balls):
    names = balls.scheme.names
    facts = [audit_case(case, balls.mask(case), names) for case in balls.cases]
    summary = audit_summary(balls, facts)
    assert summary.leak is None
    assert summary.splits["train"].cases == 2
    assert summary.splits["train"].voxels == {"cartilage": facts[0].voxels[0] + facts[1].voxels[0]}
    leaky = CaseCollection(balls.folder, balls.scheme, tuple(replace(case, patient="P") for case in balls.cases))
    assert "P" in audit_summary(leaky, facts).leak


def test_an_audit_comes_back_from_json_as_its_schema_says(balls, tmp_path):
    masks = (balls.mask(balls.cases[0]), None, *map(balls.mask, balls.cases[2:]))
    facts = [audit_case(case, mask, balls.scheme.names) for case, mask in zip(balls.cases, masks, strict=True)]
    summary = audit_summary(balls, facts)
    summary.write(tmp_path / "audit.json")
    text = (tmp_path / "audit.json").read_text()
    assert DatasetAudit.from_json(text) == summary
    assert json.loads(text)["cases"][0]["case"] == balls.cases[0].name
    assert json.loads(text)["cases"][1]["voxels"] is None
    Draft202012Validator(DatasetAudit.json_schema()).validate(json.loads(text))
    with pytest.raises(ValueError, match="scheme: input should be a valid string"):
        DatasetAudit.from_json(json.dumps(json.loads(text) | {"scheme": 3}))


@pytest.mark.slow
def test_the_page_has_every_case_and_the_command_its_exit_code(balls, tmp_path):
    done = CliRunner().invoke(main, ["audit", str(balls.folder), "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "a" / "index.html").read_text()
    for case in balls.cases:
        assert f'src="cases/{case.name}.png"' in page
        assert (tmp_path / "a" / "cases" / f"{case.name}.png").stat().st_size > 5000
    with (tmp_path / "a" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [case.name for case in balls.cases]
    assert float(rows[0]["cartilage_mm3"]) > 0
    leaky = tmp_path / "leaky"
    leaky.mkdir()
    for case in balls.cases:
        (leaky / case.name).symlink_to(balls.folder / case.name)
    cases = [replace(case, patient="<P&1>") for case in balls.cases]
    save_cases(CaseCollection(leaky, balls.scheme, (*cases[:-1], replace(cases[-1], labelled=False, split=Split.NONE))))
    failed = CliRunner().invoke(main, ["audit", str(leaky), "--out", str(tmp_path / "b")])
    assert failed.exit_code == 1
    assert "<P&1>" in failed.output
    page = (tmp_path / "b" / "index.html").read_text()
    assert "&lt;P&amp;1&gt;" in page
    assert "<P&1>" not in page
    assert json.loads((tmp_path / "b" / "audit.json").read_text())["splits"]["unlabelled"]["cases"] == 1


@pytest.mark.slow
def test_a_page_of_someone_else_is_not_replaced_and_an_own_one_is(balls, tmp_path):
    (tmp_path / "index.html").write_text("my page")
    with pytest.raises(ValueError, match=r"index\.html is there and is not knee3d's"):
        api.audit_dataset(balls.folder, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("index.html", "my page")]
    (tmp_path / "index.html").unlink()
    for _ in range(2):
        api.audit_dataset(balls.folder, tmp_path)


def test_slices_that_are_gone_are_named(balls, tmp_path):
    save_cases(CaseCollection(tmp_path, balls.scheme, balls.cases))
    with pytest.raises(FileNotFoundError, match=balls.cases[0].name):
        api.audit_dataset(tmp_path, tmp_path / "out")
    save_cases(CaseCollection(tmp_path, balls.scheme, ()))
    with pytest.raises(ValueError, match="no finished case"):
        api.audit_dataset(tmp_path, tmp_path / "out")
    assert np.all([not path.name.endswith(".html") for path in tmp_path.rglob("*")])


@pytest.mark.slow
def test_two_audits_do_not_share_a_folder(balls, tmp_path):
    with leased(tmp_path / "out"), pytest.raises(ValueError, match="another (folder|process)"):
        api.audit_dataset(balls.folder, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
    api.audit_dataset(balls.folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
