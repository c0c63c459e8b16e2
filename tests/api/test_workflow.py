"""The journeys end to end, on small knees and little training: what they write, and what they refuse."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from made_up_models import change_card
from real_knees import LABEL_NAMES as REAL_LABEL_MAPS
from real_knees import has_label_maps
from test_identity import betrayed, plant

from knee3d import api
from knee3d.api.data import prepare_dataset, write_phantom
from knee3d.cli import main
from knee3d.dataset.case_collection import CaseCollection, Split, load_cases, save_cases
from knee3d.dataset.intensity import WINDOW_RULE, to_pixels
from knee3d.dataset.manifest import read_manifest
from knee3d.dataset.png_slices import read_slices
from knee3d.dataset.preparation import PrepareConfig
from knee3d.geometry.orientation import Side, to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import from_slices
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble, EnsemblePrediction
from knee3d.inference.trained_models import load_models
from knee3d.io.dicom.segmentation import read_segmentation
from knee3d.io.image_source import ImageSource, ReadOptions, read_image
from knee3d.io.label_files import LABEL_FILES
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.phantom.cohort import CohortConfig
from knee3d.postprocess.cleaning import CleaningConfig
from knee3d.training import train_view

SHARED = Path(__file__).parents[3] / "shared"
REAL_DICOM = SHARED / "data" / "mese_t2_dicom"
PREPARATION = PrepareConfig(SCHEMES["compartments"], None, (0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def journey(tiny, made_once) -> Path:
    """cohort/, dataset/ and models/ of five small knees, trained as little as possible and fused."""
    return made_once("journey", partial(make_journey, tiny))


def make_journey(network: str, out: Path) -> None:
    table = write_phantom(CohortConfig(5, (32, 32, 32), seed=1), out / "cohort", jobs=2)
    prepare_dataset(table, out / "dataset", PREPARATION, None, jobs=2)
    config = train_view.TrainConfig().with_options(
        network=network,
        encoder_weights="none",
        epochs=1,
        batch_size=4,
        learning_rate=1e-2,
        limit_slices=32,
        augment="none",
    )
    folders = api.train_views(out / "dataset", list(Plane), out / "models", config, api.RunOptions())
    assert [folder.name for folder in folders] == [plane.value for plane in Plane]
    api.KneeModel(out / "models").fit_fusion(out / "dataset")


def segment_one(
    image: Path, models: Path, out: Path, case: str, side: Side = Side.UNKNOWN, **wishes: Any
) -> api.CaseResult:
    cases = [api.InputCase(case, ImageSource(image, side))]
    (made,) = api.segment(cases, models, out, config=api.SegmentConfig(**wishes))
    return made


@pytest.mark.slow
def test_prepared_knees_are_split_by_patient(journey):
    dataset = load_cases(journey / "dataset")
    assert {case.split for case in dataset.cases} == {Split.TRAIN, Split.VAL, Split.TEST}
    visits = [case for case in dataset.cases if case.patient == "P001"]
    assert len(visits) == 2
    assert len({case.split for case in visits}) == 1
    assert json.loads((journey / "dataset" / "cases.json").read_text())["labels"]["3"] == "patellar cartilage"


@pytest.mark.slow
def test_fusion_weights_are_kept_by_plane_and_fitted_on_validation_only(journey, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    fusion = api.KneeModel(models).fit_fusion(journey / "dataset")
    written = json.loads((models / "fusion.json").read_text())
    assert written["weights"] == dict(fusion.weights)
    assert set(written["weights"]) == {plane.value for plane in Plane}
    validation = load_cases(journey / "dataset").of_split(Split.VAL)
    assert written["fitted_on"] == {"split": "val", "cases": [case.name for case in validation]}
    assert written["dice"]["fused"] >= max(fusion.alone.values())


@pytest.mark.slow
def test_a_killed_fuse_goes_on_and_another_way_needs_no_networks(journey, tmp_path, monkeypatch):
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    shutil.rmtree(models / "fusion.evidence", ignore_errors=True)
    (models / "fusion.json").unlink(missing_ok=True)
    validation = load_cases(journey / "dataset").of_split(Split.VAL)
    looked_at: list[str] = []
    opinion = Ensemble.predict

    def killed_at_the_last(self: Ensemble, image: Volume, title: str, **options: Any) -> EnsemblePrediction:
        looked_at.append(title)
        if len(looked_at) == len(validation):
            raise KeyboardInterrupt
        return opinion(self, image, title, **options)

    monkeypatch.setattr(Ensemble, "predict", killed_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        api.KneeModel(models).fit_fusion(journey / "dataset")
    assert not (models / "fusion.json").exists()
    assert len(list((models / "fusion.evidence").glob("*.npz"))) == len(validation) - 1
    fusion = api.KneeModel(models).fit_fusion(journey / "dataset")
    assert len(looked_at) == len(validation) + 1
    other = api.KneeModel(models).fit_fusion(journey / "dataset", objective="tissues", rule="vote", seed=4)
    assert len(looked_at) == len(validation) + 1
    assert (fusion.rule, other.rule, other.objective) == ("linear", "vote", "tissues")
    assert load_models(models).ensemble.rule == "vote"
    broken = next((models / "fusion.evidence").glob("*.npz"))
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{broken.name} is damaged .*delete it"):
        api.KneeModel(models).fit_fusion(journey / "dataset")


@pytest.mark.slow
def test_the_papers_weights_by_hand_from_the_command_line(journey, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    paper = dict(zip((plane.value for plane in Plane), (0.4012, 0.0911, 0.5077), strict=True))
    command = ["fuse", str(journey / "dataset"), "--models", str(models)]
    given = [word for name, value in paper.items() for word in ("--weight", name, str(value))]
    done = CliRunner().invoke(main, [*command, *given, "--thresholds"])
    assert done.exit_code == 0, done.output
    assert "0.5077" in done.output
    assert load_models(models).ensemble.weights == paper
    for words, message in [
        ([*given[:3]], "weights must be at least 0 and add up to 1"),
        (["--weight", "sagittal=0.5"], "requires 2 arguments"),
        (["--weight", Plane.AXIAL.value, "1"], "but views are"),
    ]:
        refused = CliRunner().invoke(main, [*command, *words])
        assert refused.exit_code != 0
        assert message in " ".join(refused.output.split())
        assert load_models(models).ensemble.weights == paper


@pytest.mark.slow
def test_a_fusion_older_than_its_networks_is_warned_of(journey, tmp_path, caplog):
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    api.KneeModel(models).fit_fusion(journey / "dataset")
    load_models(models)
    assert "older" not in caplog.text
    content = json.loads((models / "fusion.json").read_text())
    content["networks"][Plane.AXIAL.value] = "another"
    (models / "fusion.json").write_text(json.dumps(content))
    load_models(models)
    assert f"older than the networks of {Plane.AXIAL.value}: run knee3d fuse again" in caplog.text


@pytest.mark.slow
def test_weights_are_not_fitted_on_patients_who_were_test_patients(journey, tmp_path):
    dataset = load_cases(journey / "dataset")
    turned = {Split.TRAIN: Split.TRAIN, Split.TEST: Split.VAL, Split.VAL: Split.TEST}
    cases = tuple(replace(case, split=turned[case.split]) for case in dataset.cases)
    for case in cases:
        (tmp_path / case.name).symlink_to(journey / "dataset" / case.name)
    save_cases(CaseCollection(tmp_path, dataset.scheme, cases))
    with pytest.raises(ValueError, match="they may have been tested on"):
        api.KneeModel(journey / "models").fit_fusion(tmp_path)


@pytest.mark.slow
def test_an_evaluation_is_numbers_and_pictures_of_unseen_knees(journey, tmp_path):
    evaluation = api.KneeModel(journey / "models").evaluate(api.Dataset.load(journey / "dataset").test, tmp_path)
    scores = api.Evaluation.from_json((tmp_path / "scores.json").read_bytes())
    assert scores.to_json() == evaluation.to_json()
    assert (tmp_path / "scores.json").read_text() == evaluation.to_json() + "\n"
    Draft202012Validator(api.Evaluation.json_schema()).validate(json.loads(evaluation.to_json()))
    names = [*PREPARATION.scheme.names, "foreground"]
    for name in (*(plane.value for plane in Plane), "fused"):
        view = scores.pooled[name]
        assert set(names) <= set(view.dice)
        matrix = np.array(view.confusion_matrix)
        assert matrix.shape == (4, 4)
        voxels = sum(np.prod(case.shape) for case in load_cases(journey / "dataset").of_split(Split.TEST))
        assert matrix.sum() == voxels
    unseen = [case.name for case in load_cases(journey / "dataset").of_split(Split.TEST)]
    assert sorted(scores.cases) == sorted(unseen)
    with (tmp_path / "scores.csv").open() as file:
        assert {"case", "view", "tissue", "measure", "value", "low", "high"} == set(next(csv.DictReader(file)))
    for picture in (tmp_path / "confusion.png", *[tmp_path / "overview" / f"{name}.png" for name in unseen]):
        assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_other_ways_of_fusion_and_a_cleaned_one_are_scored_beside_it(journey, tmp_path):
    cleaning = api.SegmentConfig(remove_below_mm3=30.0, fill_below_mm3=5.0)
    model = api.KneeModel(journey / "models", cleaning)
    data = api.Dataset.load(journey / "dataset").val
    evaluation = model.evaluate(data, tmp_path, compare=True, surfaces=False, pictures=False)
    assert not (tmp_path / "overview").exists()
    assert evaluation.other_voxels == {}
    ways = {*(plane.value for plane in Plane), "fused, cleaned", "mean", "logarithmic", "vote", "STAPLE"}
    assert set(evaluation.pooled) == {*ways, "fused"}
    assert evaluation.cleaning == CleaningConfig(remove_below_mm3=30.0, fill_below_mm3=5.0, keep_largest=False)
    counts = {way: np.sum(scores.confusion_matrix) for way, scores in evaluation.pooled.items()}
    assert len(set(counts.values())) == 1
    for scores in evaluation.cases.values():
        assert "assd_mm" not in scores["fused"].measures
        matrices = [np.array(scores[way].confusion_matrix) for way in ("fused", "fused, cleaned")]
        assert not np.array_equal(*matrices)


@pytest.mark.slow
def test_patients_that_were_trained_on_are_not_tested_on(journey, tmp_path):
    """Another split of the same knees, as a second `prepare` with another seed would draw it."""
    dataset = load_cases(journey / "dataset")
    turned = {Split.TRAIN: Split.TEST, Split.TEST: Split.VAL, Split.VAL: Split.TRAIN}
    cases = tuple(replace(case, split=turned[case.split]) for case in dataset.cases)
    for case in cases:
        (tmp_path / "leaky").mkdir(exist_ok=True)
        (tmp_path / "leaky" / case.name).symlink_to(journey / "dataset" / case.name)
    save_cases(CaseCollection(tmp_path / "leaky", dataset.scheme, cases))
    with pytest.raises(ValueError, match="were in the train split when the models, or those"):
        api.KneeModel(journey / "models").evaluate(api.Dataset.load(tmp_path / "leaky").test, tmp_path / "out")
    other = CaseCollection(tmp_path / "leaky", SCHEMES["bones"], cases)
    save_cases(other)
    with pytest.raises(ValueError, match="scheme bones, the models compartments"):
        api.KneeModel(journey / "models").fit_fusion(tmp_path / "leaky")


def with_window_rule(dataset: CaseCollection, folder: Path, *names: str) -> CaseCollection:
    """The same slices in another folder, where the windows of some cases are said to come from another rule."""
    cases = tuple(replace(case, window=replace(case.window, rule="another")) if case.name in names else case
                  for case in dataset.cases)  # fmt: skip
    for case in cases:
        (folder / case.name).symlink_to(dataset.folder / case.name)
    save_cases(other := CaseCollection(folder, dataset.scheme, cases))
    return other


@pytest.mark.slow
def test_images_and_networks_of_different_windows_do_not_go_together(journey, tmp_path):
    dataset = load_cases(journey / "dataset")
    names = [case.name for case in dataset.cases]
    (tmp_path / "all").mkdir()
    with_window_rule(dataset, tmp_path / "all", *names)
    for refused in (
        lambda: api.KneeModel(journey / "models").fit_fusion(tmp_path / "all"),
        lambda: api.KneeModel(journey / "models").evaluate(api.Dataset.load(tmp_path / "all").test, tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=r"all are windowed by the rule 'another'.*prepare it again"):
            refused()
    (tmp_path / "some").mkdir()
    with_window_rule(dataset, tmp_path / "some", names[0])
    with pytest.raises(ValueError, match=r"some has images windowed by different rules; run knee3d prepare again"):
        api.KneeModel(journey / "models").fit_fusion(tmp_path / "some")


@pytest.mark.slow
def test_networks_of_another_window_segment_nothing(journey, tmp_path):
    knee = read_manifest(journey / "cohort" / "knees.csv")[0]
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    cards = [models / plane.value / "card.json" for plane in Plane]
    for number, card in enumerate(cards):
        assert json.loads(card.read_text())["window_rule"] == WINDOW_RULE
        change_card(card, window_rule="another")
        said = segment_one(knee.image, models, tmp_path / "out", "someone")
        assert said.status == "failed"
        assert ("different rules" if number + 1 < len(cards) else "windowed by the rule 'another'") in said.message
    assert not (tmp_path / "out" / "someone").exists()


@pytest.mark.slow
def test_cases_of_another_window_are_prepared_again(cohort_of, tmp_path):
    table = cohort_of(CohortConfig(3, (16, 16, 16)), tmp_path / "cohort")
    first = prepare_dataset(table, tmp_path / "d", replace(PREPARATION, fractions=(1, 0, 0)), None, jobs=2)
    path = tmp_path / "d" / first.cases[0].name / "case.json"
    content = json.loads(path.read_text())
    assert content["window"].pop("rule") == WINDOW_RULE
    path.write_text(json.dumps(content))
    others = [(tmp_path / "d" / case.name / "case.json").stat().st_mtime_ns for case in first.cases[1:]]
    again = prepare_dataset(table, tmp_path / "d", replace(PREPARATION, fractions=(1, 0, 0)), None, jobs=2)
    assert again.window_rule == WINDOW_RULE
    assert json.loads(path.read_text())["window"]["rule"] == WINDOW_RULE
    assert [(tmp_path / "d" / case.name / "case.json").stat().st_mtime_ns for case in first.cases[1:]] == others


@pytest.mark.slow
@pytest.mark.parametrize(("side", "form"), [(Side.RIGHT, "nifti"), (Side.LEFT, "nrrd"), (Side.LEFT, "dicom-seg")])
def test_labels_come_back_on_the_inputs_own_grid(journey, tmp_path, side, form):
    knee = next(knee for knee in read_manifest(journey / "cohort" / "knees.csv") if knee.side is side)
    volumes = segment_one(knee.image, journey / "models", tmp_path, "someone", label_format=form).record.volumes_mm3
    image = read_image(knee.image)
    out = tmp_path / "someone"
    path = out / LABEL_FILES[form]
    if form == "dicom-seg":
        labels = to_canonical(read_segmentation(path)[0]).padded_to(to_canonical(image))
    else:
        labels = read_volume(path)
        assert labels.same_grid(image)
    measured = tissue_volumes(labels, PREPARATION.scheme)
    np.testing.assert_allclose(list(volumes.values()), measured, rtol=1e-4)
    assert (out / "volumes.csv").read_text() == (tmp_path / "volumes.csv").read_text()
    with (out / "volumes.csv").open() as file:
        rows = {row["tissue"]: float(row["volume_mm3"]) for row in csv.DictReader(file) if row["case"] == "someone"}
    assert rows == pytest.approx(volumes)
    assert json.loads((out / "labels.json").read_text()) == {
        "1": "femoral cartilage", "2": "tibial cartilage", "3": "patellar cartilage"
    }  # fmt: skip
    assert (out / "overview.png").stat().st_size > 10_000


@pytest.mark.slow
def test_results_do_not_say_whose_knee_it_is(journey, tmp_path):
    knee = read_manifest(journey / "cohort" / "knees.csv")[0]
    shutil.copytree(knee.image, tmp_path / "dicom")
    for path in (tmp_path / "dicom").iterdir():
        image = pydicom.dcmread(path)
        plant(image)
        image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.3", "1.2.4"
        pydicom.dcmwrite(path, image)
    segment_one(tmp_path / "dicom", journey / "models", tmp_path / "out", "someone", label_format="dicom-seg")
    assert betrayed(tmp_path / "out") == []


@pytest.mark.slow
def test_voxels_of_another_size_than_in_training_are_refused(journey, tmp_path, caplog, plainly):
    """The networks see pixels, not millimetres."""
    knee = read_manifest(journey / "cohort" / "knees.csv")[0]
    image = read_image(knee.image)
    finer = Volume(image.array, image.affine @ np.diag([1, 1, 0.5, 1]))
    write_volume(finer, tmp_path / "finer.nii.gz")
    refused = segment_one(tmp_path / "finer.nii.gz", journey / "models", tmp_path / "out", "finer", Side.RIGHT)
    assert refused.status == "failed"
    assert "while the networks know" in refused.message
    assert "--any-spacing" in refused.message
    assert not (tmp_path / "out" / "finer").exists()
    taken = segment_one(
        tmp_path / "finer.nii.gz", journey / "models", tmp_path / "out", "f", Side.RIGHT, any_spacing=True
    )
    assert taken.status == "done"
    assert "do not trust the labels" in caplog.text


@pytest.mark.slow
def test_a_left_knee_gets_the_mirrored_labels_of_its_mirror_image(journey, tmp_path, plainly):
    knee = read_manifest(journey / "cohort" / "knees.csv")[0]
    right = read_image(knee.image)
    flipped = np.diag([-1.0, 1, 1, 1])
    left = Volume(right.array, flipped @ right.affine)  # the same voxels in the mirror: a left knee
    found = []
    for name, volume, side in (("right", right, Side.RIGHT), ("left", left, Side.LEFT)):
        path = tmp_path / f"{name}.nrrd"
        image = sitk.GetImageFromArray(volume.array.T)
        spacing, lps = volume.spacing_mm, np.diag([-1.0, -1, 1, 1]) @ volume.affine
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        sitk.WriteImage(image, str(path))
        segment_one(path, journey / "models", tmp_path / "out", name, side)
        found.append(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / name / "labels.nii.gz"))))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
def test_models_of_a_folder_must_fit_together(journey, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trained plane"):
        load_models(tmp_path)
    models = tmp_path / "models"
    shutil.copytree(journey / "models", models)
    elsewhere = json.loads((models / "fusion.json").read_text()) | {"weights": {"elsewhere": 1.0}}
    (models / "fusion.json").write_text(json.dumps(elsewhere))
    with pytest.raises(ValueError, match="fusion weights are for"):
        load_models(models)
    assert len(load_models(models, fused=False).ensemble.weights) == len(Plane)
    (models / "fusion.json").write_text("[]")
    with pytest.raises(ValueError, match=r"fusion\.json is not a readable weight file"):
        load_models(models)
    (models / "fusion.json").unlink()
    assert list(load_models(models).ensemble.weights.values()) == pytest.approx([1 / 3] * 3)
    card = models / Plane.AXIAL.value / "card.json"
    card.write_text(card.read_text().replace('"scheme": "compartments"', '"scheme": "bones"'))
    with pytest.raises(ValueError, match="different schemes: bones, compartments"):
        load_models(models)


def test_bad_knees_are_listed_and_good_ones_kept(cohort_of, tmp_path):
    table = cohort_of(CohortConfig(3, (16, 16, 16)), tmp_path / "cohort")
    slices = sorted((tmp_path / "cohort" / "P002-baseline" / "dicom").iterdir())
    slices[3].unlink()
    with pytest.raises(ValueError, match=r"1 of 4 knees could not be prepared:\n.*P002-baseline.*mm apart"):
        prepare_dataset(table, tmp_path / "dataset", PREPARATION, None, jobs=2)
    kept = load_cases(tmp_path / "dataset")
    assert sorted(case.name for case in kept.cases) == ["P001-baseline", "P001-follow-up", "P003-baseline"]


def test_a_table_may_lose_knees_but_not_all_of_them(cohort_of, tmp_path, caplog):
    table = cohort_of(CohortConfig(3, (16, 16, 16)), tmp_path / "cohort")
    split = replace(PREPARATION, fractions=(1, 0, 0))
    prepare_dataset(table, tmp_path / "d", split, None, jobs=2)
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:3]))
    dataset = prepare_dataset(table, tmp_path / "d", split, None, jobs=2)
    assert [case.name for case in dataset.cases] == ["P001-baseline", "P002-baseline"]
    assert "2 cases are not in" in caplog.text
    table.write_text("".join([lines[0], lines[3].replace("P003-baseline,", "other,", 1)]))
    with pytest.raises(ValueError, match="holds 2 cases, none of which is in"):
        prepare_dataset(table, tmp_path / "d", split, None, jobs=2)
    assert len(load_cases(tmp_path / "d").cases) == 2


def test_a_finished_dataset_keeps_its_scheme_and_says_who_changes_split(cohort_of, tmp_path, caplog):
    def told(dataset):
        return {case.name: (case.fingerprint, case.split) for case in dataset.cases}

    table = cohort_of(CohortConfig(4, (16, 16, 16)), tmp_path / "cohort")
    first = prepare_dataset(table, tmp_path / "d", PREPARATION, None, jobs=2)
    other = next(scheme for scheme in SCHEMES.values() if scheme.name != PREPARATION.scheme.name)
    with pytest.raises(ValueError, match=f"has masks of the scheme {PREPARATION.scheme.name}.*give another folder"):
        prepare_dataset(table, tmp_path / "d", replace(PREPARATION, scheme=other), None, jobs=2)
    assert told(load_cases(tmp_path / "d")) == told(first)
    assert told(prepare_dataset(table, tmp_path / "d", PREPARATION, None, jobs=2)) == told(first)
    assert "in another split" not in caplog.text
    again = prepare_dataset(table, tmp_path / "d", replace(PREPARATION, fractions=(1, 0, 0)), None, jobs=2)
    moved = {case.patient for case in first.cases if case.split is not Split.TRAIN}
    assert {case.split for case in again.cases} == {Split.TRAIN}
    assert f"{len(moved)} of 4 patients are in another split than before" in caplog.text
    assert "were sliced again" not in caplog.text
    count = len(first.cases)
    prepare_dataset(table, tmp_path / "d", replace(PREPARATION, fractions=(1, 0, 0), bits=16), None, jobs=2)
    assert f"{count} of {count} knees were sliced again" in caplog.text


def test_a_broken_run_keeps_the_splits_and_what_is_said_of_them(cohort_of, tmp_path, caplog):
    table = cohort_of(CohortConfig(4, (16, 16, 16)), tmp_path / "cohort")
    lines = table.read_text().splitlines()
    unlabelled = lines[1].rsplit(",", 1)[0].replace("baseline", "again", 2) + ","
    shutil.copytree(table.parent / "P001-baseline", table.parent / "P001-again")
    table.write_text("\n".join([*lines, unlabelled]) + "\n")
    first = prepare_dataset(table, tmp_path / "d", PREPARATION, None, jobs=2)
    assert [case.split for case in first.cases if not case.labelled] == [Split.NONE]
    prepare_dataset(table, tmp_path / "d", PREPARATION, None, jobs=2)
    assert "another split" not in caplog.text
    table.write_text("\n".join([*lines, unlabelled, "new,new,,R,labels.json,"]) + "\n")
    other = replace(PREPARATION, fractions=(1, 0, 0), bits=16)
    with pytest.raises(ValueError, match="1 of 7 knees could not be prepared"):
        prepare_dataset(table, tmp_path / "d", other, None, jobs=2)
    assert "6 of 6 knees were sliced again" in caplog.text
    broken = {case.name: case.split for case in load_cases(tmp_path / "d").cases}
    assert broken == {case.name: case.split for case in first.cases}
    caplog.clear()
    table.write_text("\n".join([*lines, unlabelled]) + "\n")
    prepare_dataset(table, tmp_path / "d", other, None, jobs=2)
    moved = {case.patient for case in first.cases if case.split in (Split.VAL, Split.TEST)}
    assert f"{len(moved)} of 4 patients are in another split than before" in caplog.text


def read_by_simpleitk(folder: Path, echo: int) -> Volume:
    """The same slices through SimpleITK's own reader: GDCM sorts them and makes the geometry."""
    headers = {path: pydicom.dcmread(path, force=True) for path in folder.rglob("*") if path.is_file()}
    chosen = {path: header for path, header in headers.items() if header.get("EchoNumbers") == echo}
    along = sorted(chosen, key=lambda path: float(chosen[path].ImagePositionPatient[0]))
    image = sitk.ReadImage([str(path) for path in along])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ affine)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DICOM.exists(), reason="no real DICOM under ../shared")
