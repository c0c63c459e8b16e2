"""Knees that several tests measure, each made once in a process; whoever gets one leaves it as it is."""

from functools import cache

from knee3d.geometry.volume import Volume
from knee3d.phantom.parametric_knee import parametric_knee


@cache
def made_up_knee(seed: int, shape: tuple[int, int, int] = (88, 108, 84), thickness: float = 1.0) -> Volume:
    """A right knee with voxels of about a millimetre."""
    knee = parametric_knee(shape, seed, thickness)
    knee.array.setflags(write=False)
    return knee
