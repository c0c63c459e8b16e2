"""From knees to labels: what may come in, what is kept, and that nothing is lost when something goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from as_seen import COMMAND, run_as_seen
from click.testing import Result
from faults import changes_of, contents, killed_at
from made_up_models import change_card, make_models
from small_disk import run_in_small_disk

import knee3d
from knee3d import api
from knee3d import lease as leases
from knee3d.api import batch_segmentation, segment_case, segmentation_record
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segment_image import segment_image
from knee3d.dataset.manifest import read_manifest, write_manifest
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import stack_neighbours
from knee3d.inference.trained_models import load_models, models_fingerprint
from knee3d.io.image_source import read_image
from knee3d.io.probability_file import read_probabilities
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.phantom.cohort import CohortConfig
from knee3d.postprocess.blend import blend
from knee3d.postprocess.decision import decide_labels

SHAPE = (32, 30, 28)
PICTURE = "knee3d.report.overview_figure.overview_figure"


@pytest.fixture(scope="module")
def place(made_once, cohort_of) -> Path:
    """cohort/ of four knees, and models/ that suit them."""

    def make(folder: Path) -> None:
        image = read_image(read_manifest(cohort_of(CohortConfig(3, SHAPE, seed=1), folder / "cohort"))[0].image)
        make_models(folder / "models", tuple(to_canonical(image).spacing_mm.tolist()))

    return made_once("segmentation", make)


@pytest.fixture(scope="module")
def pair(place, made_once) -> Path:
    """A table of two of the knees."""
    knees = read_manifest(place / "cohort" / "knees.csv")[:2]
    return made_once("pair", lambda out: write_manifest(out / "knees.csv", knees)) / "knees.csv"


@pytest.fixture(scope="module")
def finished(place, made_once) -> Path:
    """What the command makes of all knees, without pictures."""

    def make(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PICTURE, lambda *args: Path(args[3]).write_bytes(b"picture"))
            assert run(place / "cohort", "--models", place / "models", "--out", out).exit_code == 0

    return made_once("finished", make)


def run(*words: object) -> Result:
    return run_as_seen("segment", *words)


def entries(place: Path) -> list[api.InputCase]:
    return list(api.find_cases(place / "cohort" / "knees.csv"))


def test_a_knee_a_folder_and_a_table_give_the_same(place, tmp_path, plainly):
    cohort, models = place / "cohort", place / "models"
    cases = sorted(knee.case for knee in read_manifest(cohort / "knees.csv"))
    for source, out in ((cohort / "knees.csv", "table"), (cohort, "folder")):
        done = run(source, "--models", models, "--out", tmp_path / out)
        assert done.exit_code == 0, done.output
        assert "4 done, 0 kept, 0 failed" in done.output
        assert sorted(path.parent.name for path in (tmp_path / out).glob("*/segmentation.json")) == cases
    one = run(
        cohort / cases[0] / "dicom", "--models", models, "--out", tmp_path / "one", "--case", cases[0], "--side", "R"
    )
    assert one.exit_code == 0, one.output
    assert " mm3" in one.output
    expected = contents(tmp_path / "table")
    assert contents(tmp_path / "folder") == expected
    assert contents(tmp_path / "one") == {name: one for name, one in expected.items() if name.startswith(cases[0])}
    rows = (tmp_path / "table" / "volumes.csv").read_text().splitlines()
    assert len(rows) == 1 + len(cases)


def test_what_happened_is_a_json_object_a_line(place, tmp_path, plainly):
    done = run(place / "cohort", "--models", place / "models", "--out", tmp_path / "out", "--quiet")
    assert (done.exit_code, done.output) == (0, "")
    quality = json.loads((tmp_path / "out" / "P001-baseline" / "quality.json").read_text())
    assert "before weights are fitted" in quality["unchecked"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "segment.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", *["knee"] * 4, "end"]
    assert lines[-1]["done"] == 4
    assert {line["status"] for line in lines[1:-1]} == {"done"}
    assert all(line["volumes_mm3"]["cartilage"] > 0 for line in lines[1:-1])


def test_finished_knees_are_kept_and_others_never_replaced_unasked(place, finished, tmp_path, plainly):
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    shutil.copytree(place / "cohort", cohort)
    shutil.copytree(finished, out)
    words = (cohort, "--models", place / "models", "--out", out)
    before = contents(out)
    again = run(*words)
    assert "0 done, 4 kept" in again.output
    # Another name is no other content.
    first = cohort / "P001-baseline" / "dicom"
    one = sorted(first.iterdir())[0]
    one.rename(first / "renamed.dcm")
    assert "4 kept" in run(*words).output
    # A result that is no longer what it was is not counted as finished.
    labels = out / "P003-baseline" / "labels.nii.gz"
    made = labels.read_bytes()
    for spoil, word in ((lambda: labels.write_bytes(b"edited"), "was changed"), (labels.unlink, "is missing")):
        spoil()
        spoiled = run(*words)
        assert "3 kept, 1 failed" in spoiled.output
        assert f"labels.nii.gz {word} since; give --overwrite" in spoiled.output.replace("\n", " ")
    labels.write_bytes(made)
    # Other settings, and other content.
    assert run(*words, "--keep-largest").exit_code == 2
    mask = cohort / "P002-baseline" / "dicom"
    shutil.rmtree(mask)
    shutil.copytree(cohort / "P003-baseline" / "dicom", mask)
    changed = run(*words)
    assert changed.exit_code == 1
    assert "3 kept, 1 failed" in changed.output
    assert "made of another image; give --overwrite" in " ".join(changed.output.split())
    assert contents(out) == before
    plan = run(*words, "--dry-run")
    assert (plan.exit_code, plan.output.count("finished, to be kept")) == (1, 3)
    assert run(*words, "--overwrite", "--dry-run").output.count("to be segmented") == 4
    (out / "P001-baseline" / "notes.txt").write_text("mine")
    refused = run(*words, "--overwrite")
    assert "3 done, 0 kept, 1 failed" in refused.output
    assert (out / "P001-baseline" / "notes.txt").read_text() == "mine"
    assert contents(out).items() != before.items()
    assert not list(out.glob(".*-P*"))


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda record: "{", ""),
        (lambda record: json.dumps({"tool": "another"}), "version"),
        (lambda record: json.dumps(record | {"volumes_mm3": None}), "volumes_mm3: "),
        (lambda record: json.dumps(record | {"computed_by": 5}), "computed_by: "),
        (lambda record: json.dumps(record | {"flags": "none"}), "flags: "),
        (lambda record: json.dumps(record | {"unchecked": ["volumes"]}), "unchecked: "),
    ],
)
@pytest.mark.usefixtures("plainly")
def test_a_damaged_record_fails_its_own_knee_only(place, pair, finished, tmp_path, damage, field):
    words = (pair, "--models", place / "models", "--out", tmp_path)
    for knee in read_manifest(pair):
        shutil.copytree(finished / knee.case, tmp_path / knee.case)
    record = tmp_path / "P001-baseline" / "segmentation.json"
    record.write_text(damage(json.loads(record.read_text())))
    for more, others in (((), "0 done, 1 kept"), (("--overwrite",), "1 done, 0 kept")):
        done = run(*words, *more)
        assert done.exit_code == 1
        assert f"{others}, 1 failed" in done.output
        assert "is damaged, or not knee3d's" in done.output
        assert field in done.output
        assert "Traceback" not in done.output
    assert record.exists()


def test_a_knee_that_is_changed_while_it_is_segmented_is_not_recorded(place, tmp_path, plainly, monkeypatch):
    cohort = tmp_path / "cohort"
    shutil.copytree(place / "cohort", cohort)
    opinion = Ensemble.predict

    def change_and_look(self: Ensemble, *args: Any, **options: Any) -> Any:
        (cohort / "P001-baseline" / "dicom" / "IM0001.dcm").write_bytes(b"another")
        return opinion(self, *args, **options)

    monkeypatch.setattr(Ensemble, "predict", change_and_look)
    done = run(cohort / "P001-baseline" / "dicom", "--models", place / "models", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "was changed while it was segmented" in done.output
    assert not list((tmp_path / "out").glob("*/"))


def test_models_that_are_changed_during_a_run_are_not_used(place, tmp_path, plainly, monkeypatch):
    models = tmp_path / "models"
    shutil.copytree(place / "models", models)

    def change_and_load(*args: Any, **options: Any) -> Any:
        shutil.copy(models / Plane.AXIAL.value / "saved_model" / "variables" / "variables.index",
                    models / Plane.CORONAL.value / "saved_model" / "variables" / "variables.index")  # fmt: skip
        return load(*args, **options)

    load = segment_case.load_models
    monkeypatch.setattr(segment_case, "load_models", change_and_load)
    done = run(place / "cohort", "--models", models, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert not list((tmp_path / "out").glob("*/segmentation.json"))


def test_a_folder_that_comes_meanwhile_is_left_alone(place, tmp_path, plainly, monkeypatch):
    opinion = Ensemble.predict

    def come_between(self: Ensemble, *args: Any, **options: Any) -> Any:
        (tmp_path / "k").mkdir(exist_ok=True)
        (tmp_path / "k" / "mine.txt").write_text("mine")
        return opinion(self, *args, **options)

    monkeypatch.setattr(Ensemble, "predict", come_between)
    knee = place / "cohort" / "P001-baseline" / "dicom"
    done = run(knee, "--models", place / "models", "--out", tmp_path, "--case", "k")
    assert done.exit_code == 2
    assert [path.name for path in (tmp_path / "k").iterdir()] == ["mine.txt"]


def test_what_is_not_ours_in_the_output_folder_stays(place, tmp_path, plainly):
    knee, models = place / "cohort" / "P001-baseline" / "dicom", ("--models", place / "models")
    (tmp_path / "volumes.csv").write_text("mine")
    assert "is not knee3d's" in run(knee, *models, "--out", tmp_path).output
    assert (tmp_path / "volumes.csv").read_text() == "mine"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "segment.jsonl").write_text("mine")
    assert "is no log of knee3d" in run(knee, *models, "--out", tmp_path / "out").output
    assert (tmp_path / "out" / "segment.jsonl").read_text() == "mine"
    copy = tmp_path / "copy"
    shutil.copytree(knee, copy)
    before = sorted(path.name for path in copy.iterdir())
    for out in (copy, copy / "out"):
        assert "lies among the images" in run(copy, *models, "--out", out).output
    assert sorted(path.name for path in copy.iterdir()) == before
    for name in ("volumes.csv", "Segment.jsonl"):
        assert "no knee can be called" in run(knee, *models, "--out", tmp_path / "out", "--case", name).output


def test_a_folder_that_is_not_ours_is_never_replaced(place, tmp_path, plainly):
    """The images themselves, when --out is where they lie."""
    cohort = tmp_path / "cohort"
    shutil.copytree(place / "cohort", cohort)
    before = contents(cohort)
    for more in ((), ("--overwrite",)):
        refused = run(cohort / "knees.csv", "--models", place / "models", "--out", cohort, *more)
        assert refused.exit_code == 2
        assert "was not made by knee3d segment" in " ".join(refused.output.split())
        assert contents(cohort) == before


def test_a_dry_run_computes_and_writes_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Ensemble, "predict", lambda *args, **options: pytest.fail("computed"))
    shown = run(place / "cohort", "--models", place / "models", "--out", tmp_path / "out", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("to be segmented") == 4
    assert "the side is read" not in shown.output
    one = run(place / "cohort" / "P001-baseline" / "dicom", "--models", place / "models", "--dry-run")
    assert one.output.startswith("P001-baseline            ?  to be segmented")
    assert "?: the side is read from the image when it is segmented" in one.output
    assert not (tmp_path / "out").exists()


def test_a_bad_knee_among_ten_stops_no_other(place, tmp_path, plainly):
    cohort = tmp_path / "cohort"
    sources = [knee.image for knee in read_manifest(place / "cohort" / "knees.csv")]
    for number in range(10):
        shutil.copytree(sources[number % 4], cohort / f"knee{number:02d}" / "dicom")
    bad = cohort / "knee05" / "dicom"
    broken = sorted(bad.iterdir())[7]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    words = (cohort, "--models", place / "models", "--out", tmp_path / "out")
    done = run(*words)
    assert done.exit_code == 1
    assert "9 done, 0 kept, 1 failed" in done.output
    assert done.output.count(broken.name) == 1
    assert done.output.endswith("not done, as said above: knee05\n")
    assert "Traceback" not in done.output
    assert sorted(path.name for path in (tmp_path / "out").glob("knee*")) == [
        f"knee{number:02d}" for number in range(10) if number != 5
    ]
    assert not list((tmp_path / "out").glob(".partial*"))
    broken.write_bytes(whole)
    assert "1 done, 9 kept, 0 failed" in run(*words).output


def test_knees_of_a_table_that_are_not_there_are_failures_of_their_own(place, tmp_path, plainly):
    table = tmp_path / "knees.csv"
    there = read_manifest(place / "cohort" / "knees.csv")[0]
    table.write_text(f"case,patient,visit,side,image,mask\na,p,,R,{there.image},\nb,p,,R,nowhere,\n")
    done = run(table, "--models", place / "models", "--out", tmp_path / "out")
    assert done.exit_code == 1
    told = [json.loads(line) for line in (tmp_path / "out" / "segment.jsonl").read_text().splitlines()]
    assert [line["message"] for line in told if line.get("status") == "failed"] == [
        f"{tmp_path}/nowhere does not exist"
    ]
    assert (tmp_path / "out" / "a" / "segmentation.json").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda models: (models / Plane.AXIAL.value / "card.json").write_text("{"), "not a readable model card"),
        (
            lambda models: (models / Plane.AXIAL.value / "saved_model" / "saved_model.pb").write_bytes(b"?"),
            "not a readable SavedModel",
        ),
        (
            lambda models: (models / Plane.AXIAL.value / "saved_model" / "variables" / "variables.index").unlink(),
            "train this plane again",
        ),
        (lambda models: swap(models, "saved_model"), "holds a network of the"),
        (lambda models: swap(models, ""), "holds a network of the"),
        (
            lambda models: edit(models, Plane.AXIAL, scheme="compartments"),
            "different schemes: cartilage, compartments",
        ),
        (lambda models: edit(models, Plane.AXIAL, class_names=["background", "bone"]), "of different trainings"),
        (lambda models: shutil.rmtree(models) or models.mkdir(), "holds no trained plane"),
    ],
)
def test_models_that_do_not_go_together_are_one_clear_line(place, pair, tmp_path, plainly, spoil, words):
    shutil.copytree(place / "models", tmp_path / "models")
    spoil(tmp_path / "models")
    done = run(pair, "--models", tmp_path / "models", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not list((tmp_path / "out").glob("*/segmentation.json"))
    assert "2 done" in run(pair, "--models", place / "models", "--out", tmp_path / "out").output


def swap(models: Path, what: str) -> None:
    one, other = models / Plane.AXIAL.value / what, models / Plane.CORONAL.value / what
    one.rename(models / "aside")
    other.rename(one)
    (models / "aside").rename(other)


def test_networks_that_must_see_whole_slices_are_not_shown_parts(place, tmp_path, plainly):
    shutil.copytree(place / "models", tmp_path / "models")
    edit(tmp_path / "models", Plane.CORONAL, whole_slices_only=True)
    done = run(place / "cohort" / "P001-baseline" / "dicom", "--models", tmp_path / "models", "--fast", "--out",
               tmp_path / "out", "--case", "knee")  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "knee" / "segmentation.json").read_text())
    assert record["computed_whole_because"] == "the networks of coronal must see whole slices"


def edit(models: Path, plane: Plane, **changes: Any) -> None:
    for path in (models / plane.value / "card.json",):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_models_of_another_spacing_are_refused(place, tmp_path, plainly):
    shutil.copytree(place / "models", tmp_path / "models")
    change_card(tmp_path / "models" / Plane.CORONAL.value / "card.json", spacing_mm=[0.36, 0.36, 0.7])
    words = (place / "cohort", "--models", tmp_path / "models", "--out", tmp_path / "out")
    done = run(*words)
    assert done.exit_code == 2
    assert "the networks know 0.36 x 0.36 x 0.70 mm" in " ".join(done.output.split())
    assert run(*words, "--any-spacing").exit_code == 0


def test_some_planes_share_the_weights(place, tmp_path, plainly):
    done = run(place / "cohort", "--models", place / "models", "--out", tmp_path,
               *(word for plane in (Plane.AXIAL, Plane.SAGITTAL) for word in ("--plane", plane.value)))  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "P001-baseline" / "segmentation.json").read_text())
    assert record["fusion_weights"] == {Plane.AXIAL.value: 0.5, Plane.SAGITTAL.value: 0.5}
    wrong = run(place / "cohort", "--models", place / "models", "--out", tmp_path, "--plane", "oblique")
    assert wrong.exit_code == 2
    assert "Invalid value for '--plane'" in wrong.output


def test_whole_mode_is_the_plain_loop_voxel_for_voxel(place):
    """`predict` of each plane's network over all its slices, stacked, blended, decided: in float32."""
    import keras

    trained = load_models(place / "models")
    image, _ = to_network_input(read_image(entries(place)[0].source.path))
    fused: dict[str, Volume] = {}
    for plane in Plane:
        model = keras.layers.TFSMLayer(str(place / "models" / plane.value / "saved_model"), call_endpoint="serve")
        inputs = keras.Input((None, None, 3), dtype="uint8")
        stack = np.moveaxis(image.array, plane.axis, 0)
        seen = stack_neighbours(stack, range(len(stack)), 1)
        said = keras.Model(inputs, model(inputs)).predict(seen, batch_size=2, verbose=0)
        fused[plane.value] = image.with_array(np.moveaxis(said, 0, plane.axis))
    expected = decide_labels(blend(fused.items(), trained.ensemble.weights))
    found = segment_image(read_image(entries(place)[0].source.path), trained, SegmentConfig())
    np.testing.assert_array_equal(found.network_labels.array, expected.array)
    assert 0 < np.count_nonzero(expected.array) < expected.array.size / 2


