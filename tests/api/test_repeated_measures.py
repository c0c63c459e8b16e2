"""From measured knees to how well measures repeat, and to what has changed; the story on made-up knees."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from as_seen import run_as_seen as run

from knee3d import api
from knee3d.api.segmentation_record import RECORD
from knee3d.dataset.manifest import read_manifest
from knee3d.geometry.orientation import Side
from knee3d.io.label_names_file import read_label_names
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import labels_to_classes
from knee3d.labels.label_scheme import FEMORAL, LATERAL_TIBIAL, MEDIAL_MENISCUS, MEDIAL_TIBIAL, PATELLAR, SCHEMES
from knee3d.morphometry.measurement import WHOLE, Measurement
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.phantom.cohort import LOSS
from knee3d.report.measures_files import MEASURES_JSON, MeasuresRecord, write_measures_csv

PLATES = (FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, PATELLAR)
SETTINGS = {"fast": False, "remove_below_mm3": 0.0, "label_format": "nifti", "save_probabilities": False}


def knee(folder: Path, volume: float, **record: object) -> Path:
    """A finished knee's folder, as far as measures go; femoral cartilage of some mm3."""
    case = folder.name
    measures = [
        Measurement(FEMORAL, WHOLE, "volume", volume),
        Measurement(FEMORAL, WHOLE, "thickness_mean", volume / 5000),
    ]
    write_measures_csv(folder / "report" / "measures.csv", {case: measures})
    whole = {
        "knee3d": "0.1.0", "case": case, "side": "R", "scheme": "compartments", "settings": SETTINGS,
        "image_fingerprint": f"image {folder}", "network_fingerprints": {"one": "a" * 64},
        "fusion_weights": {"one": 1.0}, "computed_by": "e", "computed_whole_because": "",
        "shape": [160, 384, 384], "spacing_mm": [0.7, 0.36, 0.36],
        "volumes_mm3": {FEMORAL: float(volume)}, "flags": [], "version": 1,
        "files": dict.fromkeys(("labels.nii.gz", "labels.nrrd", "quality.json"), ""),
        "models_fingerprint": "m", "side_given": "", "read_options": {},
    } | record  # fmt: skip
    (folder / RECORD).write_text(json.dumps(whole))
    return folder


def pairs(folder: Path, *volumes: tuple[float, float], **record: object) -> Path:
    """A table of knees that were measured twice."""
    lines = ["first,second,patient"]
    for number, (first, second) in enumerate(volumes):
        for visit, volume in (("a", first), ("b", second)):
            knee(folder / f"{number}{visit}", volume, **record)
        lines.append(f"{number}a,{number}b/report/measures.csv,P{number}")
    (folder / "retests.csv").write_text("\n".join(lines) + "\n")
    return folder / "retests.csv"


REPEATED = ((10_000, 10_100), (12_000, 11_900), (9_000, 9_050), (11_000, 11_020))


@pytest.fixture
def error(tmp_path) -> Path:
    done = run("repeatability", pairs(tmp_path / "retests", *REPEATED), "--out", tmp_path / "error")
    assert done.exit_code == 0, done.output
    return tmp_path / "error" / "repeatability.json"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_repeatability_of_a_table(tmp_path, error):
    content = json.loads(error.read_text())
    volume, thickness = content["measures"]
    differences = [second - first for first, second in REPEATED]
    assert volume["bias"] == pytest.approx(np.mean(differences))
    assert volume["sdc"] == pytest.approx(1.96 * np.std(differences, ddof=1))
    assert thickness["sdc"] == pytest.approx(volume["sdc"] / 5000)
    assert (content["patients"], len(content["pairs"]), content["failures"]) == (4, 4, {})
    assert content["made_by"]["network one"] == "aaaaaaaaaaaa"
    assert content["made_by"]["setting fast"] == "false"
    assert "4 pairs are few" in content["notes"][0]
    assert [one["measure"] for one in rows(error.with_suffix(".csv"))] == ["volume", "thickness_mean"]
    assert error.with_name("bland-altman.pdf").read_bytes().startswith(b"%PDF")


