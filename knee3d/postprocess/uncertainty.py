"""How unsure the networks are of a voxel, and how far their views of it differ."""

from collections.abc import Sequence

import numpy as np

from knee3d.anatomy.volume import Volume
from knee3d.postprocess.blend import as_probabilities
from knee3d.postprocess.slabs import Piece, over_pieces


def entropy_of(probabilities: np.ndarray) -> np.ndarray:
    """Shannon's entropy, as a share of the largest there can be, log(classes).

    Args:
        probabilities: (..., classes) adding up to 1: floats, or uint8, where 255 is 1.

    Returns:
        (...) float32 in [0, 1]: 0 where one class is certain, 1 where all are equally likely.
    """
    values = as_probabilities(probabilities)
    logarithms = np.log(np.maximum(values, np.float32(1e-12)))
    most = np.float32(np.log(values.shape[-1]))
    return np.clip(np.einsum("...c,...c->...", values, logarithms) / -most, 0, 1)


def entropy(probabilities: Volume) -> Volume:
    """The same for each voxel of a volume, (*shape, classes) -> (*shape) float32."""
    array = probabilities.array
    found = np.empty(probabilities.shape, dtype=np.float32)

    def work(piece: Piece) -> None:
        found[piece] = entropy_of(array[piece])

    over_pieces(work, array.shape, 4 * array.shape[-1])
    return probabilities.with_array(found)


def disagreement(views: Sequence[Volume], fused: Volume) -> Volume:
    """Share of the views whose label is not the fused one (Freeman's variation ratio, where most decide).

    Args:
        views: Labels of each view by itself.
        fused: Labels of all of them together, on the same grid.

    Returns:
        (*shape) float32 in [0, 1].
    """
    against = np.zeros(fused.shape, dtype=np.float32)
    for view in views:
        against += view.array != fused.array
    against /= len(views)
    return fused.with_array(against)
