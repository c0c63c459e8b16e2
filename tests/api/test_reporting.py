"""From finished knees to measures, meshes and pages: what is in them, what they are made of, what goes wrong."""

import json
import math
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import nibabel
import numpy as np
import pytest
import pyvista as pv
import SimpleITK as sitk
from as_seen import run_as_seen
from click.testing import Result
from finished_knees import make_cohort, make_finished
from scipy.spatial import KDTree
from small_disk import run_in_small_disk

from knee3d import lease as leases
from knee3d.api import reports
from knee3d.api.segmentation_record import refuse_foreign_folder
from knee3d.api.segmented_case import probability_maps
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.probability_file import read_probabilities, read_view_labels
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_scheme import FEMORAL, SCHEMES
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.report.measures_files import MeasuresRecord, read_measures_csv

SCHEME = SCHEMES["compartments"]


@pytest.fixture(scope="module")
def place(made_once) -> Path:
    """cohort/ of a right and a left knee, mirror images of each other, and their results/, reported.

    The networks know the first.
    """
    return made_once("reporting", make_place)


def make_place(folder: Path) -> None:
    make_finished(make_cohort(folder / "cohort"), folder / "results", trained_on=("P001",))
    done = run(folder / "results", folder / "cohort" / "knees.csv")
    assert done.exit_code == 0, done.output
    assert "2 of 2 reports" in done.output


def run(*words: object) -> Result:
    return run_as_seen("report", *words)


def values(folder: Path) -> dict[tuple[str, str, str], float]:
    (found,) = read_measures_csv(folder / "report" / "measures.csv").values()
    return {(one.tissue, one.region, one.measure): one.value for one in found}


def copied(place: Path, to: Path) -> Path:
    """Results without their reports."""
    shutil.copytree(place / "results", to, ignore=shutil.ignore_patterns("report", "index.html", "measures.csv"))
    return to


def test_segment_keeps_what_measuring_needs(place):
    folder = place / "results" / "P001"
    labels = read_volume(folder / "labels.nii.gz")
    fused, names = read_probabilities(folder / "fused.h5")
    assert fused.array.dtype == np.uint8
    assert names == ("background", *SCHEME.names)
    box = labels.box_of(fused)
    outside = labels.array.copy()
    outside[box] = 0
    assert not outside.any()
    np.testing.assert_array_equal(fused.array.argmax(axis=-1), labels.array[box])
    for view in read_view_labels(folder / "fused.h5").values():
        assert view.same_grid(labels)
        assert (view.array != labels.array).mean() < 0.02


def test_measures_are_those_of_the_labels_in_three_forms(place):
    folder = place / "results" / "P001"
    found = values(folder)
    labels = read_volume(folder / "labels.nii.gz")
    for name, mm3 in zip(SCHEME.names, tissue_volumes(labels, SCHEME), strict=True):
        assert found[name, "whole", "volume"] == pytest.approx(mm3)
        assert found[name, "whole", "partial_volume"] == pytest.approx(mm3, rel=0.05)
    told = json.loads((folder / "report" / "measures.json").read_text())
    assert told["side"] == "R"
    assert told["subregion_axes"] == "knee"
    assert told["interfaces"] == dict.fromkeys(SCHEME.names, "inferred")
    for one in told["measures"]:
        value = found[one["tissue"], one["region"], one["measure"]]
        assert one["value"] == (None if math.isnan(value) else pytest.approx(value))
    together = read_measures_csv(place / "results" / "measures.csv")
    assert set(together) == {"P001", "P002"}
    assert len(together["P001"]) == len(found)


def test_the_json_is_as_its_schema_says(place):
    schema = MeasuresRecord.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    told = json.loads((place / "results" / "P002" / "report" / "measures.json").read_text())
    jsonschema.validate(told, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told | {"side": "right"}, schema)
    told["measures"][0]["unit"] = "cm"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, schema)


def test_a_left_knee_has_the_measures_of_its_mirror_image(place):
    right, left = (values(place / "results" / case) for case in ("P001", "P002"))
    assert set(right) == set(left)
    for key, value in right.items():
        assert left[key] == pytest.approx(value, rel=1e-3), key


