"""Ensemble: the views of one knee and their fusion weights. It predicts fused probabilities and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from knee3d.geometry.box import Box, bounding_box, whole_box
from knee3d.geometry.volume import Volume
from knee3d.inference.prediction import View
from knee3d.inference.rectangles import slice_relative_to
from knee3d.postprocess.blend import BlendAccumulator, Weights, check_weights
from knee3d.postprocess.decision import check_thresholds, decide_labels
from knee3d.postprocess.quality import ViewAccumulator, ViewPrediction
from knee3d.progress import progress


@dataclass(frozen=True)
class ProbabilityWriter:
    """What is to be done with the probabilities of each view by itself.

    Attributes:
        dtype: In which they are gathered, (*shape, classes).
        write: Called with the view's name and its volume when it is complete.
    """

    dtype: Any
    write: Callable[[str, Volume], object]


@dataclass(frozen=True, eq=False)
class EnsemblePrediction:
    """What an ensemble says of one knee.

    Attributes:
        fused: Probabilities of all views together, (*shape, classes) float32; where only a region was looked at, of the
            box that holds it.
        labels: What they amount to, uint8, of the whole image.
        view_predictions: View name to the labels and the entropy of that view.
    """

    fused: Volume
    labels: Volume
    view_predictions: Mapping[str, ViewPrediction]


@dataclass(frozen=True)
class Ensemble:
    """The networks that look at one knee together.

    Attributes:
        views: View name to view.
        weights: View name to fusion weight, or to a weight for each class, for the same views.
        rule: How they are pooled, key of `blend.RULES`.
        thresholds: Of each tissue; None for the most probable class.

    Raises:
        ValueError: Weights are not for the views, weights or thresholds are none, or the networks do not tell the
            same number of classes apart.
    """

    views: Mapping[str, View]
    weights: Weights
    rule: str = "linear"
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if set(self.views) != set(self.weights):
            raise ValueError(
                f"fusion weights are for {sorted(self.weights)}, but the networks are for {sorted(self.views)}; "
                "fit them again"
            )
        if len({view.predictor.classes for view in self.views.values()}) > 1:
            raise ValueError("the networks do not have the same number of classes; they come from different schemes")
        check_weights(self.weights, self.rule)
        check_thresholds(self.thresholds, self.classes)

    @property
    def classes(self) -> int:
        """Background included."""
        return next(iter(self.views.values())).predictor.classes

    def predict(
        self, image: Volume, title: str, region: np.ndarray | None = None, keep: ProbabilityWriter | None = None
    ) -> EnsemblePrediction:
        """Look at a knee in one view after the other, under a progress bar.

        In memory are the sum over views, and a batch of slices of the view that is being computed.

        Args:
            image: uint8, canonical axes.
            title: What the bar says.
            region: bool of the image's shape: where to look; the rest is background. None looks everywhere.
            keep: What to do with each view by itself; each costs the memory of one. None leaves it.
        """
        box = _box(image, region)
        grid, inside = image.part(box), None if region is None else region[box]
        pool = BlendAccumulator(grid, self.classes, self.weights, self.rule)
        predictions = {}
        with progress(title, sum(view.steps(image) for view in self.views.values())) as advance:
            for name, view in self.views.items():
                accumulator = ViewAccumulator(grid, inside)
                kept = None if keep is None else _background(image, self.classes, keep.dtype)
                for index, part in view.parts(image, region, advance):
                    here = _counted_from(box, index)
                    pool.add(name, here, part)
                    accumulator.add(here, part)
                    if kept is not None:
                        kept[index] = part
                one = accumulator.result()
                predictions[name] = replace(one, labels=one.labels.padded_to(image))
                if keep is not None and kept is not None:
                    keep.write(name, image.with_array(kept))
        fused = pool.finish(inside)
        return EnsemblePrediction(fused, decide_labels(fused, self.thresholds).padded_to(image), predictions)


def _box(image: Volume, region: np.ndarray | None) -> Box:
    """What holds a region, at least one voxel of the image."""
    if region is None:
        return whole_box(image.shape)
    return bounding_box(region) or whole_box((1, 1, 1))


def _counted_from(box: Box, index: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where an index of the whole, slices or arrays, points within a box."""
    return tuple(
        slice_relative_to(one, side) if isinstance(one, slice) else one - side.start
        for one, side in zip(index, box, strict=True)
    )


def _background(image: Volume, classes: int, dtype: Any) -> np.ndarray:
    probabilities = np.zeros((*image.shape, classes), dtype)
    probabilities[..., 0] = 1
    return probabilities
