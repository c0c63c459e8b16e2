"""The journeys end to end: with `knee3d.demo` the only place that knows every room."""

from knee3d.dataset.source import Source
from knee3d.workflow.data import audit, inspect, phantom, prepare, restore, table
from knee3d.workflow.learning import card, cross_validate, evaluate, fuse, train
from knee3d.workflow.results import segment

__all__ = [
    "Source",
    "audit",
    "card",
    "cross_validate",
    "evaluate",
    "fuse",
    "inspect",
    "phantom",
    "prepare",
    "restore",
    "segment",
    "table",
    "train",
]