def test_pairs_that_cannot_be_used_are_named_and_the_rest_is_done(tmp_path):
    table = pairs(tmp_path, *REPEATED)
    knee(tmp_path / "left", 9000, side="L")
    knee(tmp_path / "other", 9000, scheme="iwoai")
    knee(tmp_path / "same", 10_000, image_fingerprint=f"image {tmp_path / '0a'}")
    knee(tmp_path / "renamed", 10_000)
    (tmp_path / "two").mkdir()
    write_measures_csv(
        tmp_path / "two" / "measures.csv", dict.fromkeys("ab", [Measurement(FEMORAL, WHOLE, "volume", 1)])
    )
    wrong = {
        "0a,nowhere,": "nowhere does not exist",
        "0a,left,": "0a is a right knee and left a left one",
        "0a,other,": "scheme 'compartments' and other of 'iwoai'",
        "0a,same,": "of one image",
        "0a,0a,": "of one image",
        "0a,renamed,": "all measures of both are the same",
        "0a,0a/report/measures.csv,": "of one image",
        "0b,0a,": "the pair of line 2 again",
        "0a,two,": "holds 2 knees",
        "0a,,": "needs both first and second",
    }
    table.write_text(table.read_text() + "\n".join(wrong) + "\n")
    done = run("repeatability", table, "--out", tmp_path / "out")
    assert done.exit_code == 1
    failures = json.loads((tmp_path / "out" / "repeatability.json").read_text())["failures"]
    assert len(failures) == len(wrong)
    for (name, why), words, line in zip(failures.items(), wrong.values(), range(6, 99), strict=False):
        assert name == f"line {line}"
        assert words in why
        assert why in done.output
    assert "4 pairs of 4 patients" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repeatability.json", "repeatability.csv", "bland-altman.pdf"])
def test_files_of_someone_else_are_not_replaced_and_own_ones_are(tmp_path, error, name):
    table, out = tmp_path / "retests" / "retests.csv", tmp_path / "out"
    out.mkdir()
    (out / name).write_text("[1]")
    done = run("repeatability", table, "--out", out)
    assert done.exit_code == 2
    assert f"{name} is there and is not knee3d's" in done.output
    assert [path.read_text() for path in out.iterdir()] == ["[1]"]
    assert run("repeatability", table, "--out", error.parent).exit_code == 0
    before = tmp_path / "retests" / "0a"
    (out / name).rename(out / "compare.csv")
    refused = run("compare", before, before, "--out", out)
    assert refused.exit_code == 2
    assert "compare.csv is there and is not knee3d's" in refused.output
    (out / "compare.csv").unlink()
    assert [run("compare", before, before, "--out", out).exit_code for _ in range(2)] == [0, 0]


