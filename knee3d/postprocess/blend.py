"""Blend the probabilities of views, `F = wc*C + wa*A + ws*S` (Luan et al. 2025), for any number of named views.

RULES says how opinions may be pooled. Views come one at a time into one accumulator, whole (`blend`) or part by part as
they are made (`BlendAccumulator`), or, where all of them are in memory or mapped into it, piece by piece
(`blend_chunk`), so that nothing as large as a volume is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.threads import map_on_all_cores

Weights = Mapping[str, float | Sequence[float]]
"""View name to its weight, or to one weight for each class."""
Shares = Sequence[float | Sequence[float]]
"""The same of views in their order."""

PIECE_BYTES = 1 << 21  # of 128 KB to 8 MB the fastest, benchmarks/postprocess.py
Piece = tuple[slice, slice]
"""Voxels that fit the processor's cache, by their indices along the first two axes."""

LEAST = np.float32(1e-6)
"""A probability below this counts as this in a product: no view can veto alone."""


@dataclass(frozen=True)
class BlendRule:
    """A way to pool opinions: finish(sum over views of weight * term(probabilities)).

    Attributes:
        term: What a view contributes, (..., classes) float32 -> the same shape.
        finish: The sum -> probabilities, in place where it can.
    """

    term: Callable[[np.ndarray], np.ndarray]
    finish: Callable[[np.ndarray], np.ndarray]


def softmax(values: np.ndarray) -> np.ndarray:
    """exp(values) scaled to add up to 1 over the last axis, in place."""
    values -= values.max(axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _logarithm(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, LEAST))


def _ballot(probabilities: np.ndarray) -> np.ndarray:
    return np.eye(probabilities.shape[-1], dtype=np.float32)[probabilities.argmax(axis=-1)]


RULES: Mapping[str, BlendRule] = {
    "linear": BlendRule(_same, _same),
    "log": BlendRule(_logarithm, softmax),
    "vote": BlendRule(_ballot, _same),
}
"""linear: the paper's weighted mean. log: the logarithmic opinion pool, a weighted geometric mean scaled to add up to 1
(Genest and Zidek 1986). vote: each view has its weight in votes for its most probable class; with equal weights the
majority's, and of equals the lower number."""


def select_weights(weights: Weights, names: Iterable[str]) -> Weights:
    """The weights of some of the views, scaled to add up to 1 again; equal ones where theirs were 0.

    Args:
        weights: View name to weight, or to a weight for each class.
        names: Of the views that are left.
    """
    kept = {name: np.asarray(weights[name], dtype=np.float64) for name in names}
    total = np.sum(list(kept.values()), axis=0)
    scaled = {name: np.where(total > 0, weight / np.where(total > 0, total, 1), 1 / len(kept))
              for name, weight in kept.items()}  # fmt: skip
    return {name: weight.tolist() for name, weight in scaled.items()}


