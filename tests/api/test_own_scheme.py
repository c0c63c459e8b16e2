"""A label scheme of a user, from a JSON file through the whole journey, with a tissue that knee3d does not know."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from knee3d.cli import main
from knee3d.cli.training import train
from knee3d.dataset.case_collection import load_cases
from knee3d.io.dicom.segmentation import read_segmentation
from knee3d.io.image_source import read_mask
from knee3d.labels.scheme_files import scheme_from_json
from knee3d.models import model_card, saved_model

SCHEME = {
    "name": "band",
    "tissues": [
        {"name": "femoral cartilage", "colour": "#e64b35"},
        {"name": "iliotibial band", "sources": ["iliotibial band", "fascia"], "pieces": 2},
    ],
}


def run(*command, with_=main):
    told = CliRunner().invoke(with_, [str(word) for word in command])
    assert told.exit_code == 0, told.output
    return told.output


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """A cohort whose femur and tibia are said to be a tissue that knee3d does not know."""
    out = tmp_path_factory.mktemp("own_scheme")
    run("phantom", out / "cohort", "--knees", "3", "--shape", "32,32,32")
    labels = json.loads((out / "cohort" / "labels.json").read_text())
    renamed = {value: {"femur": "fascia", "tibia": "iliotibial band"}.get(name, name)
               for value, name in labels.items()}  # fmt: skip
    (out / "cohort" / "labels.json").write_text(json.dumps(renamed))
    (out / "scheme.json").write_text(json.dumps(SCHEME))
    run("prepare", out / "cohort" / "knees.csv", out / "dataset", "--scheme", out / "scheme.json",
        "--split", "0.4,0.3,0.3")  # fmt: skip
    run(out / "dataset", "--models", out / "models", "--plane", "sagittal", "--network", "tiny_network:alone",
        "--epochs", "10", "--limit-slices", "24", "--augment", "none", "--learning-rate", "0.01", "--batch-size", "4",
        with_=train)  # fmt: skip
    (out / "scheme.json").unlink()  # nothing needs it any more
    return out


@pytest.mark.slow
def test_dataset_and_network_hold_the_scheme(journey):
    scheme = load_cases(journey / "dataset").scheme
    assert scheme.names == ("femoral cartilage", "iliotibial band")
    told = model_card.load_card(journey / "models", "sagittal")
    assert told.scheme == scheme
    assert told.class_names == ("background", *scheme.names)
    loaded = saved_model.load_saved_model(journey / "models" / "sagittal" / "saved_model")
    about = json.loads(loaded.about().numpy())
    assert about["colours"][1] == "#e64b35"
    assert scheme_from_json(about["scheme"]) == told.scheme


@pytest.mark.slow
def test_labels_measures_and_report_are_of_its_tissues(journey, tmp_path):
    knees = [path for path in (journey / "cohort").iterdir() if (path / "image").is_dir() or (path / "dicom").is_dir()]
    image = next(path for path in knees[0].iterdir() if path.is_dir())
    run("segment", image, "--models", journey / "models", "--out", tmp_path / "results", "--format", "dicom-seg",
        "--side", "R")  # fmt: skip
    (folder,) = [path for path in (tmp_path / "results").iterdir() if path.is_dir()]
    record = json.loads((folder / "segmentation.json").read_text())
    scheme = scheme_from_json(record["scheme"])
    assert set(record["volumes_mm3"]) == set(scheme.names)
    labels, label_names = read_segmentation(folder / "labels.dcm", scheme)
    assert record["volumes_mm3"]["iliotibial band"] > 10
    assert "iliotibial band" in label_names.names.values()
    assert set(label_names.names.values()) <= set(scheme.names)
    again = read_mask(folder / "labels.dcm", lambda: pytest.fail("not outlines"), scheme=scheme)
    assert again.label_names == label_names
    run("report", folder, image)
    measures = json.loads((folder / "report" / "measures.json").read_text())
    assert measures["scheme"] == "band"
    assert {one["tissue"] for one in measures["measures"]} <= set(scheme.names)
    found = {one["tissue"]: one["value"] for one in measures["measures"] if one["measure"] == "volume"}
    assert np.isfinite(list(found.values())).all()


@pytest.mark.slow
def test_the_same_folder_takes_no_scheme_that_was_changed(journey, tmp_path):
    changed = SCHEME | {"tissues": SCHEME["tissues"][::-1]}
    (tmp_path / "scheme.json").write_text(json.dumps(changed))
    told = CliRunner().invoke(main, ["prepare", str(journey / "cohort" / "knees.csv"), str(journey / "dataset"),
                                     "--scheme", str(tmp_path / "scheme.json")])  # fmt: skip
    assert told.exit_code == 1
    assert "has masks of the scheme band as it was before, on which networks may rely" in told.output
