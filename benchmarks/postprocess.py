"""Fusion and confusion matrix of knee3d against what a user would otherwise take, in one run.

A made-up knee of OAI's size, 384 x 384 x 160 with six tissues and background, as three networks might see it: blurred,
and each wrong in its own way. Blend + decide against np.average(np.stack(...)) + argmax and against reading the inputs
once; the confusion matrix against scikit-learn's and against one np.bincount over ready indices; the search for fusion
weights on more knees than would fit into memory.

    python benchmarks/postprocess.py
    python benchmarks/postprocess.py --knees 30
"""

import argparse
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage
from sklearn import metrics

from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.parametric_knee import parametric_knee
from knee3d.postprocess.blend import blend, softmax
from knee3d.postprocess.candidate_voxels import find_candidates
from knee3d.postprocess.confusion_matrix import confusion_matrix
from knee3d.postprocess.decision import decide_labels, fused_labels
from knee3d.postprocess.fusion_fit import fit_weights

VIEWS = ("one", "two", "three")
WEIGHTS = dict(zip(VIEWS, (0.5077, 0.4012, 0.0911), strict=True))


def timed(work: Callable[[], object], times: int = 5) -> float:
    """Median of the seconds it takes, after a first time that is not counted."""
    work()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def peak_bytes(work: Callable[..., object], *given: object) -> int:
    """The most memory that its arrays take at a time."""
    tracemalloc.start()
    work(*given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def read_once(arrays: list[np.ndarray]) -> None:
    """The floor: each byte of the inputs comes to a core once, on two cores."""
    halves = [half for array in arrays for half in np.array_split(array.reshape(-1).view(np.uint64), 2)]
    with ThreadPoolExecutor(2) as cores:
        list(cores.map(np.bitwise_or.reduce, halves))


class Observer:
    """Networks that see a knee through blur, each with errors of its own that lie together."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.normal(0, 2.5, (classes, *(-(-size // 8) for size in shape))).astype(np.float32)
        fine = [ndimage.zoom(one, 8, order=1)[tuple(map(slice, shape))] for one in coarse]
        self.errors = np.stack(fine, axis=-1)

    def __call__(self, truth: np.ndarray, seed: int) -> np.ndarray:
        """(*shape, classes) float32 probabilities."""
        shift = np.random.default_rng(seed).integers(0, 100, 3)
        logits = np.roll(self.errors, shift, axis=(0, 1, 2))
        for one in range(logits.shape[-1]):
            logits[..., one] += 10 * ndimage.uniform_filter((truth == one).astype(np.float32), 3)
        return softmax(logits)


def fusion_table(views: dict[str, Volume]) -> Table:
    """Blend and decide."""
    arrays = [view.array for view in views.values()]
    shares = list(WEIGHTS.values())
    accumulator = 4 * arrays[0].size
    ways = {
        "reading the inputs once": lambda: read_once(arrays),
        "np.average(np.stack(...)), argmax": lambda: np.average(np.stack(arrays), axis=0, weights=shares).argmax(-1),
        "blend, decide (a view at a time)": lambda: decide_labels(blend(views.items(), WEIGHTS)),
        "fused_labels (all at hand)": lambda: fused_labels(views, WEIGHTS),
    }
    seconds = {name: timed(way, 2 if "stack" in name else 5) for name, way in ways.items()}
    floor, naive = (seconds[name] for name in list(seconds)[:2])
    table = Table(title=f"{len(views)} views of {' x '.join(map(str, arrays[0].shape))}")
    for column in ("fusion", "seconds", "faster than np.average", "over reading once", "memory in accumulators"):
        table.add_column(column)
    for name, way in ways.items():
        ratios = (f"{naive / seconds[name]:.1f}", f"{seconds[name] / floor:.2f}")
        table.add_row(name, f"{seconds[name]:.3f}", *ratios, f"{peak_bytes(way) / accumulator:.2f}")
    same = (fused_labels(views, WEIGHTS).array == ways["np.average(np.stack(...)), argmax"]()).mean()
    table.caption = f"the same label as np.average's in {same:.5%} of voxels"
    return table


def confusion_table(truth: np.ndarray, labels: np.ndarray, classes: int) -> Table:
    """Counting."""
    ready = (truth.reshape(-1) * np.uint8(classes) + labels.reshape(-1)).astype(np.intp)
    flat = truth.reshape(-1), labels.reshape(-1)
    ways = {
        "knee3d": lambda: confusion_matrix(truth, labels, classes),
        "np.bincount of ready indices": lambda: np.bincount(ready, minlength=classes**2),
        "scikit-learn": lambda: metrics.confusion_matrix(*flat, labels=range(classes)),
    }
    seconds = {name: timed(way, 3) for name, way in ways.items()}
    table = Table(title=f"confusion matrix of {truth.size / 1e6:.1f} million voxels, {classes} classes")
    for column in ("", "seconds", "knee3d is faster by"):
        table.add_column(column)
    for name, took in seconds.items():
        table.add_row(name, f"{took:.3f}", f"{took / seconds['knee3d']:.1f}")
    return table


def fitting_table(observer: Observer, truths: list[Volume], knees: int) -> Table:
    """Evidence and weights, knee by knee; making the knees up is not counted."""
    table = Table(title=f"fusion weights of {knees} knees, {len(VIEWS)} views")
    for column in ("", "seconds", "peak memory of arrays, MB"):
        table.add_column(column)
    with tempfile.TemporaryDirectory() as folder:
        paths, took, peaks = [], 0.0, []
        for knee in track(range(knees), "knees"):
            truth = truths[knee % len(truths)]
            seen = {name: truth.with_array(observer(truth.array, 3 * knee + i)) for i, name in enumerate(VIEWS)}
            paths.append(Path(folder, f"{knee}.npz"))
            start = time.perf_counter()
            find_candidates(truth, seen, f"patient {knee}").save(paths[-1])
            took += time.perf_counter() - start
            if knee == 0:
                peaks.append(peak_bytes(find_candidates, truth, seen, ""))
            del seen
        table.add_row("evidence of all", f"{took:.1f}", f"{peaks[0] / 1e6:.0f}")
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        for count in sorted({max(1, knees // 3), knees}):
            start = time.perf_counter()
            found = fit_weights(paths[:count])
            seconds = time.perf_counter() - start
            peak = peak_bytes(fit_weights, paths[:count]) if seconds < 120 else float("nan")
            table.add_row(f"search over {count}", f"{seconds:.1f}", f"{peak / 1e6:.0f}")
        shares = " ".join(f"{weight:.3f}" for weight in found.weights.values())
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        table.caption = (
            f"weights {shares}: Dice {found.dice:.4f}, equal {found.equal:.4f}; "
            f"evidence {megabytes:.0f} MB on disk; process {process} MB"
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knees", type=int, default=3, help="for the search of weights")
    parser.add_argument("--shape", default="384,384,160")
    options = parser.parse_args()
    first, second, third = map(int, options.shape.split(","))
    shape, scheme = (first, second, third), SCHEMES["iwoai"]
    truths = []
    for seed in range(min(3, options.knees)):
        knee = parametric_knee(shape, seed)
        truths.append(knee.with_array(labels_to_classes(knee.array, LABEL_NAMES["pymskt"], scheme)))
    observer = Observer(shape, scheme.classes)
    views = {name: truths[0].with_array(observer(truths[0].array, i)) for i, name in enumerate(VIEWS)}
    console = Console()
    console.print(fusion_table(views))
    console.print(confusion_table(truths[0].array, fused_labels(views, WEIGHTS).array, scheme.classes))
    del views
    console.print(fitting_table(observer, truths, options.knees))


if __name__ == "__main__":
    main()