def test_other_programs_open_what_is_written(place):
    report = place / "results" / "P002" / "report"
    labels = read_volume(place / "results" / "P002" / "labels.nii.gz")
    overlay = nibabel.load(report / "thickness.nii.gz")
    np.testing.assert_allclose(overlay.affine, labels.affine, atol=1e-4)
    assert overlay.shape == labels.shape
    np.testing.assert_array_equal(np.asarray(overlay.dataobj) > 0, labels.array > 0)
    assert sitk.ReadImage(str(report / "thickness.nii.gz")).GetSize() == labels.shape
    for number, name in enumerate(SCHEME.names, start=1):
        mesh = pv.read(report / "meshes" / f"{name.replace(' ', '_')}.ply")
        assert mesh.n_open_edges == 0
        assert mesh.volume == pytest.approx(tissue_volumes(labels, SCHEME)[number - 1], rel=0.01)
        voxels = np.argwhere(labels.array == number) @ labels.affine[:3, :3].T + labels.affine[:3, 3]
        assert KDTree(voxels).query(mesh.points)[0].max() < np.linalg.norm(labels.spacing_mm)
        thick = pv.read(report / "meshes" / f"{name.replace(' ', '_')}_thickness.vtp")
        assert 1 < np.nanmean(thick.point_data["thickness_mm"]) < 5
    scene = pv.read(report / "meshes" / "scene.ply")
    assert {tuple(colour) for colour in scene.point_data["RGB"]} == {tissue.colour for tissue in SCHEME.tissues}
    assert (report / "confusion.pdf").read_bytes().startswith(b"%PDF")
    table = [line.split() for line in (report / "labels_lut.txt").read_text().splitlines()]
    assert [row[1] for row in table] == ["background", *(name.replace(" ", "_") for name in SCHEME.names)]
    snap = (report / "labels.txt").read_text().splitlines()
    assert snap[1].split()[:4] == ["1", *map(str, SCHEME.tissues[0].colour)]
    assert '"femoral cartilage"' in snap[1]


def test_views_that_disagree_are_mapped():
    """The share of the views whose label is another one than the fused."""

    def labels(*values: int) -> Volume:
        return Volume(np.array(values, np.uint8).reshape(1, 1, -1), np.eye(4))

    views = {"a": labels(1, 1, 0), "b": labels(1, 2, 1), "c": labels(1, 1, 2)}
    maps = probability_maps(labels(1, 1, 0), Volume(np.zeros((1, 1, 3, 3), np.uint8), np.eye(4)), views)
    np.testing.assert_allclose(maps["disagreement"].array.ravel(), [0, 1 / 3, 2 / 3])


def test_the_page_tells_the_truth_flags_and_how_it_was_made(place):
    page = (place / "results" / "P001" / "report" / "report.html").read_text()
    record = json.loads((place / "results" / "P001" / "segmentation.json").read_text())
    assert record["image_fingerprint"] in page
    assert "inferred" in page
    assert "foreground" in page
    assert "fast no, keep largest no, remove below mm3 0.0, fill below mm3 0.0, any spacing no" in page
    assert "{" not in page.partition("How it was made</h2>")[2].partition("</section>")[0]
    assert str(place) not in page
    assert f"Not checked: {record['unchecked']}." in page
    index = (place / "results" / "index.html").read_text()
    assert "2 of which not all was checked" in index
    for case in ("P001", "P002"):
        assert f"{case}/report/report.html" in index


def test_finished_reports_are_kept_and_made_again_when_something_changed(place, tmp_path):
    """Of one knee, whose report the same command has made."""
    results, table = tmp_path / "results", place / "cohort" / "knees.csv"
    shutil.copytree(place / "results" / "P001", results / "P001")
    page = results / "P001" / "report" / "report.html"
    made = page.stat().st_mtime_ns
    assert run(results, table).exit_code == 0
    assert page.stat().st_mtime_ns == made
    assert run(results, table, "--triangle-share", 0.5).exit_code == 0
    again = page.stat().st_mtime_ns
    assert again != made
    (results / "P001" / "report" / "thickness.nii.gz").unlink()
    assert run(results, table, "--triangle-share", 0.5).exit_code == 0
    assert page.stat().st_mtime_ns != again
    assert (results / "P001" / "report" / "thickness.nii.gz").exists()
    refuse_foreign_folder(
        results / "P001"
    )  # a report is no one else's file, so that segment --overwrite may replace it


