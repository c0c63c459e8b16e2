"""What do bfloat16 and --fast change? Test knees through trained networks: float32 whole, bfloat16 whole, then regions.

For regions it is said how much of the whole knee's computation they take, for several margins around what the quick
look finds (`inference.roi.MARGIN_MM`).

    knee3d phantom runs/oai/cohort --knees 8 --seed 1 --from-labels knee_a.nrrd --from-labels knee_b.nrrd
    knee3d prepare runs/oai/cohort/knees.csv runs/oai/dataset --scheme compartments --split 0.5,0.25,0.25 --seed 1
    knee3d-train runs/oai/dataset --models runs/oai/models --epochs 3 --batch-size 4 --learning-rate 1e-3 \
        --schedule cosine --limit-slices 150 --foreground-fraction 0.8 --augment none
    python benchmarks/fast.py runs/oai/dataset runs/oai/models
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from knee3d.dataset.case_collection import Split, load_cases
from knee3d.geometry.volume import Volume
from knee3d.inference import roi
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView, Predictor, View
from knee3d.inference.rectangles import STRIDE
from knee3d.inference.resampled_view import ResampledView, is_of_plane
from knee3d.inference.trained_models import load_models
from knee3d.models.backend import Backend
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice, foreground_matrix

MARGINS_MM = (3.0, 6.0)


@dataclass(frozen=True)
class Counting:
    """A network that notes how many pixels it was given, padded as it pads them."""

    predictor: Predictor
    pixels: list[int]

    @property
    def classes(self) -> int:
        """The network's."""
        return self.predictor.classes

    @property
    def context(self) -> int:
        """The network's."""
        return self.predictor.context

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        """The network's answer."""
        height, width = (-(-side // STRIDE) * STRIDE for side in slices.shape[1:3])
        self.pixels.append(len(slices) * height * width)
        return self.predictor(slices)


def counting(view: View, pixels: list[int]) -> View:
    """The same view, whose network notes what it was given."""
    if isinstance(view, ResampledView):
        return replace(view, view=counting(view.view, pixels))
    if not isinstance(view, PlaneView):
        raise TypeError(f"--fast is for planes, not for {view}")
    return replace(view, predictor=Counting(view.predictor, pixels))


def scored(labels: Volume, truth: Volume, classes: int) -> np.ndarray:
    """Foreground Dice, then that of each tissue."""
    matrix = confusion_matrix(truth.array, labels.array, classes)
    return np.array([dice(foreground_matrix(matrix))[1], *dice(matrix)[1:]])


def main() -> None:
    """Segment in every way, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--margins", type=float, nargs="*", default=MARGINS_MM)
    options = parser.parse_args()
    dataset, pixels = load_cases(options.dataset), list[int]()
    ensembles: dict[str, Ensemble] = {}
    for precision in ("float32", "bfloat16"):
        ensemble = load_models(options.models, engine=Backend(precision=precision)).ensemble
        views = {name: counting(view, pixels) for name, view in ensemble.views.items()}
        ensembles[precision] = replace(ensemble, views=views)
    table = Table(title="change of Dice, in thousandths, against float32 whole")
    for column in ("knee", "how", "seconds", "computed", "region", "foreground", *dataset.scheme.names, "unsure"):
        table.add_column(column)
    console = Console(width=200)
    for case in dataset.of_split(Split.TEST):
        image, truth = dataset.image(case), dataset.mask(case)

        def run(how: str, precision: str, region: np.ndarray | None = None) -> tuple[Volume, float, int]:
            pixels.clear()
            start = time.perf_counter()
            labels = ensembles[precision].predict(image, how, region).labels  # noqa: B023 used before the next case
            return labels, time.perf_counter() - start, sum(pixels)

        classes = dataset.scheme.classes
        plain, seconds, whole = run("float32", "float32")
        before = scored(plain, truth, classes)
        table.add_row(case.name, "float32 whole", f"{seconds:.0f}", "1", "", *_numbers(before, before * 0), "")
        labels, seconds, _ = run("bfloat16", "bfloat16")
        changes = _numbers(before, scored(labels, truth, classes) - before)
        table.add_row("", "bfloat16 whole", f"{seconds:.0f}", "1", "", *changes, "")
        for margin in options.margins:
            roi.MARGIN_MM = margin
            pixels.clear()
            start = time.perf_counter()
            planes = {name: view for name, view in ensembles["bfloat16"].views.items() if is_of_plane(view)}
            name = roi.surveying_view(planes)
            found = roi.localize_roi(image, name, planes[name], dataset.scheme.names)
            look, looked = time.perf_counter() - start, sum(pixels)
            table.add_row("", "quick look", f"{look:.0f}", f"{looked / whole:.3f}", "", *[""] * classes, found.doubt)
            if found.region is not None:
                plain_views = ensembles["bfloat16"]
                ensembles["bfloat16"] = replace(plain_views, views=found.views(plain_views.views))
                labels, seconds, computed = run(f"{margin} mm around", "bfloat16", found.region)
                ensembles["bfloat16"] = plain_views
                changes = _numbers(before, scored(labels, truth, classes) - before)
                edge = "touches the edge" if roi.touches_edge(labels, found.region) else ""
                share, region = f"{computed / whole:.3f}", f"{found.region.mean():.3f}"
                table.add_row("", f"bfloat16, {margin:g} mm around", f"{seconds:.0f}", share, region, *changes, edge)
    console.print(table)


def _numbers(before: np.ndarray, change: np.ndarray) -> Sequence[str]:
    if not change.any():
        return [f"{value:.4f}" for value in before]
    return [f"{1000 * value:+.2f}" for value in change]


if __name__ == "__main__":
    main()