def test_no_pair_at_all_is_code_2_and_writes_nothing(tmp_path):
    (tmp_path / "retests.csv").write_text("first,second\nx,y\n")
    done = run("repeatability", tmp_path / "retests.csv", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "x does not exist" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"first\nx\n", "lacks the columns second"), (b"first,second\n", "has no rows"), (b"\xff\xfe\x00", "not a CSV"),
     (b"", "lacks the columns first, second; it has none")],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line_and_code_2(tmp_path, text, words):
    (tmp_path / "retests.csv").write_bytes(text)
    done = run("repeatability", tmp_path / "retests.csv", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.count("\n") == 1


def test_knees_of_one_patient_are_not_independent(tmp_path, caplog):
    table = pairs(tmp_path, *REPEATED)
    table.write_text(table.read_text().replace("P1", "P0"))
    found = api.repeatability(table, tmp_path / "out")
    assert found.patients == 3
    assert "4 pairs are of 3 patients" in caplog.text


def test_change_is_told_from_error(tmp_path, error):
    before, after = knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000)
    done = run("compare", before, after / "report" / "measures.csv", "--error", error, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "beyond error" in done.output
    assert "cannot be told" not in done.output
    volume, _ = rows(tmp_path / "out" / "compare.csv")
    assert (volume["baseline_case"], volume["followup_case"]) == ("before", "after")
    assert (float(volume["change"]), float(volume["change_percent"])) == (-1000, pytest.approx(-10))
    sdc = json.loads(error.read_text())["measures"][0]["sdc"]
    assert float(volume["smallest_detectable_change"]) == pytest.approx(sdc)
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert content["knees"][0]["changes"][0]["verdict"] == volume["verdict"] == "beyond error"
    small = run("compare", before, knee(tmp_path / "later", 10_000 + sdc / 5), "--error", error)
    assert "within error" in small.output
    assert "beyond" not in small.output
    assert "0 of 2 changes are larger than their SDC" in small.output


def test_what_the_functions_give_is_what_the_files_hold(tmp_path, error):
    result = api.compare(knee(tmp_path / "a", 10_000), knee(tmp_path / "b", 9_000), error=error, out=tmp_path / "out")
    kept = api.ComparisonResult.from_json((tmp_path / "out" / "compare.json").read_bytes())
    assert kept == result
    assert kept.table().row_count == 2
    repeated = api.RepeatabilityResult.from_json(error.read_bytes())
    assert (
        repeated.smallest_detectable_changes[FEMORAL, WHOLE, "volume"].sdc
        == kept.knees[0].changes[0].smallest_detectable_change
    )
    assert repeated.to_frame()["sdc"].tolist() == [row.sdc for row in repeated.measures]


def test_a_damaged_error_is_refused_in_a_line(tmp_path, error):
    error.write_text(error.read_text().replace('"volume"', '"weight"'))
    done = run("compare", knee(tmp_path / "a", 10_000), knee(tmp_path / "b", 9_000), "--error", error)
    assert done.exit_code == 2
    assert f"{error} is no repeatability.json of knee3d (measures.0: unknown measure 'weight'" in done.output
    assert done.output.count("\n") == 1


def test_the_frame_of_changes_is_that_of_the_file(tmp_path):
    result = api.compare(knee(tmp_path / "one", 10000), knee(tmp_path / "two", 9000), out=tmp_path / "out")
    frame = result.to_frame()
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert list(frame.columns) == head
    assert len(frame) == len(rows)
    assert frame.loc[0, ["baseline_case", "followup_case"]].tolist() == ["one", "two"]
    assert frame.loc[0, ["baseline", "followup"]].tolist() == [10000, 9000]


def test_without_an_error_it_says_that_it_cannot_tell(tmp_path):
    done = run("compare", knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000), "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "change cannot be told from error" in done.output
    assert "beyond" not in done.output
    assert {row["verdict"] for row in rows(tmp_path / "out" / "compare.csv")} == {"cannot tell"}


@pytest.mark.parametrize(
    ("other", "words"),
    [({"side": "L"}, "before is a right knee and after a left one"), ({"scheme": "bones"}, "of scheme 'compartments'")],
)
def test_knees_that_cannot_be_compared_are_refused_in_a_line(tmp_path, other, words):
    before, after = knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000, **other)
    done = run("compare", before, after, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"network_fingerprints": {"one": "b" * 64}}, "network one aaaaaaaaaaaa and bbbbbbbbbbbb"),
        ({"network_fingerprints": {"one": "a" * 64, "two": "c" * 64}}, "network two none and cccccccccccc"),
        ({"fusion_weights": {"one": 0.5}}, "fusion weight one 1.0000 and 0.5000"),
        ({"settings": SETTINGS | {"fast": True}}, "setting fast false and true"),
        (
            {"settings": SETTINGS | {"remove_below_mm3": 9.0}},
            "setting remove_below_mm3 0.0000 and 9.0000",
        ),
        ({"spacing_mm": [0.36, 0.36, 1.5]}, "voxels 0.36 x 0.36 x 0.70 mm and 0.36 x 0.36 x 1.50 mm"),
        ({"side": ""}, "the side of after is not known"),
        ({"flags": ["patellar cartilage implausible"]}, "after is flagged: patellar cartilage implausible"),
    ],
)
def test_what_was_made_otherwise_is_a_warning_that_names_both(tmp_path, caplog, other, words):
    before, after = knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000, **other)
    found = api.compare(before, after)
    assert not found.failures
    assert words in caplog.text
    assert any(words in note for note in found.knees[0].notes)


