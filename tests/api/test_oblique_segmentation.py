"""More views than the planes: oblique ones, from the command line to the labels."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from as_seen import run_as_seen
from click.testing import Result
from made_up_models import change_card, make_models, make_network, make_volume_network

from knee3d.api.data import write_phantom
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segment_image import segment_image
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import read_manifest
from knee3d.dataset.preparation import to_network_input
from knee3d.geometry.directions import radial_rotations, sphere_rotations
from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import OBLIQUE
from knee3d.inference.oblique_view import ObliqueView
from knee3d.inference.prediction import PlaneView
from knee3d.inference.trained_models import load_models, models_fingerprint
from knee3d.io.image_source import read_image
from knee3d.io.probability_file import read_probabilities
from knee3d.io.volume_file import read_volume
from knee3d.models.fusion_file import fusion_path
from knee3d.models.model_folder import network_fingerprint
from knee3d.phantom.cohort import CohortConfig
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice

PLANES = [plane.value for plane in Plane]
NAMES = [*PLANES, *(f"oblique-{number}" for number in range(1, 5))]


@pytest.fixture(scope="module")
def place(made_once) -> Path:
    """cohort/ of knees, models/ that suit them and hold an oblique network, and planes-only/ without."""
    return made_once("oblique", make_place)


def make_place(folder: Path) -> None:
    table = write_phantom(CohortConfig(1, (64, 60, 56), seed=1), folder / "cohort", jobs=2)
    image = read_image(read_manifest(table)[0].image)
    spacing = to_canonical(image).spacing_mm
    make_models(folder / "planes-only", tuple(spacing.tolist()))
    shutil.copytree(folder / "planes-only", folder / "models")
    make_network(folder / "models", OBLIQUE, (float(spacing.min()),) * 3, "cartilage", 170, sphere_rotations(4))


pytestmark = pytest.mark.usefixtures("plainly")


def run(*words: object) -> Result:
    return run_as_seen("segment", *words)


def said(result: Result) -> str:
    return " ".join(result.output.split())


def record_of(out: Path, case: str = "P001-baseline") -> dict[str, Any]:
    return json.loads((out / case / "segmentation.json").read_text())


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def raw_card_with(**changes: Any) -> Callable[[Path], None]:
    """What changes the card of the oblique network, and not what its SavedModel says."""
    return lambda models: edit(models / OBLIQUE / "card.json", **changes)


def card_with(**changes: Any) -> Callable[[Path], None]:
    """What changes the card of the oblique network in a models folder."""
    return lambda models: change_card(models / OBLIQUE / "card.json", **changes)


def test_labels_are_much_as_they_are_without_and_the_record_names_all_views(place, tmp_path):
    words = (place / "cohort", "--models", place / "models", "--precision", "float32")
    assert run(*words, "--out", tmp_path / "planes").exit_code == 0
    done = run(*words, "--out", tmp_path / "all", "--views", "oblique:4", "--save-probabilities")
    assert done.exit_code == 0, done.output
    assert "2 done, 0 kept, 0 failed" in done.output
    for case in sorted(path.parent.name for path in (tmp_path / "all").glob("*/segmentation.json")):
        before, after = (read_volume(tmp_path / out / case / "labels.nii.gz") for out in ("planes", "all"))
        assert after.same_grid(before)
        assert before.array.any()
        assert dice(confusion_matrix(before.array, after.array, 2))[1] > 0.9
        record = record_of(tmp_path / "all", case)
        assert record["fusion_weights"] == pytest.approx(dict.fromkeys(NAMES, 1 / 7))
        assert set(record["network_fingerprints"]) == {*PLANES, OBLIQUE}
        assert record["settings"]["oblique_views"] == 4
        for name in NAMES:
            view, _ = read_probabilities(tmp_path / "all" / case / "probabilities" / f"{name}.h5")
            assert view.same_grid(after)
            assert dice(confusion_matrix(before.array, (view.array[..., 1] > 0.5).astype(np.uint8), 2))[1] > 0.8
    assert record_of(tmp_path / "planes")["settings"]["oblique_views"] == 0


def test_some_planes_and_oblique_views_share_the_weights(place, tmp_path):
    words = (place / "cohort", "--models", place / "models", "--out", tmp_path, "--fast")
    done = run(*words, "--plane", PLANES[0], "--views", "OBLIQUE:1")
    assert done.exit_code == 0, done.output
    assert record_of(tmp_path)["fusion_weights"] == {PLANES[0]: 0.5, "oblique-1": 0.5}


def test_fast_is_the_same_where_the_quick_look_is_sure(place):
    volume = read_image(read_manifest(place / "cohort" / "knees.csv")[0].image)
    away = np.linalg.norm(np.indices((100, 110, 90)).T - [40, 60, 45], axis=-1).T
    shell = np.random.default_rng(0).normal(50, 5, away.shape) + 200 * ((away < 14) & (away > 11))
    image = type(volume)(shell.astype(np.int16), volume.affine)
    trained = load_models(place / "models", oblique=2)
    whole, fast = (segment_image(image, trained, SegmentConfig(fast=fast)) for fast in (False, True))
    assert fast.computed_whole_because == ""
    assert whole.labels.array.any()
    np.testing.assert_array_equal(fast.labels.array, whole.labels.array)


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--launcher", "ray")])
def test_without_a_network_for_them_there_is_one_clear_line(place, tmp_path, more):
    words = (place / "cohort", "--models", place / "planes-only", "--out", tmp_path / "out", "--views", "oblique:3")
    refused = run(*words, *more)
    assert refused.exit_code == 2
    assert "holds no network that was trained on oblique slices, only " + ", ".join(PLANES) in said(refused)
    assert "Traceback" not in refused.output
    assert not (tmp_path / "out").exists()


def test_where_only_oblique_networks_are_it_is_said_how_to_look_with_them(place, tmp_path):
    shutil.copytree(place / "models" / OBLIQUE, tmp_path / "models" / OBLIQUE)
    refused = run(place / "cohort", "--models", tmp_path / "models", "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert str(tmp_path / "models") in said(refused)
    assert "--views oblique:N" in said(refused)
    (tmp_path / "models" / OBLIQUE).rename(tmp_path / "models" / f"{OBLIQUE}.training")
    refused = run(place / "cohort", "--models", tmp_path / "models", "--out", tmp_path / "out")
    assert "holds no trained plane; train first" in said(refused)  # a training under way cannot be looked with


@pytest.mark.parametrize(
    "views",
    ["", "oblique", "oblique:", "oblique:0", "oblique:31", "oblique:-2", "oblique:2.5", "oblique:²", "tilted:3"],
)
def test_other_views_are_a_usage_error(place, tmp_path, views):
    refused = run(place / "cohort", "--models", place / "models", "--out", tmp_path / "out", "--views", views)
    assert refused.exit_code == 2
    assert "Usage:" in refused.output
    assert "say oblique:N, with N from 1 to 30" in said(refused)
    assert not (tmp_path / "out").exists()


def test_knees_of_another_number_of_views_are_not_kept_silently(place, tmp_path):
    words = (place / "cohort", "--models", place / "models", "--out", tmp_path)
    assert run(*words, "--views", "oblique:2").exit_code == 0
    assert "0 done, 2 kept" in run(*words, "--views", "oblique:2").output
    for other in (("--views", "oblique:3"), ()):
        refused = run(*words, *other)
        assert refused.exit_code == 2
        assert "--overwrite" in said(refused)
    assert record_of(tmp_path)["settings"]["oblique_views"] == 2


def test_another_oblique_network_is_other_models(place, tmp_path):
    models, out = tmp_path / "models", tmp_path / "out"
    shutil.copytree(place / "models", models)
    words = (place / "cohort", "--models", models, "--out", out, "--views", "oblique:1")
    assert run(*words).exit_code == 0
    planes = models_fingerprint(models)
    index = models / OBLIQUE / "saved_model" / "variables" / "variables.index"
    spacing = json.loads((models / OBLIQUE / "card.json").read_text())["spacing_mm"]
    before = index.read_bytes()
    shutil.rmtree(models / OBLIQUE)
    make_network(models, OBLIQUE, tuple(spacing), "cartilage", 150, sphere_rotations(4))
    assert index.read_bytes() != before
    assert models_fingerprint(models) == planes  # whoever asks for planes only does not notice
    refused = run(*words)
    assert refused.exit_code == 2
    assert "--overwrite" in said(refused)


@pytest.mark.parametrize(
    "looks", [{"rotations": [turn.tolist() for turn in sphere_rotations(7)[3:]]}, {"spacing_mm": [0.9] * 3}]
)
def test_a_network_that_looks_otherwise_is_another_one(place, tmp_path, looks):
    models = tmp_path / "models"
    shutil.copytree(place / "models", models)
    fingerprints = [network_fingerprint(models, name) for name in (OBLIQUE, PLANES[0])]
    fused = models_fingerprint(models, oblique=4)
    card_with(**looks)(models)
    change_card(models / PLANES[0] / "card.json", licence="CC0")
    assert network_fingerprint(models, OBLIQUE) != fingerprints[0]
    assert network_fingerprint(models, PLANES[0]) == fingerprints[1]
    assert models_fingerprint(models, oblique=4) != fused


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (card_with(spacing_mm=[0.5, 0.5, 0.7]), "voxels of [0.5, 0.5, 0.7] mm"),
        (card_with(spacing_mm=[0.5]), "spacing_mm.1: field required"),
        (card_with(rotations=[]), "card.json lacks rotations"),
        (card_with(rotations=[np.ones((3, 3)).tolist()]), "not a readable model card"),
        (card_with(rotations=[[1, 2]]), "rotations.0.0: input should be a valid array"),
        (card_with(rotations=[(2 * np.eye(3)).tolist()]), "one of them is no rotation matrix"),
        (card_with(rotations=[[[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]]), "not a readable model card"),
        (card_with(spacing_mm=[1e-9] * 3), "spacings of 0.05 to 10.0 mm"),
        (card_with(settings={"context": float("inf")}), "not a readable model card"),
        (card_with(settings={"context": 1, "spread": ["sphere"]}), "and no name"),
        (card_with(settings={"context": 1, "spread": "nobody's"}), "oblique/card.json: unknown spread"),
        (card_with(patients={"train": [{}], "val": []}), "patients.train.0: input should be a valid string"),
        (lambda models: (models / OBLIQUE / "card.json").write_text("[" * 100_000), "is nested too deeply"),
        (card_with(scheme="compartments"), "on different schemes"),
        (
            lambda models: edit(models / OBLIQUE / "card.json", class_names=["background", "bone"]),
            "different trainings",
        ),
        (raw_card_with(data_fingerprint="0"), "different trainings"),
        (lambda models: swap(models), f"holds a network of the {PLANES[0]} plane"),
        (
            lambda models: (models / OBLIQUE / "saved_model" / "variables" / "variables.index").unlink(),
            "variables.index cannot be read",
        ),
    ],
)
def test_an_oblique_network_that_does_not_fit_is_one_clear_line(place, tmp_path, spoil, words):
    shutil.copytree(place / "models", tmp_path / "models")
    spoil(tmp_path / "models")
    asked = (place / "cohort", "--models", tmp_path / "models", "--out", tmp_path / "out")
    refused = run(*asked, "--views", "oblique:2")
    assert refused.exit_code == 2
    assert words in said(refused)
    assert "Traceback" not in refused.output


def swap(models: Path) -> None:
    """The network of a plane, with its card, where an oblique one should be."""
    shutil.rmtree(models / OBLIQUE)
    shutil.copytree(models / PLANES[0], models / OBLIQUE)


def test_views_share_a_network_and_have_a_spacing_of_their_own(place):
    trained = load_models(place / "models", oblique=3)
    assert list(trained.ensemble.views) == [*PLANES, "oblique-1", "oblique-2", "oblique-3"]
    turned = [view for view in trained.ensemble.views.values() if isinstance(view, ObliqueView)]
    assert len({id(view.predictor) for view in turned}) == 1
    card = json.loads((place / "models" / OBLIQUE / "card.json").read_text())
    assert [view.spacing_mm for view in turned] == pytest.approx(card["spacing_mm"])
    assert all(isinstance(view, PlaneView) for view in trained.planes.values())
    assert trained.spacing_mm.shape == (3, 3)
    assert list(load_models(place / "models").ensemble.views) == PLANES


def test_a_network_looks_where_it_was_trained_to_look(place, tmp_path, caplog):
    shutil.copytree(place / "models", tmp_path / "models")
    own = [turn.tolist() for turn in sphere_rotations(5)[:2]]
    change_card(tmp_path / "models" / OBLIQUE / "card.json", rotations=own)
    for count, expected in ((2, np.array(own)), (3, sphere_rotations(3))):
        caplog.clear()
        views = load_models(tmp_path / "models", fused=False, oblique=count).ensemble.views
        np.testing.assert_allclose([views[f"oblique-{number + 1}"].turn for number in range(count)], expected)
        assert ("was trained on 2 directions, which are others than the 3" in caplog.text) == (count == 3)
    card_with(settings={"context": 1, "network": "unet", "encoder_weights": "none", "spread": "radial"})(
        tmp_path / "models"
    )
    asked = load_models(tmp_path / "models", fused=False, oblique=4).ensemble.views
    np.testing.assert_allclose([asked[f"oblique-{number}"].turn for number in range(1, 5)], radial_rotations(4))


def test_a_network_of_the_volume_segments_alone_and_beside_planes(place, tmp_path):
    card = json.loads((place / "models" / PLANES[0] / "card.json").read_text())
    shutil.copytree(place / "planes-only", tmp_path / "models")
    make_volume_network(tmp_path / "models", tuple(card["spacing_mm"]), "cartilage", 170, (32, 24, 40))
    asked = (place / "cohort", "--models", tmp_path / "models", "--precision", "float32")
    for words, views in (((), [*PLANES, "volume"]), (("--plane", "volume"), ["volume"])):
        out = tmp_path / str(len(views))
        done = run(*asked, *words, "--out", out)
        assert done.exit_code == 0, done.output
        assert sorted(record_of(out)["fusion_weights"]) == sorted(views)
    image = read_image(read_manifest(place / "cohort" / "knees.csv")[0].image)
    side = image.side
    pixels, _ = to_network_input(image)
    labels = to_canonical(read_volume(tmp_path / "1" / "P001-baseline" / "labels.nii.gz"), side).array
    clear = np.abs(pixels.array.astype(int) - 170) > 1
    np.testing.assert_array_equal(labels[clear] > 0, pixels.array[clear] > 170)
    fast = run(*asked, "--plane", "volume", "--fast", "--out", tmp_path / "fast")
    assert fast.exit_code == 0, fast.output
    assert record_of(tmp_path / "fast")["computed_whole_because"] == "there is no plane for a quick look"


def test_patients_of_the_oblique_network_count_as_seen(place, tmp_path):
    shutil.copytree(place / "models", tmp_path / "models")
    change_card(tmp_path / "models" / OBLIQUE / "card.json", patients={"train": ["someone"], "val": []})
    seen = load_models(tmp_path / "models", oblique=1).patients
    assert "someone" in seen[Split.TRAIN]
    assert sum(map(len, seen.values())) == 1


def test_fitted_weights_are_taken_where_they_are_for_these_views(place, tmp_path, caplog):
    models = tmp_path / "models"
    shutil.copytree(place / "models", models)
    card_with(rotations=[turn.tolist() for turn in sphere_rotations(2)])(models)
    views = [*PLANES, "oblique-1", "oblique-2"]
    weights = dict(zip(views, (0.4, 0.2, 0.1, 0.2, 0.1), strict=True))
    reference = {"volumes_mm3": {}, "border_mm2": {}, "inter_view_dice": None, "predictive_entropy": None}
    fusion = {
        "version": 1,
        "weights": weights,
        "rule": "log",
        "thresholds": None,
        "objective": "",
        "dice": {"fused": 0.5},
        "intervals": {},
        "fitted_on": {"split": "val", "cases": []},
        "reference": reference,
    }
    fingerprints = {name: network_fingerprint(models, name) for name in (*PLANES, OBLIQUE)}
    fusion_path(models, 2).write_text(json.dumps(fusion | {"networks": fingerprints}))
    fitted = load_models(models, oblique=2).ensemble
    assert (fitted.weights, fitted.rule) == (weights, "log")
    assert not caplog.records
    some = load_models(models, planes=(PLANES[0],), oblique=2).ensemble  # share what the others weigh, as planes do
    assert some.rule == "log"
    assert some.weights == pytest.approx({PLANES[0]: 4 / 7, "oblique-1": 2 / 7, "oblique-2": 1 / 7})
    assert not caplog.records
    equal = load_models(models, oblique=3).ensemble
    assert (len({*equal.weights.values()}), equal.rule) == (1, "linear")
    assert "fusion-oblique-3.json is missing: all views count equally" in caplog.text
    assert f"fit weights with knee3d fuse DATASET --models {models} --views oblique:3" in caplog.text
    fusion_path(models, 2).write_text(json.dumps(fusion | {"networks": {}}))
    caplog.clear()
    load_models(models, oblique=2)
    assert "is older than the networks of" in caplog.text
    caplog.clear()
    load_models(models, fused=False, oblique=2)
    assert not caplog.records