def test_fast_is_exact_for_networks_that_see_little_and_says_when_it_is_not_sure(place, tmp_path, plainly):
    """On a bright shell in a large image; and on a knee that fills its image."""
    volume = read_image(entries(place)[0].source.path)
    side = volume.side
    away = np.linalg.norm(np.indices((100, 110, 90)).T - [40, 60, 45], axis=-1).T
    shell = 250 * ((away < 14) & (away > 11))
    trained = load_models(place / "models")
    alone = Volume(shell.astype(np.int16), volume.affine)
    whole = segment_image(KneeImage(alone.array, alone.affine, side), trained, SegmentConfig())
    fast = segment_image(KneeImage(alone.array, alone.affine, side), trained, SegmentConfig(fast=True))
    assert fast.computed_whole_because == ""
    assert whole.labels.array.any()
    np.testing.assert_array_equal(fast.labels.array, whole.labels.array)
    full = segment_image(volume, trained, SegmentConfig(fast=True))
    assert full.computed_whole_because
    np.testing.assert_array_equal(full.labels.array, segment_image(volume, trained, SegmentConfig()).labels.array)


@pytest.mark.parametrize("side", [Side.RIGHT, Side.LEFT])
def test_probabilities_lie_on_the_grid_of_the_image(place, tmp_path, plainly, side):
    entry = next(one for one in entries(place) if one.source.side is side)
    config = SegmentConfig(save_probabilities=True, precision="float32")
    (made,) = api.segment([entry], place / "models", tmp_path, config=config)
    assert made.status == "done", made.message
    labels = read_volume(tmp_path / entry.case / "labels.nii.gz")
    views = {}
    for plane in Plane:
        views[plane.value], names = read_probabilities(tmp_path / entry.case / "probabilities" / f"{plane.value}.h5")
        assert names == ("background", "cartilage")
        assert views[plane.value].array.dtype == np.float16
        assert views[plane.value].same_grid(labels)
    fused = decide_labels(blend(views.items(), dict.fromkeys(views, 1 / 3)))
    assert np.mean(fused.array == labels.array) > 0.999
    assert labels.array.any()
    with pytest.raises(ValueError, match="does not hold probabilities"):
        read_probabilities(tmp_path / entry.case / "labels.nii.gz")


