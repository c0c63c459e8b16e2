"""The public functions and classes of knee3d: the only package, beside `knee3d.demo`, that uses all others.

`knee3d` exports the most important names. The others are for the command line and for whoever builds on knee3d.
"""

from knee3d.api.batch_segmentation import plan_cases, segment
from knee3d.api.case_result import CaseResult
from knee3d.api.cross_validation import CrossValidationResult, FoldScores
from knee3d.api.data import audit_dataset, make_manifest, make_phantom, prepare, restore_volume
from knee3d.api.dataset import Dataset
from knee3d.api.image_files import read, write
from knee3d.api.knee_model import KneeModel
from knee3d.api.label_map_training import label_map_settings, train_from_labels
from knee3d.api.measurements import Measurements, measure
from knee3d.api.repeated_measures import compare, repeatability
from knee3d.api.report_record import ReportRecord
from knee3d.api.reports import make_reports
from knee3d.api.segment_config import ExecutionConfig, SegmentConfig
from knee3d.api.segmentation import Segmentation
from knee3d.api.segmentation_record import SegmentationRecord
from knee3d.api.training import (
    TrainExecution,
    cross_validate,
    encoder_weights_problem,
    export_models_to_onnx,
    train,
    train_views,
    write_model_card_page,
)
from knee3d.dataset.audit import CaseAudit, DatasetAudit, SplitAudit
from knee3d.dataset.input_case import InputCase, find_cases
from knee3d.dataset.inspection import FoundVolume, Inspection, inspect
from knee3d.io.image_source import ReadOptions
from knee3d.report.change import ChangeRow, ComparisonResult, KneeComparison
from knee3d.report.evaluation_scores import Evaluation, MeanScore, ScoreRow, ViewScores
from knee3d.report.quality_record import QualityRecord
from knee3d.report.repeatability import PairedCases, RepeatabilityResult, RepeatabilityRow
from knee3d.training.config import (
    AugmentationConfig,
    NetworkConfig,
    OptimizerConfig,
    RunOptions,
    SamplingConfig,
    ScheduleConfig,
    TrainConfig,
)

__all__ = [
    "AugmentationConfig",
    "CaseAudit",
    "CaseResult",
    "ChangeRow",
    "ComparisonResult",
    "CrossValidationResult",
    "Dataset",
    "DatasetAudit",
    "Evaluation",
    "ExecutionConfig",
    "FoldScores",
    "FoundVolume",
    "InputCase",
    "Inspection",
    "KneeComparison",
    "KneeModel",
    "MeanScore",
    "Measurements",
    "NetworkConfig",
    "OptimizerConfig",
    "PairedCases",
    "QualityRecord",
    "ReadOptions",
    "RepeatabilityResult",
    "RepeatabilityRow",
    "ReportRecord",
    "SamplingConfig",
    "ScheduleConfig",
    "ScoreRow",
    "SegmentConfig",
    "Segmentation",
    "SegmentationRecord",
    "SplitAudit",
    "TrainConfig",
    "TrainExecution",
    "RunOptions",
    "ViewScores",
    "audit_dataset",
    "compare",
    "cross_validate",
    "encoder_weights_problem",
    "export_models_to_onnx",
    "find_cases",
    "inspect",
    "label_map_settings",
    "make_manifest",
    "make_phantom",
    "make_reports",
    "measure",
    "plan_cases",
    "prepare",
    "read",
    "repeatability",
    "restore_volume",
    "segment",
    "train",
    "train_from_labels",
    "train_views",
    "write",
    "write_model_card_page",
]
