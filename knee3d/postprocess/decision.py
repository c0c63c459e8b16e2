"""Decide labels from probabilities; combine labels by STAPLE."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.postprocess.blend import (
    Piece,
    Weights,
    as_probabilities,
    blend_chunk,
    check_views,
    check_weights,
    map_over_chunks,
)

CLEAR = 0.55  # more than half, with room for what rounding to uint8 costs


def decide_chunk(probabilities: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """The class of each voxel.

    Args:
        probabilities: (..., classes), at least 0, at most 256 classes. They need not add up to 1.
        thresholds: Of each tissue, (classes - 1,) in (0, 1); None for the most probable class.

    Returns:
        (...) uint8. Without thresholds the most probable class; of equals the lower number, so that doubt goes to
        background. With them, of the tissues above their threshold the one that is most times its threshold, and
        background where there is none.

    Raises:
        ValueError: One is NaN or infinite.
    """
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    labels = np.zeros(len(flat), dtype=np.uint8)
    total = flat @ np.ones(flat.shape[1], dtype=flat.dtype)
    if not np.isfinite(total).all():
        raise ValueError("probabilities are not finite; was a network trained to NaN?")
    if thresholds is None:
        # More than half of the total is more than any other, and holds for nearly all voxels of a knee.
        candidates = np.flatnonzero(flat[:, 0] * flat.dtype.type(2 - 1e-3) <= total)
        labels[candidates] = flat.take(candidates, axis=0).argmax(axis=1)
    else:
        limits = np.asarray(thresholds, dtype=flat.dtype)
        candidates = np.flatnonzero((flat[:, 1:] > limits).any(axis=1))
        times = flat[candidates, 1:] / limits
        labels[candidates] = times.argmax(axis=1) + 1
    return labels.reshape(probabilities.shape[:-1])


def check_thresholds(thresholds: Sequence[float] | None, classes: int) -> None:
    """Refuse thresholds that are not one for each tissue.

    Raises:
        ValueError: Their number is wrong, or one lies outside (0, 1).
    """
    if thresholds is not None and (len(thresholds) != classes - 1 or not all(0 < limit < 1 for limit in thresholds)):
        raise ValueError(f"{classes - 1} tissues need a threshold each, between 0 and 1, got {list(thresholds)}")


def decide_labels(probabilities: Volume, thresholds: Sequence[float] | None = None) -> Volume:
    """Labels of a probability volume, see `decide_chunk`.

    Args:
        probabilities: (*shape, classes), at most 256 classes.
        thresholds: Of each tissue.

    Returns:
        uint8 labels on the same grid.

    Raises:
        ValueError: There is no class axis, or the thresholds are not for its classes.
    """
    if probabilities.array.ndim != 4:
        raise ValueError(f"probabilities have a last axis of classes, got shape {probabilities.array.shape}")
    check_thresholds(thresholds, probabilities.array.shape[-1])
    return probabilities.with_array(decide_array(probabilities.array, thresholds))


def decide_array(probabilities: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """As `decide_chunk`; where there are three axes of voxels, all cores share them.

    Args:
        probabilities: (..., classes), floats, or uint8, where 255 is 1.
        thresholds: Of each tissue.
    """
    if probabilities.ndim != 4:
        return decide_chunk(as_probabilities(probabilities), thresholds)
    return _labelled(
        probabilities.shape, lambda piece: decide_chunk(as_probabilities(probabilities[piece]), thresholds)
    )


def fused_labels(
    views: Mapping[str, Volume], weights: Weights, rule: str = "linear", thresholds: Sequence[float] | None = None
) -> Volume:
    """The same labels as decide(blend(...)) for views that are all at hand; their blend never exists as a whole.

    Args:
        views: View name to (*shape, classes) on one grid, in memory or mapped into it; dtypes as for `blend`.
        weights: View name to weight, or to a weight for each class.
        rule: Key of `blend.RULES`.
        thresholds: Of each tissue.

    Raises:
        ValueError: As `blend` and `decide_labels`.
    """
    check_weights(weights, rule)
    check_views(views)
    if set(views) != set(weights):
        raise ValueError(f"weights are for {sorted(weights)}, but views are {sorted(views)}")
    first, *_ = views.values()
    check_thresholds(thresholds, first.array.shape[-1])
    arrays, shares = [view.array for view in views.values()], [weights[name] for name in views]
    level = max(CLEAR, 1 - min(thresholds or [1]))

    def label(piece: Piece) -> np.ndarray:
        parts = [array[piece] for array in arrays]
        unclear = np.flatnonzero(~clear_background(parts, level))
        labels = np.zeros(parts[0].shape[:-1], dtype=np.uint8)
        rows = [part.reshape(-1, part.shape[-1]).take(unclear, axis=0) for part in parts]
        labels.reshape(-1)[unclear] = decide_chunk(blend_chunk(rows, shares, rule), thresholds)
        return labels

    return first.with_array(_labelled(first.array.shape, label))


def clear_background(parts: Sequence[np.ndarray], level: float) -> np.ndarray:
    """Where every view gives background more than `level`, which is at least 0.5.

    No rule then makes anything else of it, nor gives a tissue more than 1 - level: what holds of the odds of tissue
    against background in each view holds of their weighted means, arithmetic or geometric.

    Args:
        parts: Of each view, (..., classes) probabilities.
        level: In [0.5, 1).

    Returns:
        (...) bool.
    """
    found = np.ones(parts[0].shape[:-1], dtype=bool)
    for part in parts:
        found &= part[..., 0] > (part.dtype.type(255 * level) if part.dtype == np.uint8 else part.dtype.type(level))
    return found


def staple_labels(views: Sequence[Volume]) -> Volume:
    """STAPLE (Warfield et al. 2004), for comparison: what explains labels best if each view errs in its own way.

    Args:
        views: Labels of each view, uint8 on one grid.

    Returns:
        uint8 labels; background where several are equally likely.
    """
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(view.array) for view in views]
    fused = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, 255))
    fused[fused == 255] = 0
    return views[0].with_array(fused)


def _labelled(shape: tuple[int, ...], label: Callable[[Piece], np.ndarray]) -> np.ndarray:
    labels = np.empty(shape[:-1], dtype=np.uint8)

    def work(piece: Piece) -> None:
        labels[piece] = label(piece)

    map_over_chunks(work, shape, 4 * shape[-1])
    return labels