def test_three_lines_in_a_notebook(place, tmp_path):
    image = knee3d.read(entries(place)[0].source.path)
    found = knee3d.KneeModel.load(place / "models", precision="float32").segment(image)
    assert found.labels.same_grid(image)
    assert found.volumes_mm3["cartilage"] == pytest.approx(np.count_nonzero(found.labels.array) * image.voxel_mm3)
    knee3d.write(found.labels, tmp_path / "labels.nii.gz")
    again = knee3d.read(tmp_path / "labels.nii.gz")
    assert again.same_grid(image)
    np.testing.assert_array_equal(again.array, found.labels.array)
    with pytest.raises(ValueError, match="there is no device gpu:7"):
        knee3d.KneeModel.load(place / "models", device="gpu:7").segment(image)


def test_knees_of_other_processes_are_waited_for_and_not_done_again(place, finished, tmp_path, plainly, monkeypatch):
    """One finishes P001 meanwhile; one that had P002 is gone."""
    words = (place / "cohort", "--models", place / "models", "--out")
    out = tmp_path / "out"
    out.mkdir()
    other = leases._take(out / "P001-baseline", take_over=True)
    gone = out / ".lease-P002-baseline" / "node17+0123abcd+4711+89abcdef"
    gone.parent.mkdir()
    gone.touch()
    os.utime(gone, (0, 0))
    (out / ".partial-89abcdef-P002-baseline").mkdir()

    def finish(_: float) -> None:
        shutil.copytree(finished / "P001-baseline", out / "P001-baseline")
        other.release()

    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=time.monotonic, sleep=finish))
    done = run(*words, out)
    assert done.exit_code == 0, done.output
    assert "3 done, 1 kept, 0 failed" in done.output
    assert "P001-baseline" in done.output  # it is said what is waited for
    assert contents(out) == contents(finished)
    assert (out / "volumes.csv").read_bytes() == (finished / "volumes.csv").read_bytes()
    assert sorted(path.name for path in out.glob(".*")) == []


