"""Losses of a batch, or of whole knees, and one table of their names.

Every loss here is a function of sums over voxels, so that sums of several devices, batches or slices of a knee can be
added up before the loss is computed of them:

    sums        (..., 4, classes) float32, see `sums_of`; leading axes count knees, for example.
    background  Whether class 0 counts as a class of its own. It is 98 % of a knee and hides the rest.

Each returns (...) float32. Overlaps are summed over the whole batch and not over each slice (Isensee et al., nnU-Net,
2021), so that slices without cartilage do not count as failures. A class absent from truth costs nothing where nothing
is predicted as it, and the more the more there is: one voxel is added above and below each fraction line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import knee3d.tensorflow_setup  # noqa: F401

import tensorflow as tf

Total = Callable[[tf.Tensor], tf.Tensor]

SMOOTH = 1.0
TVERSKY_FALSE_POSITIVES, TVERSKY_FALSE_NEGATIVES = 0.3, 0.7
FOCAL_GAMMA = 4 / 3


@dataclass(frozen=True)
class Loss:
    """A loss by what it is computed from.

    Attributes:
        of_sums: (sums, background) -> the loss, see the top of this module.
        surprise: Whether it needs the cross-entropy among the sums.
    """

    of_sums: Callable[[tf.Tensor, bool], tf.Tensor]
    surprise: bool = False

    def __call__(
        self, truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
    ) -> tf.Tensor:
        """The loss of a batch, a scalar float32.

        Args:
            truth: (batch, height, width), or with more axes, integer classes of any dtype.
            probabilities: (batch, height, width, classes) in [0, 1], adding up to 1.
            background: Whether class 0 counts.
            total: Adds a tensor up over all devices that share the batch; the identity on one. With it every device
                computes the loss of the whole batch, so that two GPUs train what one would.
        """
        return self.of_sums(total(tf.reduce_sum(sums_of(truth, probabilities, self.surprise), axis=0)), background)


def sums_of(truth: tf.Tensor, probabilities: tf.Tensor, surprise: bool = False) -> tf.Tensor:
    """Sums over the voxels of each slice, from which every loss is computed.

    Args:
        truth: As `Loss` takes it.
        probabilities: As `Loss` takes it.
        surprise: Whether to compute the fourth row.

    Returns:
        (batch, 4, classes) float32: sum(p t), sum(t), sum(p), and sum(-t log p), which is 0 unless it is asked for.
    """
    found = tf.cast(probabilities, tf.float32)
    true = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(probabilities)[-1], dtype=tf.float32)
    voxels = list(range(1, len(truth.shape)))
    sums = [tf.reduce_sum(part, axis=voxels) for part in (true * found, true, found)]
    bits = tf.reduce_sum(-true * tf.math.log(tf.maximum(found, 1e-7)), axis=voxels) if surprise else sums[0] * 0
    return tf.stack([*sums, bits], axis=1)


def soft_dice(sums: tf.Tensor, background: bool = False) -> tf.Tensor:
    """One minus the mean over classes of (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    Milletari et al., V-Net, 2016, there with squares in the denominator.
    """
    hits, true, found, _ = _rows(sums, background)
    return 1 - tf.reduce_mean((2 * hits + SMOOTH) / (true + found + SMOOTH), axis=-1)


def dice_cross_entropy(sums: tf.Tensor, background: bool = False) -> tf.Tensor:
    """Soft Dice plus the mean over voxels of the cross-entropy, which always counts background. Isensee et al. 2021."""
    _, true, _, surprise = _rows(sums, True)
    return soft_dice(sums, background) + tf.reduce_sum(surprise, axis=-1) / tf.reduce_sum(true, axis=-1)


def generalised_dice(sums: tf.Tensor, background: bool = False) -> tf.Tensor:
    """Dice over all classes at once, each weighed by 1 / (voxels of it)^2. Sudre et al. 2017.

    A class absent from truth has the weight of the rarest class present.
    """
    hits, true, found, _ = _rows(sums, background)
    weights = tf.math.divide_no_nan(1.0, true**2)
    rarest = tf.reduce_max(weights, axis=-1, keepdims=True)
    weights = tf.where(true > 0, weights, tf.where(rarest > 0, rarest, 1.0))
    weights = weights / tf.reduce_max(weights, axis=-1, keepdims=True)
    above, below = (tf.reduce_sum(weights * part, axis=-1) for part in (hits, true + found))
    return 1 - (2 * above + SMOOTH) / (below + SMOOTH)


def tversky(sums: tf.Tensor, background: bool = False) -> tf.Tensor:
    """One minus the mean over classes of TP / (TP + 0.3 FP + 0.7 FN): misses cost more. Salehi et al. 2017."""
    return 1 - tf.reduce_mean(_tversky_index(sums, background), axis=-1)


def focal_tversky(sums: tf.Tensor, background: bool = False) -> tf.Tensor:
    """Mean over classes of (1 - Tversky index)^(3/4): small structures count more. Abraham and Khan 2019, gamma 4/3."""
    missing = 1 - _tversky_index(sums, background)
    # at 0 the slope would be infinite
    return tf.reduce_mean(tf.maximum(missing, 1e-7) ** (1 / FOCAL_GAMMA), axis=-1)


LOSSES: Mapping[str, Loss] = {
    "dice": Loss(soft_dice),
    "dice-ce": Loss(dice_cross_entropy, surprise=True),
    "generalised-dice": Loss(generalised_dice),
    "tversky": Loss(tversky),
    "focal-tversky": Loss(focal_tversky),
}


def _tversky_index(sums: tf.Tensor, background: bool) -> tf.Tensor:
    hits, true, found, _ = _rows(sums, background)
    wrong = TVERSKY_FALSE_POSITIVES * (found - hits) + TVERSKY_FALSE_NEGATIVES * (true - hits)
    return (hits + SMOOTH) / (hits + wrong + SMOOTH)


def _rows(sums: tf.Tensor, background: bool) -> list[tf.Tensor]:
    """The four rows, of the classes that count."""
    return tf.unstack(sums[..., 0 if background else 1 :], axis=-2)