def check_weights(weights: Weights, rule: str = "linear") -> None:
    """Refuse weights that would not blend probabilities into probabilities.

    Raises:
        ValueError: The rule is unknown, there is no weight, one is negative or not finite, some are for each class and
            differ in how many, or they do not add up to 1 within 1e-3 (published weights are rounded).
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r} of fusion; there are: {', '.join(RULES)}")
    sizes = {len(np.atleast_1d(weight)) for weight in weights.values() if np.ndim(weight)}
    if len(sizes) > 1:
        raise ValueError(f"one weight for each class is wanted of every view, got {dict(weights)}")
    values = np.array([np.broadcast_to(weight, max(sizes, default=1)) for weight in weights.values()], np.float64)
    finite = values.size and np.isfinite(values).all()
    if not finite or values.min() < 0 or np.abs(values.sum(axis=0) - 1).max() > 1e-3:
        raise ValueError(f"weights must be at least 0 and add up to 1, got {dict(weights)}")


def blend_chunk(parts: Sequence[np.ndarray], weights: Shares, rule: str = "linear") -> np.ndarray:
    """Pool opinions on some voxels.

    Args:
        parts: Of each view, (..., classes): floats in [0, 1], or uint8, where 255 is 1.
        weights: Of each view.
        rule: Key of `RULES`.

    Returns:
        (..., classes) float32. With a weight for each class they are scaled to add up to 1 again.
    """
    total = np.zeros(parts[0].shape, dtype=np.float32)
    for part, weight in zip(parts, weights, strict=True):
        total += _weighted(part, weight, rule)
    return _finish(total, weights, rule)


def blend(views: Iterable[tuple[str, Volume]], weights: Weights, rule: str = "linear") -> Volume:
    """Pool probability volumes, one view in memory at a time.

    Args:
        views: (name, probabilities) pairs, each (*shape, classes) on one grid: floats in [0, 1], or uint8, where 255
            is 1; mapped files too. A generator is read once, and a view is let go before the next is asked for.
        weights: View name to weight, or to a weight for each class.
        rule: Key of `RULES`.

    Returns:
        (*shape, classes) float32 on the grid of the views, adding up to 1 where the views and weights do.

    Raises:
        ValueError: The weights are none, views and weights do not name the same views, or as `check_views`.
    """
    check_weights(weights, rule)
    pool: BlendAccumulator | None = None
    seen: list[str] = []
    for name, view in views:
        if name not in weights or name in seen:
            raise ValueError(f"view {name!r} came with weights for {sorted(weights)}, after {seen}")
        pool = pool or BlendAccumulator(view, view.array.shape[-1], weights, rule)
        _check_view(name, view, pool.volume)
        pool.add(name, (slice(None),) * 3, view.array)
        seen.append(name)
        del view  # or it would live on while the next one is made
    if pool is None or len(seen) != len(weights):
        raise ValueError(f"weights are for {sorted(weights)}, but only {sorted(seen)} came")
    return pool.finish()


class BlendAccumulator:
    """The sum that grows while views come part by part. Each view must come whole, in parts of its own."""

    def __init__(self, grid: Volume, classes: int, weights: Weights, rule: str = "linear") -> None:
        """Nothing yet.

        Args:
            grid: Where the voxels lie; its values do not matter.
            classes: Background included.
            weights: View name to weight, or to a weight for each class.
            rule: Key of `RULES`.

        Raises:
            ValueError: The weights are none.
        """
        check_weights(weights, rule)
        self._weights, self._rule = weights, rule
        self._total = np.zeros((*grid.shape, classes), dtype=np.float32)
        self.volume = grid.with_array(self._total)  # a read-only look at what grows below

    def add(self, name: str, index: Any, part: np.ndarray) -> None:
        """Take in a part of a view.

        Args:
            name: Of the view.
            index: Which voxels, as numpy indexes the first three axes; none of them twice.
            part: (..., classes) probabilities of them, floats or uint8, where 255 is 1.

        Raises:
            ValueError: Its classes do not add up to 1, as those of logits.
        """
        _check_sums(name, part[:1])
        if all(isinstance(one, slice) for one in index):
            _add_volume(self._total[index], part, self._weights[name], self._rule)
        else:
            self._total[index] += _weighted(part, self._weights[name], self._rule)

    def finish(self, region: np.ndarray | None = None) -> Volume:
        """The opinion of all views together, (*shape, classes) float32; the pool is not to be used any more.

        Args:
            region: bool, of the voxels that all views have seen; the others are background. None is all.
        """
        if region is not None:
            nothing = np.eye(1, self._total.shape[-1], dtype=np.float32)[0]
            nothing *= 1 if RULES[self._rule].finish is _same else 50  # before a softmax

            def forget(piece: Piece) -> None:
                self._total[piece][~region[piece]] = nothing

            map_over_chunks(forget, self._total.shape, 4 * len(nothing))
        _finish_volume(self._total, list(self._weights.values()), self._rule)
        return self.volume


def check_views(views: Mapping[str, Volume]) -> None:
    """Refuse volumes that are no opinions on the same voxels.

    Raises:
        ValueError: There is none, one has no classes, two differ in grid or number of classes, or classes do not add
            up to 1 within 0.05 in the first voxels, as those of logits.
    """
    if not views:
        raise ValueError("there is no view to blend")
    for name, view in views.items():
        _check_view(name, view, next(iter(views.values())))


def _check_view(name: str, view: Volume, grid: Volume) -> None:
    if view.array.ndim != 4:
        raise ValueError(f"view {name!r} has no last axis of classes, but shape {view.array.shape}")
    if view.array.shape != grid.array.shape or not grid.same_grid(view):
        raise ValueError(f"view {name!r} of {view.array.shape} is not on the grid of the first, {grid.array.shape}")
    _check_sums(name, view.array[0, 0])


def _check_sums(name: str, some: np.ndarray) -> None:
    sums = as_probabilities(some).sum(axis=-1)
    if (np.abs(sums - 1) > 0.05).any():  # what is not finite is refused where it is decided
        raise ValueError(f"the classes of view {name!r} do not add up to 1; are they probabilities?")


def as_probabilities(part: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [0, 1]; floats -> float32."""
    if part.dtype == np.uint8:
        return np.multiply(part, np.float32(1 / 255), dtype=np.float32)
    return part.astype(np.float32, copy=False)


def _weighted(part: np.ndarray, weight: float | Sequence[float], rule: str) -> np.ndarray:
    return RULES[rule].term(as_probabilities(part)) * np.asarray(weight, dtype=np.float32)


def _add_volume(total: np.ndarray, array: np.ndarray, weight: float | Sequence[float], rule: str) -> None:
    def add(piece: Piece) -> None:
        total[piece] += _weighted(array[piece], weight, rule)

    map_over_chunks(add, total.shape, 4 * total.shape[-1])


def _finish(total: np.ndarray, weights: Shares, rule: str) -> np.ndarray:
    total = RULES[rule].finish(total)
    if any(np.ndim(weight) for weight in weights):
        total /= np.maximum(total.sum(axis=-1, keepdims=True), LEAST)
    return total


def _finish_volume(total: np.ndarray, weights: Shares, rule: str) -> None:
    if RULES[rule].finish is _same and not any(np.ndim(weight) for weight in weights):
        return

    def finish(piece: Piece) -> None:
        total[piece] = _finish(total[piece], weights, rule)

    map_over_chunks(finish, total.shape, 4 * total.shape[-1])


def memory_chunks(shape: tuple[int, ...], voxel_bytes: int) -> Iterator[Piece]:
    """Cut the first two axes so that each piece holds about `PIECE_BYTES`, and at least one line of voxels.

    Args:
        shape: Of the voxels, three axes or more.
        voxel_bytes: What one voxel takes in whatever the caller keeps in cache.

    Yields:
        Indices of the first two axes; together they cover each voxel once.
    """
    lines = max(1, PIECE_BYTES // (voxel_bytes * shape[2]))
    thick = max(1, lines // shape[1])
    for start in range(0, shape[0], thick):
        for first in range(0, shape[1], lines):
            yield slice(start, start + thick), slice(first, min(first + lines, shape[1]))


def map_over_chunks(work: Callable[[Piece], object], shape: tuple[int, ...], voxel_bytes: int) -> None:
    """Call `work` with each piece, all cores sharing them; numpy computes outside Python's lock."""
    map_on_all_cores(work, memory_chunks(shape, voxel_bytes))
