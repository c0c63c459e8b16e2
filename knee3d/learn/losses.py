"""Losses of a batch as pure functions, and one table of their names.

Each takes (truth, probabilities, background, total):

    truth          (batch, height, width), or with more axes, integer classes of any dtype.
    probabilities  (batch, height, width, classes) in [0, 1], adding up to 1.
    background     Whether class 0 counts as a class of its own. It is 98 % of a knee and hides the rest.
    total          Adds a tensor up over all devices that share the batch; the identity on one. With it every device
                   computes the loss of the whole batch, so that two GPUs train what one would.

and returns a scalar float32. Overlaps are summed over the whole batch and not over each slice (Isensee et al., nnU-Net,
2021), so that slices without cartilage do not count as failures. A class absent from truth costs nothing where nothing
is predicted as it, and the more the more there is: one voxel is added above and below each fraction line.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

Total = Callable[[tf.Tensor], tf.Tensor]
Loss = Callable[[tf.Tensor, tf.Tensor, bool, Total], tf.Tensor]

SMOOTH = 1.0
TVERSKY_FALSE_POSITIVES, TVERSKY_FALSE_NEGATIVES = 0.3, 0.7
FOCAL_GAMMA = 4 / 3


def soft_dice(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
) -> tf.Tensor:
    """One minus the mean over classes of (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    Milletari et al., V-Net, 2016, there with squares in the denominator.
    """
    hits, true, found = _sums(truth, probabilities, background, total)
    return 1 - tf.reduce_mean((2 * hits + SMOOTH) / (true + found + SMOOTH))


def dice_cross_entropy(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
) -> tf.Tensor:
    """Soft Dice plus the mean over voxels of the cross-entropy, which always counts background. Isensee et al. 2021."""
    index = tf.cast(truth, tf.int32)
    chosen = tf.gather(tf.cast(probabilities, tf.float32), index, batch_dims=len(truth.shape))
    surprise = -tf.math.log(tf.maximum(chosen, 1e-7))
    summed = total(tf.stack([tf.reduce_sum(surprise), tf.cast(tf.size(surprise), tf.float32)]))
    return soft_dice(truth, probabilities, background, total) + summed[0] / summed[1]


def generalised_dice(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
) -> tf.Tensor:
    """Dice over all classes at once, each weighed by 1 / (voxels of it)^2. Sudre et al. 2017.

    A class absent from truth has the weight of the rarest class present.
    """
    hits, true, found = _sums(truth, probabilities, background, total)
    weights = tf.math.divide_no_nan(1.0, true**2)
    rarest = tf.reduce_max(weights)
    weights = tf.where(true > 0, weights, tf.where(rarest > 0, rarest, 1.0))
    weights = weights / tf.reduce_max(weights)
    return 1 - (2 * tf.reduce_sum(weights * hits) + SMOOTH) / (tf.reduce_sum(weights * (true + found)) + SMOOTH)


def tversky(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
) -> tf.Tensor:
    """One minus the mean over classes of TP / (TP + 0.3 FP + 0.7 FN): misses cost more. Salehi et al. 2017."""
    return 1 - tf.reduce_mean(_tversky_index(truth, probabilities, background, total))


def focal_tversky(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool = False, total: Total = tf.identity
) -> tf.Tensor:
    """Mean over classes of (1 - Tversky index)^(3/4): small structures count more. Abraham and Khan 2019, gamma 4/3."""
    missing = 1 - _tversky_index(truth, probabilities, background, total)
    return tf.reduce_mean(tf.maximum(missing, 1e-7) ** (1 / FOCAL_GAMMA))  # at 0 the slope would be infinite


LOSSES: Mapping[str, Loss] = {
    "dice": soft_dice,
    "dice-ce": dice_cross_entropy,
    "generalised-dice": generalised_dice,
    "tversky": tversky,
    "focal-tversky": focal_tversky,
}


def _tversky_index(truth: tf.Tensor, probabilities: tf.Tensor, background: bool, total: Total) -> tf.Tensor:
    hits, true, found = _sums(truth, probabilities, background, total)
    wrong = TVERSKY_FALSE_POSITIVES * (found - hits) + TVERSKY_FALSE_NEGATIVES * (true - hits)
    return (hits + SMOOTH) / (hits + wrong + SMOOTH)


def _sums(
    truth: tf.Tensor, probabilities: tf.Tensor, background: bool, total: Total
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of each class that counts: sum(p t), sum(t), sum(p), each (classes,) float32."""
    first = 0 if background else 1
    found = tf.cast(probabilities, tf.float32)[..., first:]
    true = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(probabilities)[-1], dtype=tf.float32)[..., first:]
    voxels = list(range(len(truth.shape)))
    sums = tf.stack([tf.reduce_sum(part, axis=voxels) for part in (true * found, true, found)])
    hits, true, found = tf.unstack(total(sums))
    return hits, true, found