def test_real_dicom_is_prepared_and_segmented_voxel_for_voxel(journey, tmp_path, plainly):
    (tmp_path / "series").symlink_to(REAL_DICOM)
    table = tmp_path / "knees.csv"
    table.write_text("case,patient,visit,side,image,mask\nreal,R1,,,series,\n")
    dataset = prepare_dataset(
        table, tmp_path / "dataset", replace(PREPARATION, choice=ReadOptions(echo="3")), None, jobs=1
    )
    case = dataset.cases[0]
    assert (case.side, case.labelled, case.split) == (Side.UNKNOWN, False, Split.NONE)

    expected = to_canonical(read_by_simpleitk(REAL_DICOM, 3))
    np.testing.assert_allclose(case.affine, expected.affine, atol=1e-4)
    np.testing.assert_array_equal(dataset.image(case).array, to_pixels(expected, case.window).array)
    for plane in Plane:
        stack = read_slices(dataset.slice_paths(case, plane, "image"))
        np.testing.assert_array_equal(from_slices(stack, plane, case.affine).array, dataset.image(case).array)

    source = ImageSource(tmp_path / "series", Side.RIGHT, ReadOptions(echo="3"))
    config = api.SegmentConfig(any_spacing=True)
    (made,) = api.segment([api.InputCase("real", source)], journey / "models", tmp_path / "out", config=config)
    assert made.message == ""
    labels = read_volume(tmp_path / "out" / "real" / "labels.nii.gz")
    assert labels.same_grid(read_image(tmp_path / "series", ReadOptions(echo="3")))
    assert to_canonical(labels).same_grid(expected)
    assert "--echo" in segment_one(tmp_path / "series", journey / "models", tmp_path / "out", "other").message