def test_a_lease_that_is_lost_leaves_the_knee_to_whoever_has_it(place, tmp_path, plainly, monkeypatch):
    """Suspended while it computes; the other one finishes, or is killed."""
    knee, models = place / "cohort" / "P001-baseline" / "dicom", ("--models", place / "models")
    assert run(knee, *models, "--out", tmp_path / "other", "--case", "k").exit_code == 0
    opinion = Ensemble.predict
    for ends, words in ((True, "0 done, 1 kept"), (False, "1 done, 0 kept")):
        out, seen = tmp_path / str(ends), []

        def suspended(self: Ensemble, *args: Any, out=out, ends=ends, seen=seen, **options: Any) -> Any:
            if not seen:
                shutil.rmtree(out / ".lease-k")
                if ends:
                    shutil.copytree(tmp_path / "other" / "k", out / "k")
            seen.append(1)
            return opinion(self, *args, **options)

        monkeypatch.setattr(Ensemble, "predict", suspended)
        monkeypatch.setattr(leases, "PAUSE_S", 0.01)
        done = run(knee, *models, "--out", out, "--case", "k")
        assert done.exit_code == 0, done.output
        assert words in done.output
        assert contents(out) == contents(tmp_path / "other")
        assert len(seen) == 2 - ends


def test_of_processes_that_overwrite_each_does_what_the_others_have_not(place, pair, tmp_path, plainly, monkeypatch):
    words = (pair, "--models", place / "models", "--out", tmp_path, "--overwrite")
    began = leases.file_system_time(tmp_path)
    assert "2 done, 0 kept" in run(*words).output
    assert "2 done, 0 kept" in run(*words).output
    monkeypatch.setattr(batch_segmentation, "file_system_time", lambda out: began)  # as one that began with them
    assert "0 done, 2 kept" in run(*words).output