def test_a_poorer_report_takes_the_place_of_a_richer_one_only_when_asked(place, tmp_path, caplog):
    results = tmp_path / "results"
    shutil.copytree(place / "results", results)  # with reports, which the same command has made
    table, alone_table = place / "cohort" / "knees.csv", tmp_path / "other.csv"
    assert run(results, table).exit_code == 0
    pages = [results / case / "report" / "report.html" for case in ("P001", "P002")]
    made = [page.stat().st_mtime_ns for page in pages]
    head, _, second = table.read_text().splitlines()
    alone_table.write_text("\n".join([head, second.replace("P002/", f"{table.parent}/P002/")]) + "\n")
    shutil.copy(table.with_name("labels.json"), tmp_path)
    for command in ((results,), (results, "--meshes", "stl"), (results, alone_table)):
        caplog.clear()
        assert run(*command).exit_code == 0
        assert "P001: its report was made with its image and the truth and is kept" in caplog.text
        assert "the page goes without" not in caplog.text
        assert [page.stat().st_mtime_ns for page in pages] == made
    assert run(results, place / "cohort").exit_code == 0  # images and no table, so no truth
    assert "P002: its report was made with the truth and is kept" in caplog.text
    assert [page.stat().st_mtime_ns for page in pages] == made
    shutil.rmtree(results / "P002")
    assert run(results, "--overwrite").exit_code == 0
    assert not (results / "P001" / "report" / "confusion.pdf").exists()
    assert run(results, table).exit_code == 0  # what is richer needs no word
    assert (results / "P001" / "report" / "confusion.pdf").exists()


def test_patients_whom_the_networks_know_are_marked(place):
    known, unknown = ((place / "results" / case / "report" / "report.html").read_text() for case in ("P001", "P002"))
    assert "The networks were trained on this patient" in known
    assert "on this patient" not in unknown
    assert (place / "results" / "index.html").read_text().count("trained on this patient") == 1


def test_without_images_there_are_measures_and_a_page(place, tmp_path):
    results = copied(place, tmp_path / "results")
    done = run(results / "P002")
    assert done.exit_code == 0, done.output
    assert "P002/report/report.html" in done.output
    with_image, without = values(place / "results" / "P002"), values(results / "P002")
    assert without == with_image
    assert not (results / "P002" / "report" / "confusion.pdf").exists()


def test_labels_alone_are_measured_where_probabilities_are_gone(place, tmp_path):
    results = copied(place, tmp_path / "results")
    (results / "P001" / "fused.h5").unlink()
    path = results / "P001" / "segmentation.json"
    record = json.loads(path.read_text())
    del record["files"]["fused.h5"]
    path.write_text(json.dumps(record))
    assert run(results / "P001").exit_code == 0
    found, with_probabilities = values(results / "P001"), values(place / "results" / "P001")
    assert (FEMORAL, "whole", "partial_volume") not in found
    key = (FEMORAL, "whole", "thickness_mean")
    assert found[key] == pytest.approx(with_probabilities[key], abs=0.15)


def test_another_image_is_refused_and_the_others_are_done(place, tmp_path):
    results, cohort = copied(place, tmp_path / "results"), tmp_path / "cohort"
    shutil.copytree(place / "cohort", cohort)
    shutil.copy(cohort / "P001" / "image.nii.gz", cohort / "P002" / "image.nii.gz")
    done = run(results, cohort / "knees.csv")
    assert done.exit_code == 1
    assert "not done, as said above: P002" in done.output
    assert done.output.count("not the image that was segmented") == 1
    assert (results / "P001" / "report" / "report.html").exists()
    assert not (results / "P002" / "report").exists()


def test_damaged_results_are_named_and_never_measured(place, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(place / "results", results)
    index = (results / "index.html").read_bytes()
    (results / "P001" / "labels.nii.gz").write_bytes(b"no labels")
    shutil.copy(results / "P001" / "fused.h5", results / "P002" / "fused.h5")
    done = run(results, place / "cohort" / "knees.csv")
    assert done.exit_code == 2
    assert "labels.nii.gz was changed" in done.output
    assert "fused.h5 was changed" in done.output
    assert "Traceback" not in done.output
    assert (results / "index.html").read_bytes() == index  # of what was finished before nothing is lost
    shutil.copy(place / "results" / "P001" / "labels.nii.gz", results / "P001" / "labels.nii.gz")
    done = run(results, place / "cohort" / "knees.csv")
    assert done.exit_code == 1
    assert "no report" in (results / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scheme": "other"}, "scheme: "),
        ({"side": "right"}, "side: "),
        ({"settings": {}}, "settings.label_format "),
        ({"fusion_weights": []}, "fusion_weights: "),
        ({"shape": 3}, "shape: "),
    ],
)
def test_a_damaged_record_is_named_whatever_is_wrong_with_it(place, tmp_path, change, field):
    results = copied(place, tmp_path / "results")
    path = results / "P001" / "segmentation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = run(results / "P001")
    assert done.exit_code == 2
    assert "segmentation.json is damaged" in done.output
    assert field in done.output


