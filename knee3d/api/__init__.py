"""What users do, from start to end: with `knee3d.demo` the only package that uses all others."""

from knee3d.api.batch_segmentation import ExecutionConfig, plan_cases, segment_cases
from knee3d.api.case_report import ReportConfig
from knee3d.api.case_result import CaseResult
from knee3d.api.data import audit_dataset, make_manifest, make_phantom, prepare, restore_volume
from knee3d.api.evaluation import EvaluationConfig, evaluate, fit_fusion_of_models
from knee3d.api.repeated_measures import ComparisonResult, RepeatabilityResult, compare, repeatability
from knee3d.api.reports import find_report_inputs, make_reports
from knee3d.api.segmentation_record import SegmentJob
from knee3d.api.training import TrainingLauncher, cross_validate, export_models_to_onnx, train_views, write_card_page
from knee3d.dataset.input_case import InputCase, find_cases
from knee3d.dataset.inspection import inspect
from knee3d.inference.segmenter import SegmentMethod
from knee3d.io.image_source import ImageSource
from knee3d.postprocess.cleaning import CleaningConfig
from knee3d.postprocess.fusion_fit import FusionConfig

__all__ = [
    "CleaningConfig",
    "ComparisonResult",
    "InputCase",
    "TrainingLauncher",
    "SegmentMethod",
    "CaseResult",
    "ReportConfig",
    "RepeatabilityResult",
    "EvaluationConfig",
    "ImageSource",
    "FusionConfig",
    "ExecutionConfig",
    "SegmentJob",
    "audit_dataset",
    "write_card_page",
    "compare",
    "cross_validate",
    "evaluate",
    "export_models_to_onnx",
    "fit_fusion_of_models",
    "inspect",
    "find_cases",
    "find_report_inputs",
    "make_phantom",
    "plan_cases",
    "prepare",
    "make_reports",
    "repeatability",
    "restore_volume",
    "segment_cases",
    "make_manifest",
    "train_views",
]