@pytest.mark.nightly
@has_label_maps
def test_real_label_maps_survive_the_whole_way_to_png_and_back(tmp_path):
    """Every voxel and every mm3, through DICOM, NIfTI, mirroring and PNG, in a right and a left knee."""
    recipe = CohortConfig(2, sources=tuple(REAL_LABEL_MAPS), strength=0)
    table = write_phantom(recipe, tmp_path / "cohort", jobs=1)
    scheme = SCHEMES["bones"]
    preparation = PrepareConfig(scheme, None, (0.5, 0.5, 0))
    dataset = prepare_dataset(table, tmp_path / "dataset", preparation, None, jobs=1)
    for path, name in zip(REAL_LABEL_MAPS, ("P001-baseline", "P002-baseline"), strict=True):
        case = next(case for case in dataset.cases if case.name == name)
        source = to_canonical(read_volume(path))
        expected = source.with_array(labels_to_classes(source.array, LABEL_NAMES["pymskt"], scheme))
        for plane in Plane:
            stack = read_slices(dataset.slice_paths(case, plane, "mask"))
            np.testing.assert_array_equal(from_slices(stack, plane, case.affine).array, expected.array)
        np.testing.assert_allclose(
            tissue_volumes(dataset.mask(case), scheme), tissue_volumes(expected, scheme), rtol=1e-6
        )