def test_another_side_and_a_renamed_folder_are_refused(place, tmp_path):
    results, table = copied(place, tmp_path / "results"), place / "cohort" / "knees.csv"
    (results / "P002").rename(results / "P003")
    swapped = place / "cohort" / "swapped.csv"
    swapped.write_text(table.read_text().replace(",R,", ",L,"))
    done = run(results, swapped)
    assert done.exit_code == 2
    assert "is of side R, but the table says L" in done.output
    assert "was renamed or copied" in done.output


def test_knees_of_other_processes_are_waited_for(place, tmp_path, monkeypatch):
    """One makes the report of P001 meanwhile, and has one of a knee that came later."""
    results = copied(place, tmp_path / "results")
    other = leases._take(results / "P001", take_over=True)

    def finish(_: float) -> None:
        shutil.copytree(place / "results" / "P001" / "report", results / "P001" / "report")
        shutil.copytree(place / "results" / "P002", results / "P003", dirs_exist_ok=True)
        table = results / "P003" / "report" / "measures.csv"
        table.write_text(table.read_text().replace("P002", "P003"))
        other.release()

    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=time.monotonic, sleep=finish))
    done = run(results, place / "cohort" / "knees.csv")
    assert done.exit_code == 0, done.output
    assert "2 of 2 reports" in done.output
    page = (results / "index.html").read_text()
    assert all(f"{case}/report/report.html" in page for case in ("P001", "P002", "P003"))
    assert set(read_measures_csv(results / "measures.csv")) == {"P001", "P002", "P003"}
    assert not list(results.glob(".*"))


def test_of_processes_that_overwrite_each_does_what_the_others_have_not(place, tmp_path, monkeypatch):
    results = copied(place, tmp_path / "results")
    shutil.rmtree(results / "P002")
    words = (results, place / "cohort" / "knees.csv", "--overwrite")
    (results / "P001" / ".partial-89abcdef-report").mkdir()  # of a process that was killed
    began = leases.file_system_time(tmp_path)
    assert run(*words).exit_code == 0
    times = [path.stat().st_mtime_ns for path in sorted(results.glob("*/report/report.json"))]
    monkeypatch.setattr(reports, "file_system_time", lambda folder: began)  # as one that began with them
    assert run(*words).exit_code == 0
    assert times == [path.stat().st_mtime_ns for path in sorted(results.glob("*/report/report.json"))]
    assert not list(results.glob("P001/.partial*"))


def test_the_same_knee_gives_the_same_files(place, tmp_path):
    results = copied(place, tmp_path / "results")
    assert run(results / "P001", place / "cohort" / "knees.csv").exit_code == 0
    for path in (place / "results" / "P001" / "report").rglob("*"):
        if path.is_file():
            again = results / "P001" / "report" / path.relative_to(place / "results" / "P001" / "report")
            assert again.read_bytes() == path.read_bytes(), path


def test_nothing_finished_is_an_error_with_the_way_out(tmp_path):
    (tmp_path / ".partial-P001").mkdir()
    (tmp_path / ".partial-P001" / "segmentation.json").write_text("{}")  # of a run that was killed, or is at work
    done = run(tmp_path)
    assert done.exit_code == 2
    assert "knee3d segment makes them" in done.output


def test_a_knee_without_tissue_has_a_report(tmp_path):
    table = make_cohort(tmp_path / "cohort", (Side.RIGHT,))
    image = read_volume(tmp_path / "cohort" / "P001" / "image.nii.gz")
    from knee3d.io.volume_file import write_volume

    ramp = np.where(np.arange(image.array.size).reshape(image.shape) % 50 == 0, 255, 0).astype(np.int16)
    write_volume(image.with_array(ramp), tmp_path / "cohort" / "P001" / "image.nii.gz")
    results = make_finished(table, tmp_path / "results")
    done = run(results, tmp_path / "cohort" / "P001" / "image.nii.gz")
    assert done.exit_code == 0, done.output
    assert (results / "P001" / "report" / "report.html").exists()


@pytest.mark.slow
def test_a_full_disk_stops_in_one_clear_line(place, tmp_path):
    """Room for one report of about 4 MB beside the results, and not for two."""
    script = f"cp -r {copied(place, tmp_path / 'results')} $0/results; exec {sys.executable} -c "
    script += "'from knee3d.cli import main; main()' report $0/results"
    done = run_in_small_disk("7m", tmp_path / "small", ["sh", "-c", script, tmp_path / "small"])
    assert done.returncode in (1, 2), done.stderr
    assert "no room left in" in done.stderr
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stderr
