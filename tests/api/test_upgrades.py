"""An upgrade orphans nothing: an option that came later leaves trainings, datasets and finished knees what they are."""

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from finished_knees import make_cohort, make_finished

from knee3d.api.data import prepare_dataset
from knee3d.api.report_record import ReportConfig
from knee3d.api.reports import find_report_inputs, write_reports
from knee3d.api.segment_config import SegmentConfig
from knee3d.api.segmentation_record import RECORD, find_finished_record, load_record
from knee3d.dataset.input_case import find_cases
from knee3d.dataset.preparation import PrepareConfig
from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.io.image_source import ReadOptions
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig
from knee3d.recorded_settings import WHEN_MISSING, changed_settings, complete_settings, old_defaults
from knee3d.records import VERSION
from knee3d.training.config import RunOptions, ScheduleConfig, TrainConfig
from knee3d.training.train_view import train_view


@dataclass(frozen=True)
class Later:
    """Options that a later version of knee3d may have."""

    smooth: float = 0.0
    careful: bool = field(default=True, metadata={WHEN_MISSING: False})


def test_a_setting_that_a_record_lacks_counts_as_what_was_done_then():
    lacking = old_defaults(asdict(Later()), Later())
    assert lacking == {"smooth": 0.0, "careful": False}
    assert changed_settings({}, {"smooth": 0.0, "careful": False}, lacking) == []
    assert changed_settings({}, asdict(Later()), lacking) == ["careful"]
    assert changed_settings({"smooth": 1.0}, {"smooth": 0.0, "careful": False}, lacking) == ["smooth"]


def test_a_setting_that_only_the_record_has_is_a_difference():
    assert changed_settings({"old": 1}, {}, {}) == ["old"]


