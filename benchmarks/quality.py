"""Do flags rise where Dice falls? Test knees of a dataset, spoiled in known ways, through trained networks.

knee3d demo --out runs/demo
python benchmarks/quality.py runs/demo/dataset runs/demo/models
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from knee3d.dataset.case_collection import Split, load_cases
from knee3d.geometry.volume import Volume
from knee3d.inference.trained_models import load_models
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice, foreground_matrix
from knee3d.postprocess.quality import check_quality

Pair = tuple[np.ndarray, np.ndarray]


def noisy(sigma: float) -> Callable[[Pair], Pair]:
    """Gaussian noise of so many grey levels."""

    def spoil(pair: Pair) -> Pair:
        image, mask = pair
        noise = np.random.default_rng(0).normal(0, sigma, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8), mask

    return spoil


def both(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pair], Pair]:
    """The same to image and mask."""
    return lambda pair: (change(pair[0]), change(pair[1]))


# Canonical axes are Inferior, Posterior, Left.
SPOILED: dict[str, Callable[[Pair], Pair]] = {
    "as it is": lambda pair: pair,
    "noise of 25 grey levels": noisy(25),
    "noise of 75 grey levels": noisy(75),
    "blurred by 2 voxels": lambda pair: (ndimage.gaussian_filter(pair[0], 2), pair[1]),
    "upside down": both(lambda array: array[::-1]),
    "front is back": both(lambda array: array[:, ::-1]),
    "side swapped": both(lambda array: array[:, :, ::-1]),
    "axes exchanged": both(lambda array: array.transpose(1, 0, 2)),
    "lower half only": both(lambda array: array[array.shape[0] // 2 :]),
    "medial half only": both(lambda array: array[:, :, : array.shape[2] // 2]),
    "inverted": lambda pair: (255 - pair[0], pair[1]),
}


def main() -> None:
    """Spoil, segment, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", type=Path)
    options = parser.parse_args()
    dataset, trained = load_cases(options.dataset), load_models(options.models)
    cases, names = dataset.of_split(Split.TEST), dataset.scheme.names
    table = Table(title=f"{len(cases)} test knees")
    for column in ("spoiled", "foreground Dice", "knees flagged", "inter_view_dice", "predictive_entropy", "flags"):
        table.add_column(column)
    for name, spoil in SPOILED.items():
        matrix, found = np.zeros((dataset.scheme.classes,) * 2, np.int64), []
        for case in cases:
            image, mask = spoil((dataset.image(case).array, dataset.mask(case).array))
            volume = Volume(np.ascontiguousarray(image), case.affine)
            opinion = trained.ensemble.predict(volume, case.name)
            labels = opinion.labels
            found.append(check_quality(labels, opinion.view_predictions, names, trained.reference))
            matrix += confusion_matrix(np.ascontiguousarray(mask), labels.array, dataset.scheme.classes)
        words = {flag.split(":")[0] for one in found for flag in one.flags}
        flagged = sum(bool(one.flags) for one in found)
        agreement, doubt = (
            np.nanmean([getattr(one, key) for one in found]) for key in ("inter_view_dice", "predictive_entropy")
        )
        numbers = (f"{dice(foreground_matrix(matrix))[1]:.3f}", f"{flagged} of {len(cases)}", f"{agreement:.3f}")
        table.add_row(name, *numbers, f"{doubt:.3f}", ", ".join(sorted(words)))
    Console().print(table)


if __name__ == "__main__":
    main()
