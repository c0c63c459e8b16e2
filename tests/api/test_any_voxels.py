"""Models with voxels of their own segment knees of any protocol, on the grid of the scan."""

import json
from pathlib import Path

import numpy as np
import pytest
from as_seen import run_as_seen
from made_up_models import make_models

from knee3d import api
from knee3d.api.data import write_phantom
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import to_canonical
from knee3d.geometry.plane import Plane
from knee3d.io.image_source import ReadOptions, read_image
from knee3d.io.volume_file import read_volume
from knee3d.phantom.cohort import CohortConfig
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice

T2_SERIES = Path(__file__).parents[3] / "shared" / "data" / "mese_t2_dicom"
PLANES = [plane.value for plane in Plane]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Made-up knees of 1.8 x 2.3 x 2.6 mm, and networks of bright tissue with voxels of 1.2 mm and of 2.6 mm."""
    folder = tmp_path_factory.mktemp("voxels")
    write_phantom(CohortConfig(2, (48, 48, 32), 0), folder / "cohort", 1)
    for name, size in (("fine", 1.2), ("coarse", 2.6)):
        own = {plane: (size, size, size) for plane in PLANES}
        make_models(folder / name, (0.36, 0.36, 0.7), brightness=150, model_spacing_mm=own)
    return folder


def segmented(place: Path, models: str, out: Path, **config: object) -> list[api.CaseResult]:
    settings = api.SegmentConfig(precision="float32", **config)
    return api.segment(place / "cohort", place / models, out, config=settings)


@pytest.mark.slow
@pytest.mark.parametrize("models", ["fine", "coarse"])
def test_labels_lie_on_the_grid_of_the_scan_whatever_the_voxels_of_the_model(place, tmp_path, models):
    results = segmented(place, models, tmp_path)
    assert [one.status for one in results] == ["done"] * len(results)
    for row in read_manifest(place / "cohort" / "knees.csv"):
        labels = read_volume(tmp_path / row.case / "labels.nii.gz")
        assert labels.same_grid(read_image(row.image))
        assert labels.array.any()


@pytest.mark.slow
def test_a_region_of_interest_is_found_on_the_voxels_of_the_model(place, tmp_path):
    whole, fast = (segmented(place, "fine", tmp_path / str(fast), fast=fast)[0] for fast in (False, True))
    found = [
        to_canonical(read_volume(tmp_path / str(one) / whole.case / "labels.nii.gz")).array for one in (False, True)
    ]
    assert dice(confusion_matrix(*found, 2))[1] > 0.98 or fast.record.computed_whole_because
    assert found[0].any()


@pytest.mark.slow
def test_a_scan_that_is_too_coarse_in_two_directions_is_refused_unless_insisted_on(place, tmp_path):
    own = {plane: (0.3, 0.3, 0.3) for plane in PLANES}
    make_models(tmp_path / "models", (0.36, 0.36, 0.7), brightness=150, model_spacing_mm=own)
    (place / "tiny").mkdir(exist_ok=True)
    words = (
        "segment",
        place / "cohort",
        "--models",
        tmp_path / "models",
        "--out",
        tmp_path / "out",
        "--plane",
        "axial",
    )
    refused = run_as_seen(*words)
    assert refused.exit_code != 0
    assert "more than 2 times as long, in two directions" in " ".join(refused.output.split())
    insisted = run_as_seen(*words, "--any-spacing")
    assert insisted.exit_code == 0, insisted.output
    found = [json.loads(path.read_text())["flags"] for path in (tmp_path / "out").glob("*/quality.json")]
    assert len(found) > 1
    assert all("would see tissue more blurred than it knows; do not trust the labels" in flags[-1] for flags in found)


@pytest.mark.slow
@pytest.mark.skipif(not T2_SERIES.is_dir(), reason="no real DICOM series under ../shared")
def test_a_real_series_of_thick_slices_passes_through_a_model_of_fine_voxels(tmp_path):
    """0.625 x 0.625 x 4 mm, sagittal oblique, an echo at a time."""
    own = {plane: (0.5, 0.5, 0.5) for plane in PLANES}
    make_models(tmp_path / "models", (0.36, 0.36, 0.7), brightness=120, model_spacing_mm=own)
    options = ReadOptions(echo="1")
    (result,) = api.segment(
        T2_SERIES, tmp_path / "models", tmp_path / "out", name="knee", side="R", options=options,
        config=api.SegmentConfig(precision="float32"),
    )  # fmt: skip
    assert result.status == "done", result.message
    image, labels = read_image(T2_SERIES, options), read_volume(tmp_path / "out" / "knee" / "labels.nii.gz")
    assert labels.same_grid(image)
    assert labels.array.any()
    quality = json.loads((tmp_path / "out" / "knee" / "quality.json").read_text())
    assert "slices are 4.0 mm apart" in " ".join(quality["limits"])
    assert np.isfinite(quality["inter_view_dice"])