def test_what_makes_no_difference_is_no_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    same = {
        "settings": SETTINGS | {"label_format": "nrrd", "save_probabilities": True},
        "spacing_mm": [0.36, 0.36, 0.7],
    }
    api.compare(knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000, **same))
    assert not caplog.records


def test_parts_along_other_axes_are_a_warning(tmp_path, caplog):
    visits = [knee(tmp_path / name, mm3) for name, mm3 in (("before", 10_000), ("after", 9_000))]
    for visit, along in zip(visits, ("knee", "image"), strict=True):
        record = MeasuresRecord(
            knee3d="0.1.0", case=visit.name, side=Side.RIGHT, scheme="compartments", interfaces={}, notes=(),
            subregion_axes=along, measures=(),
        )  # fmt: skip
        record.write(visit / "report" / MEASURES_JSON)
    api.compare(*visits)
    assert "parts cut along the axes of the knee and the image" in caplog.text


def test_damaged_measures_are_named_with_file_and_field(tmp_path):
    before, after = knee(tmp_path / "before", 10_000), knee(tmp_path / "after", 9_000)
    (after / "report" / MEASURES_JSON).write_text('{"version": 1, "subregion_axes": "scanner"}')
    done = run("compare", before, after)
    assert done.exit_code == 2
    assert "measures.json is damaged, or not knee3d's (knee3d: field required;" in " ".join(done.output.split())


def test_an_error_of_other_networks_is_a_warning(tmp_path, error, caplog):
    other = {"network_fingerprints": {"one": "b" * 64}}
    both = (knee(tmp_path / "before", 10_000, **other), knee(tmp_path / "after", 9_000, **other))
    api.compare(*both, error=error)
    assert "the error was measured of knees made differently: network one aaaaaaaaaaaa and bbbbbbbbbbbb" in caplog.text


def test_many_knees_are_matched_by_name(tmp_path, error):
    for case, before, after in (("k1", 10_000, 9_000), ("k2", 9_000, 9_010), ("k3", 8_000, None), ("k4", None, 8_000)):
        for visit, volume in (("before", before), ("after", after)):
            if volume is not None:
                knee(tmp_path / visit / case, volume)
    knee(tmp_path / "before" / "k5", 8_000, side="L")
    knee(tmp_path / "after" / "k5", 8_000, side="R")
    done = run("compare", tmp_path / "before", tmp_path / "after", "--error", error, "--out", tmp_path / "out")
    assert done.exit_code == 1
    for words in (
        "Change of 2 knees",
        "is at baseline only",
        "is at follow-up only",
        "k5 is a left knee and k5 a right",
    ):
        assert words in done.output
    assert [row["baseline_case"] for row in rows(tmp_path / "out" / "compare.csv")] == ["k1", "k1", "k2", "k2"]
    (tmp_path / "elsewhere" / "x").mkdir(parents=True)
    knee(tmp_path / "elsewhere" / "x", 1.0)
    strangers = run("compare", tmp_path / "before", tmp_path / "elsewhere")
    assert strangers.exit_code == 2
    assert "no knee at baseline has the name of one at follow-up" in strangers.output


def test_the_table_of_all_knees_serves_where_their_folders_have_none(tmp_path, caplog):
    """What lies beside folders is of the last run alone; the folders' own tables are all."""
    for visit in ("before", "after"):
        measures = {
            "k": [Measurement(FEMORAL, WHOLE, "volume", 5.0)],
            "l": [Measurement(FEMORAL, WHOLE, "volume", 6.0)],
        }
        write_measures_csv(tmp_path / visit / "measures.csv", measures)
    (tmp_path / "after" / ".partial-k").mkdir()
    write_measures_csv(tmp_path / "after" / ".partial-k" / "measures.csv", {"half": []})
    assert len(api.compare(tmp_path / "before", tmp_path / "after").knees) == 2
    for visit in ("before", "after"):
        knee(tmp_path / visit / "k", 10_000, side="R" if visit == "before" else "L")
    with pytest.raises(ValueError, match="k is a right knee and k a left one"):
        api.compare(tmp_path / "before", tmp_path / "after")
    with pytest.raises(ValueError, match="k is a right knee and k a left one"):  # the record is found from a table, too
        api.compare(tmp_path / "before" / "k" / "report", tmp_path / "after" / "k" / "report" / "measures.csv")


