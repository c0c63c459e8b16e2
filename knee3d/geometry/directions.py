"""Sets of directions of oblique slices, as rotations of the scanner's frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

LEFT, SUPERIOR = np.array([-1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
"""In RAS."""
_GOLDEN = (5**0.5 - 1) / 2
_FIRST = 0.36
"""How far the first direction is from the pole and the last from the rim, which keeps neighbours furthest apart."""
_PHASE = 0.1
"""Of a turn: with up to 12 directions none is within 10 degrees of an axis, where a plane looks already."""

Spread = Callable[[int], tuple[np.ndarray, ...]]
"""How many directions -> as many rotations, (3, 3), for `resample.oblique_grid`. No two see the same slices."""


def sphere_rotations(count: int) -> tuple[np.ndarray, ...]:
    """Rotations whose slices look at a knee from directions spread evenly: the same ones each time.

    The directions lie on a Fibonacci lattice (Swinbank and Purser 2006) over the half sphere around Left; the other
    half holds their opposites, which are the same slices in reverse. Each rotation is the smallest that takes Left,
    the third canonical axis, to its direction, so that slices are turned within their plane as little as can be. A
    volume whose axes are tilted is turned from where it lies.

    Args:
        count: How many, from 1 on.

    Returns:
        See `Spread`.
    """
    number = np.arange(count)
    towards_left = 1 - (number + _FIRST) / count
    around = 2 * np.pi * (number * _GOLDEN + _PHASE)
    radius = np.sqrt(1 - towards_left**2)
    directions = np.stack([-towards_left, radius * np.cos(around), radius * np.sin(around)], axis=-1)
    return tuple(_smallest_turn(LEFT, direction) for direction in directions)


def radial_rotations(count: int) -> tuple[np.ndarray, ...]:
    """Rotations whose slices all contain the scanner's long axis, evenly spread around it.

    With an even number none looks along an axis, as planes do; of an odd number the middle one looks along Left.

    Args:
        count: How many, from 1 on.

    Returns:
        See `Spread`.
    """
    angles = np.pi * ((np.arange(count) + 0.5) / count - 0.5)
    across = np.cross(SUPERIOR, LEFT)
    return tuple(_smallest_turn(LEFT, np.cos(angle) * LEFT + np.sin(angle) * across) for angle in angles)


def _smallest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation in the plane of two unit vectors, not opposite, that takes one to the other (Rodrigues)."""
    x, y, z = np.cross(start, end)
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + across + across @ across / (1 + start @ end)


SPREADS: Mapping[str, Spread] = MappingProxyType({"sphere": sphere_rotations, "radial": radial_rotations})


def oblique_view_rotations(spread: str, count: int) -> tuple[np.ndarray, ...]:
    """The rotations of a spread, the same ones each time.

    Raises:
        ValueError: There is no such spread, or nothing to spread.
    """
    if spread not in SPREADS:
        raise ValueError(f"unknown spread {spread!r}; there are: {', '.join(SPREADS)}")
    if count < 1:
        raise ValueError(f"expected at least one direction, got {count}")
    return SPREADS[spread](count)
