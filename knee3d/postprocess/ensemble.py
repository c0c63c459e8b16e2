"""Ensemble: one Predictor per plane and the weights of their opinions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from knee3d.anatomy.plane import Plane
from knee3d.anatomy.volume import Volume
from knee3d.postprocess.blend import Weights, blend, check_weights
from knee3d.postprocess.decide import check_thresholds, decide
from knee3d.postprocess.predict import Predictor, predict_volume
from knee3d.progress import progress

FUSED = "fused"
"""What all views together are called where each view has its name."""


@dataclass(frozen=True)
class Ensemble:
    """The networks that look at one knee together.

    Attributes:
        predictors: Plane to network.
        weights: Plane name to fusion weight, or to a weight for each class, for the same planes.
        rule: How they are pooled, key of `blend.RULES`.
        thresholds: Of each tissue; None for the most probable class.

    Raises:
        ValueError: Predictors and weights are not for the same planes, weights or thresholds are none, or the
            networks do not tell the same number of classes apart.
    """

    predictors: Mapping[Plane, Predictor]
    weights: Weights
    rule: str = "linear"
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        planes = {plane.value for plane in self.predictors}
        if planes != set(self.weights):
            raise ValueError(
                f"fusion weights are for {sorted(self.weights)}, but the networks are for {sorted(planes)}; "
                "fit them again"
            )
        if len({predictor.classes for predictor in self.predictors.values()}) > 1:
            raise ValueError("the networks do not have the same number of classes; they come from different schemes")
        check_weights(self.weights, self.rule)
        check_thresholds(self.thresholds, self.classes)

    @property
    def classes(self) -> int:
        """Background included."""
        return next(iter(self.predictors.values())).classes

    def fused(self, views: Iterable[tuple[str, Volume]]) -> Volume:
        """Probabilities of all views together, one view in memory at a time."""
        return blend(views, self.weights, self.rule)

    def decided(self, fused: Volume) -> Volume:
        """Labels of such probabilities."""
        return decide(fused, self.thresholds)

    def views(self, image: Volume, title: str) -> Iterator[tuple[str, Volume]]:
        """Probabilities in one plane after the other, under a progress bar.

        Args:
            image: uint8, canonical axes.
            title: What the bar says.

        Yields:
            (plane name, probabilities (*shape, classes) float32).
        """
        slices = sum(image.shape[plane.axis] for plane in self.predictors)
        with progress(title, slices) as advance:
            for plane, predictor in self.predictors.items():
                yield plane.value, predict_volume(image, plane, predictor, advance=advance)
