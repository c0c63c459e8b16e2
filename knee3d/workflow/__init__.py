"""The journeys end to end: with `knee3d.demo` the only place that knows every room."""

from knee3d.dataset.inspection import inspect
from knee3d.dataset.intake import Entry, knees_at
from knee3d.dataset.source import Source
from knee3d.postprocess.clean import Cleaning
from knee3d.postprocess.weights import Wanted
from knee3d.workflow.change import Comparison, Reproducibility, compare, reproducibility
from knee3d.workflow.data import audit, phantom, prepare, restore, table
from knee3d.workflow.evaluation import Scoring, evaluate, fuse
from knee3d.workflow.outcome import Outcome
from knee3d.workflow.pages import ReportWish
from knee3d.workflow.record import Wish
from knee3d.workflow.reporting import knees_of, report
from knee3d.workflow.segmentation import Where, plan, segment
from knee3d.workflow.segmenter import Method
from knee3d.workflow.training import Launcher, card, cross_validate, export, train

__all__ = [
    "Cleaning",
    "Comparison",
    "Entry",
    "Launcher",
    "Method",
    "Outcome",
    "ReportWish",
    "Reproducibility",
    "Scoring",
    "Source",
    "Wanted",
    "Where",
    "Wish",
    "audit",
    "card",
    "compare",
    "cross_validate",
    "evaluate",
    "export",
    "fuse",
    "inspect",
    "knees_at",
    "knees_of",
    "phantom",
    "plan",
    "prepare",
    "report",
    "reproducibility",
    "restore",
    "segment",
    "table",
    "train",
]