def test_settings_within_settings_are_completed_too():
    assert complete_settings({"a": {"b": 1}}, {"a": {"b": 0, "c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


@dataclass(frozen=True)
class LaterSchedule(ScheduleConfig):
    smooth: float = 0.0
    careful: bool = field(default=True, metadata={WHEN_MISSING: False})


@dataclass(frozen=True)
class LaterTraining(TrainConfig):
    schedule: LaterSchedule = LaterSchedule()

    @property
    def options(self) -> dict:
        return {**super().options, "smooth": self.schedule.smooth, "careful": self.schedule.careful}


def later(**options: object) -> TrainConfig:
    """Settings of a version that knows two more."""
    own = {name: options.pop(name) for name in ("smooth", "careful") if name in options}
    training = LaterTraining().with_options(**options)
    return replace(training, schedule=replace(training.schedule, **own))


@pytest.mark.slow
def test_a_trained_model_is_recognised_by_a_version_with_more_options(balls, tiny, tmp_path):
    common = {"network": tiny, "encoder_weights": "none", "epochs": 1, "batch_size": 8, "limit_slices": 8}
    folder = train_view(balls, Plane.AXIAL, tmp_path, TrainConfig().with_options(**common))
    card = (folder / "card.json").read_bytes()
    train_view(balls, Plane.AXIAL, tmp_path, later(**common, careful=False))
    assert (folder / "card.json").read_bytes() == card
    for other, name in (({"careful": True}, "careful"), ({"careful": False, "smooth": 1.0}, "smooth")):
        with pytest.raises(ValueError, match=rf"settings \({name}\).*--overwrite"):
            train_view(balls, Plane.AXIAL, tmp_path, later(**common, **other))
    with pytest.raises(ValueError, match="--overwrite"):
        train_view(balls, Plane.AXIAL, tmp_path, TrainConfig().with_options(**common, seed=1), RunOptions(resume=True))


@dataclass(frozen=True)
class LaterChoice(ReadOptions):
    coil: str | None = None


@dataclass(frozen=True)
class LaterPreparation(PrepareConfig):
    smooth: float = 0.0
    careful: bool = field(default=True, metadata={WHEN_MISSING: False})


def test_a_dataset_is_recognised_by_a_version_with_more_options(cohort_of, tmp_path):
    table, scheme = cohort_of(CohortConfig(3, (16, 16, 16))), SCHEMES["compartments"]
    fractions = (0.4, 0.3, 0.3)

    def made(**options: object) -> dict[str, tuple[str, int]]:
        """Case to its fingerprint, and the time at which it was made."""
        kind = LaterPreparation if options else PrepareConfig
        dataset = prepare_dataset(table, tmp_path / "d", kind(scheme, None, fractions, **options), None, jobs=2)
        return {case.name: (case.fingerprint, (dataset.folder / case.name / "case.json").stat().st_mtime_ns)
                for case in dataset.cases}  # fmt: skip

    first = made()
    assert made(careful=False) == first
    assert made(careful=False, choice=LaterChoice()) == first
    for other in ({"careful": True}, {"careful": False, "smooth": 1.0}, {"choice": LaterChoice(coil="1")}):
        again = made(**other)
        assert all(again[name][0] != first[name][0] for name in first)


@dataclass(frozen=True)
class LaterConfig(SegmentConfig):
    smooth: float = 0.0
    careful: bool = field(default=True, metadata={WHEN_MISSING: False})


@pytest.fixture(scope="module")
def results(made_once) -> Path:
    """Of one knee."""

    def make(out: Path) -> None:
        make_finished(make_cohort(out / "cohort", (Side.RIGHT,)), out / "results")

    return made_once("records", make) / "results"


@pytest.mark.slow
def test_a_finished_knee_is_recognised_by_a_version_with_more_options(results):
    entry = find_cases(results.parent / "cohort" / "knees.csv")[0]
    entry = replace(entry, source=replace(entry.source, choice=LaterChoice()))
    config = LaterConfig(careful=False)
    assert find_finished_record(entry, config, "made up", results) == load_record(results / entry.case)
    others = {
        "careful": (entry, replace(config, careful=True)),
        "smooth": (entry, replace(config, smooth=1.0)),
        "coil": (replace(entry, source=replace(entry.source, choice=LaterChoice(coil="1"))), config),
    }
    for name, (knee, asked) in others.items():
        with pytest.raises(ValueError, match=rf"\({name}\).*--overwrite"):
            find_finished_record(knee, asked, "made up", results)


@pytest.mark.slow
def test_a_finished_knee_whose_record_lacks_fields_of_a_later_version_is_kept(results, tmp_path):
    entry = find_cases(results.parent / "cohort" / "knees.csv")[0]
    shutil.copytree(results / entry.case, tmp_path / entry.case)
    path = tmp_path / entry.case / RECORD
    record = json.loads(path.read_text())
    del record["unchecked"], record["patient_seen"]
    path.write_text(json.dumps(record))
    found = find_finished_record(entry, SegmentConfig(), "made up", tmp_path)
    assert found is not None
    assert (found.unchecked, found.patient_seen) == ("", "")


@pytest.mark.slow
def test_a_knee_of_a_later_version_is_not_touched(results, tmp_path):
    record = json.loads((results / "P001" / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(record | {VERSION: 99}))
    with pytest.raises(ValueError, match="upgrade"):
        load_record(tmp_path)


@dataclass(frozen=True)
class LaterReportWish(ReportConfig):
    smooth: float = 0.0
    careful: bool = field(default=True, metadata={WHEN_MISSING: False})


@pytest.mark.slow
def test_a_report_is_recognised_by_a_version_with_more_options(results):
    knees = find_report_inputs(results.parent / "cohort" / "knees.csv")
    assert {one.status for one in write_reports(results, knees, ReportConfig())} == {"done"}
    assert {one.status for one in write_reports(results, knees, LaterReportWish(careful=False))} == {"kept"}
    assert {one.status for one in write_reports(results, knees, LaterReportWish())} == {"done"}
