"""The journeys end to end: with `knee3d.demo` the only place that knows every room."""

from knee3d.dataset.source import Source
from knee3d.postprocess.clean import Cleaning
from knee3d.postprocess.weights import Wanted
from knee3d.workflow.data import audit, inspect, phantom, prepare, restore, table
from knee3d.workflow.evaluation import Scoring, evaluate, fuse
from knee3d.workflow.results import segment
from knee3d.workflow.training import Launcher, card, cross_validate, export, train

__all__ = [
    "Cleaning",
    "Launcher",
    "Scoring",
    "Source",
    "Wanted",
    "audit",
    "card",
    "cross_validate",
    "evaluate",
    "export",
    "fuse",
    "inspect",
    "phantom",
    "prepare",
    "restore",
    "segment",
    "table",
    "train",
]
