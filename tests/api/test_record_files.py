"""segmentation.json, report.json and quality.json come back as records, and damaged ones are refused by field."""

import json
import math

import pytest
from jsonschema import Draft202012Validator

from knee3d import __version__
from knee3d.api import QualityRecord, ReadOptions, ReportRecord, SegmentationRecord, SegmentConfig
from knee3d.api.report_record import ReportConfig, ReportOrigin
from knee3d.api.segmentation_record import RECORD, load_record
from knee3d.dataset.case_collection import Split
from knee3d.geometry.orientation import Side
from knee3d.labels.label_scheme import SCHEMES
from knee3d.postprocess.quality import QualityReport

SEGMENTATION = SegmentationRecord(
    knee3d=__version__,
    case="P001",
    side=Side.LEFT,
    patient_seen=Split.VAL,
    scheme=SCHEMES["compartments"],
    image_fingerprint="i",
    side_given=Side.UNKNOWN,
    read_options=ReadOptions(echo="1", spacing_mm=(1.0, 1.0, 2.0), axes="LIP").settings,
    models_fingerprint="m",
    settings=SegmentConfig().settings,
    network_fingerprints={"axial": "a"},
    fusion_weights={"axial": 0.25, "coronal": (0.25, 0.5)},
    computed_by="tensorflow, float32",
    computed_whole_because="",
    shape=(3, 4, 5),
    spacing_mm=(0.36, 0.36, 0.7),
    volumes_mm3={"femoral cartilage": 1 / 3},
    flags=("a flag",),
    unchecked="volumes",
    files={"labels.nii.gz": "f", "quality.json": "f"},
)
QUALITY = QualityRecord.of(QualityReport({"effusion": 2.0}, {"effusion": 0.0}, 0.5, 0.25, ("a flag",), "entropy"))
REPORT = ReportRecord(
    knee3d=__version__,
    case="P001",
    side=Side.RIGHT,
    flags=("a flag",),
    unchecked="volumes",
    notes=("a note",),
    inter_view_dice=0.5,
    predictive_entropy=0.25,
    patient_seen=Split.TRAIN,
    has_scores=True,
    origin=ReportOrigin("s", True, "", "", ReportConfig().settings),
    files={"report.html": "f"},
)
RECORDS = {RECORD: SEGMENTATION, "quality.json": QUALITY, "report.json": REPORT}
every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())


def changed(record, **content):
    return json.dumps(json.loads(record.to_json()) | content)


def without(record, *names):
    return json.dumps({name: value for name, value in json.loads(record.to_json()).items() if name not in names})


@every_record
def test_a_record_comes_back_from_its_json(record):
    assert type(record).from_json(record.to_json()) == record


@every_record
def test_the_json_is_as_its_schema_says(record):
    schema = type(record).json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(record.to_json()))
    assert not Draft202012Validator(schema).is_valid(json.loads(changed(record, flags="none")))
    assert not Draft202012Validator(schema).is_valid(json.loads(changed(record, version=2)))


def test_a_scheme_of_a_user_is_in_the_record_as_a_whole():
    record = SegmentationRecord.from_json(
        changed(SEGMENTATION, scheme={"name": "own", "tissues": [{"name": "effusion"}]})
    )
    assert record.scheme.names == ("effusion",)
    assert SegmentationRecord.from_json(record.to_json()) == record


def test_a_field_that_a_later_version_added_may_be_missing():
    for record, names in ((SEGMENTATION, ("patient_seen", "unchecked")), (REPORT, ("patient_seen", "unchecked")),
                          (QUALITY, ("unchecked",))):  # fmt: skip
        found = type(record).from_json(without(record, *names))
        assert not any(getattr(found, name) for name in names)


def test_numbers_that_are_not_known_are_null():
    text = QualityRecord.of(QualityReport({}, {}, math.nan, math.nan, ())).to_json()
    assert json.loads(text)["inter_view_dice"] is None
    assert math.isnan(QualityRecord.from_json(text).predictive_entropy)


DAMAGED = [
    (changed(SEGMENTATION, volumes_mm3={"femoral cartilage": None}), "volumes_mm3.femoral cartilage: "),
    (changed(SEGMENTATION, volumes_mm3={"femoral cartilage": math.nan}), "NaN is no number of JSON"),
    (changed(SEGMENTATION, volumes_mm3=None), "volumes_mm3: "),
    (changed(SEGMENTATION, scheme="other"), "scheme: "),
    (changed(SEGMENTATION, side="right"), "side: "),
    (changed(SEGMENTATION, side_given=1), "side_given: "),
    (changed(SEGMENTATION, shape=[3, 4]), "shape.2: "),
    (changed(SEGMENTATION, shape=[3, 4, 0]), "shape.2: "),
    (changed(SEGMENTATION, spacing_mm=[1, 1, 0]), "spacing_mm.2: "),
    (changed(SEGMENTATION, spacing_mm=[1, 1, math.inf]), "Infinity is no number of JSON"),
    (changed(SEGMENTATION, flags="none"), "flags: "),
    (changed(SEGMENTATION, files={"labels.nii.gz": 1}), "files.labels.nii.gz: "),
    (changed(SEGMENTATION, settings={}), "settings.label_format is None; there are: nifti"),
    (changed(SEGMENTATION, settings={"label_format": ["nifti"]}), "settings.label_format is ['nifti']"),
    (changed(SEGMENTATION, patient_seen="often"), "patient_seen: "),
    (changed(SEGMENTATION, fusion_weights={"axial": "a"}), "fusion_weights.axial"),
    (without(SEGMENTATION, "image_fingerprint"), "image_fingerprint: field required"),
    (changed(SEGMENTATION, version=99), "upgrade knee3d"),
    ("{}", "it has no version"),
    ("{", "Expecting"),
]


@pytest.mark.parametrize(("text", "words"), DAMAGED)
def test_a_damaged_segmentation_record_is_refused_in_one_line_with_file_and_field(tmp_path, text, words):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(ValueError, match=r"segmentation\.json is damaged, or not knee3d's") as refused:
        load_record(tmp_path)
    assert words in str(refused.value)
    assert str(tmp_path / RECORD) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("record", "content", "words"),
    [
        (QUALITY, {"border_mm2": {"effusion": None}}, "border_mm2.effusion: "),
        (QUALITY, {"inter_view_dice": "high"}, "inter_view_dice: "),
        (REPORT, {"origin": {}}, "origin.segmentation_fingerprint: field required"),
        (REPORT, {"has_scores": 1}, "has_scores: "),
        (REPORT, {"files": []}, "files: "),
    ],
)
def test_a_damaged_record_is_refused_in_one_line_with_its_field(record, content, words):
    with pytest.raises(ValueError, match=words) as refused:
        type(record).from_json(changed(record, **content))
    assert "\n" not in str(refused.value)