def test_a_bare_table_is_compared_with_a_warning(tmp_path, caplog):
    for name, volume in (("a", 5.0), ("b", 6.0)):
        write_measures_csv(tmp_path / name / "m.csv", {name: [Measurement(FEMORAL, WHOLE, "volume", volume)]})
    found = api.compare(tmp_path / "a" / "m.csv", tmp_path / "b" / "m.csv")
    assert found.knees[0].changes[0].change == 1
    assert "side, scheme and networks are not checked" in caplog.text


def test_what_holds_no_measures_is_refused(tmp_path, error):
    before = knee(tmp_path / "before", 10_000)
    (tmp_path / "empty").mkdir()
    damaged = knee(tmp_path / "damaged", 10_000)
    (damaged / RECORD).write_text("{}")
    for other, words in ((tmp_path / "empty", "holds no measures.csv"), (damaged, "segmentation.json is damaged")):
        done = run("compare", before, other)
        assert done.exit_code == 2
        assert words in done.output
    inside = run("compare", before, knee(tmp_path / "after", 1.0), "--out", before)
    assert inside.exit_code == 2
    assert "give another --out" in inside.output


@pytest.fixture(scope="module")
def cohort(made_once) -> Path:
    """Knees of a phantom with measures.csv: the masks' voxels counted, no networks."""
    return made_once("change", make_cohort)


def make_cohort(folder: Path) -> None:
    made = run("phantom", folder, "--knees", 3, "--retests", 3, "--shape", "48,48,48", "--seed", 6, "--jobs", 2)
    assert made.exit_code == 0, made.output
    assert "3 knees and a follow-up, 3 retests" in made.output
    scheme, label_names = SCHEMES["iwoai"], read_label_names(str(folder / "labels.json"))
    for one in read_manifest(folder / "knees.csv"):
        mask = read_volume(one.mask)
        volumes = tissue_volumes(mask.with_array(labels_to_classes(mask.array, label_names, scheme)), scheme)
        measures = [
            Measurement(name, WHOLE, "volume", mm3) for name, mm3 in zip(scheme.names, volumes.tolist(), strict=True)
        ]
        write_measures_csv(folder / one.case / "measures.csv", {one.case: measures})
    lines = [f"P{n:03d}-baseline,P{n:03d}-retest,P{n:03d}" for n in range(1, 4)]
    (folder / "retests.csv").write_text("\n".join(["first,second,patient", *lines]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["baseline", "retest"])
def test_the_planted_loss_is_found_within_the_error(cohort, tmp_path, start):
    """Also from the retest, whose voxels lie otherwise in the knee than those of the follow-up."""
    api.repeatability(cohort / "retests.csv", tmp_path / "error")
    error = tmp_path / "error" / "repeatability.json"
    measured = {row["tissue"]: row for row in json.loads(error.read_text())["measures"]}
    assert all(0.01 < measured[plate]["rms_cv_percent"] < 5 for plate in PLATES)
    found = api.compare(cohort / f"P001-{start}", cohort / "P001-follow-up", error=error)
    changes = {row.tissue: row for row in found.knees[0].changes}
    (truth,) = api.compare(cohort / "P001-baseline", cohort / "P001-follow-up").knees
    for row in truth.changes:
        tissue, planted = row.tissue, -LOSS * row.baseline if row.tissue in PLATES else 0
        assert abs(changes[tissue].change - planted) <= max(measured[tissue]["sdc"], 1)  # mm3: voxels are whole
        assert changes[tissue].verdict.startswith("beyond" if tissue in PLATES else "within"), tissue
    again = api.compare(cohort / "P001-baseline", cohort / "P001-retest", error=error)
    verdicts = {row.tissue: row.verdict for row in again.knees[0].changes}
    assert all(verdict.startswith("within") for verdict in verdicts.values()), verdicts
    assert MEDIAL_MENISCUS in verdicts