def test_an_image_that_is_as_it_was_is_not_read_again(place, tmp_path, plainly, monkeypatch):
    cohort = tmp_path / "cohort"
    shutil.copytree(place / "cohort", cohort)
    words = (cohort, "--models", place / "models", "--out", tmp_path / "out")
    assert run(*words).exit_code == 0  # of this copy, with its times
    read = []
    content = segmentation_record.content_fingerprint
    monkeypatch.setattr(segmentation_record, "content_fingerprint", lambda path: read.append(path) or content(path))
    assert "4 kept" in run(*words).output
    assert not read
    file = sorted((cohort / "P002-baseline" / "dicom").iterdir())[0]
    times, content_then = file.stat(), file.read_bytes()
    file.write_bytes(content_then[:-1] + b"?")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and time, as far as anyone can set it
    assert "3 kept, 1 failed" in run(*words).output
    assert read == [cohort / "P002-baseline" / "dicom"]


def test_killed_at_any_change_it_goes_on_to_the_same_bytes(place, tmp_path, plainly, monkeypatch):
    """Also where the killed process is this one, whose leases are then as old as may be."""
    monkeypatch.setattr(leases, "STALE_S", -1.0)
    models, config = place / "models", SegmentConfig(precision="float32")
    loaded = segment_case.load_networks(models, config, models_fingerprint(models))
    monkeypatch.setattr(batch_segmentation, "load_networks", lambda *args: loaded)
    knees = entries(place)[:2]

    def work(out: Path) -> None:
        made = api.segment(knees, models, out, config=config, execution=api.ExecutionConfig(jobs=1))
        assert {one.status for one in made} <= {"done", "kept"}

    count = changes_of(lambda: work(tmp_path / "whole"), tmp_path / "whole")
    expected, cut_short = contents(tmp_path / "whole"), 0
    assert count > 50
    for number in sorted({*range(1, count, count // 15), *range(count - 12, count + 1)}):
        out = tmp_path / f"killed {number}"
        killed_at(number, lambda here=out: work(here), out)
        found = contents(out)
        assert found.items() <= expected.items()
        assert len({name.split("/")[0] for name in found}) * len(expected) == len(knees) * len(found)  # whole knees
        cut_short += found != expected
        work(out)
        assert contents(out) == expected
        assert not list(out.glob(".*"))
    assert cut_short > 10


@pytest.mark.slow
def test_killed_in_mid_knee_it_ends_with_the_same_bytes(place, pair, tmp_path, plainly):
    """Killed is a process of its own; what is done before and afterwards is done here."""
    words = [pair, "--models", place / "models", "--precision", "float32", "--out"]
    assert run(*words, tmp_path / "whole").exit_code == 0
    expected, target = contents(tmp_path / "whole"), tmp_path / "killed"
    assert len(expected) == 2 * 7
    command = [*COMMAND, "segment", *words, target]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and not list(target.glob(".partial-*")):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert contents(target).items() < expected.items()
    assert run(*words, target).exit_code == 0
    assert contents(target) == expected
    assert not list(target.glob(".partial*"))


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line_and_finished_knees_stay(place, tmp_path):
    out, table = tmp_path / "small" / "out", tmp_path / "knees.csv"
    write_manifest(table, read_manifest(place / "cohort" / "knees.csv")[:2])
    command = [sys.executable, "-c", "from knee3d.cli import main; main()", "segment", table, "--jobs", 1]
    command += ["--models", place / "models", "--out", out]
    # Room for a picture and a half: the first knee is finished, the second is not.
    done = run_in_small_disk("800k", tmp_path / "small", command)
    assert done.returncode == 1, done.stderr
    assert "no room left in" in done.stderr
    assert "make room and run it again" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stderr
    assert done.stderr.count("segmentation.json") == 1


def test_a_place_where_nothing_can_be_written_is_said_before(place, tmp_path, monkeypatch):
    """Also by a dry run; the networks are not even loaded."""
    monkeypatch.setattr("knee3d.api.batch_segmentation.load_networks", None)
    (tmp_path / "file").touch()
    words = (place / "cohort", "--models", place / "models", "--out")
    for out, said in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "out", "is no folder"),
                      (tmp_path / "h\udcff", "not UTF-8")):  # fmt: skip
        for more in ((), ("--dry-run",)):
            refused = run(*words, out, *more)
            assert refused.exit_code != 0
            assert said in refused.output
            assert "--out" in refused.output
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        refused = run(*words, tmp_path / "new" / "out", "--dry-run")
        assert refused.exit_code != 0
        assert f"nothing can be written in {tmp_path}" in " ".join(refused.output.split())
    monkeypatch.setattr("knee3d.api.case_result.shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    refused = run(*words, tmp_path / "out", "--dry-run")
    assert f"no room left in {tmp_path}" in " ".join(refused.output.split())


def test_a_side_that_the_classes_need_is_asked_for_where_networks_cannot_find_it(place, tmp_path, plainly):
    """DICOM that tells its side is taken at its word. These networks know no medial plateau."""
    dicom = place / "cohort" / "P001-baseline" / "dicom"
    image = read_image(dicom)
    side = image.side
    make_models(tmp_path / "models", tuple(to_canonical(image).spacing_mm.tolist()), scheme="iwoai")
    write_volume(image, tmp_path / "knee.nii.gz")
    words = ("--models", tmp_path / "models", "--out", tmp_path / "out")
    planned = run(tmp_path / "knee.nii.gz", *words, "--dry-run")
    assert planned.exit_code == 0
    assert "or found by the networks" in planned.output
    refused = run(tmp_path / "knee.nii.gz", *words)
    assert refused.exit_code == 2, refused.output
    assert "the networks cannot tell it" in refused.output
    assert "--side" in refused.output
    assert not list((tmp_path / "out").glob("*/segmentation.json"))
    assert run(dicom, *words).exit_code == 0
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    done = run(tmp_path / "knee.nii.gz", *words, "--side", side)
    assert done.exit_code == 0, done.output
    other = Side.LEFT if side is Side.RIGHT else Side.RIGHT
    contradicted = run(dicom, *words, "--side", other, "--dry-run")
    assert contradicted.exit_code == 2
    assert "laterality" in contradicted.output


def test_what_a_path_does_not_say_is_asked_for_before_and_said_again_to_report(place, tmp_path):
    """A NumPy array has no spacing and no axes."""
    image = read_image(place / "cohort" / "P001-baseline" / "dicom")
    side = image.side
    np.save(tmp_path / "knee.npy", image.array)
    told = ("--spacing", ",".join(map(str, image.spacing_mm)), "--axes", axis_codes(image.affine).lower())
    words = (tmp_path / "knee.npy", "--models", place / "models", "--out", tmp_path / "out", "--side", side)
    refused = run(*words, "--dry-run")
    assert refused.exit_code == 2
    assert "--spacing" in refused.output
    assert run(*words, *told, "--dry-run").exit_code == 0
    assert run(*words, *told).exit_code == 0
    report = ("report", tmp_path / "out", tmp_path / "knee.npy")
    assert "--spacing" in run_as_seen(*report).output
    done = run_as_seen(*report, *told)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "knee" / "report" / "report.html").is_file()
