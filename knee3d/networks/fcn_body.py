"""FCN-8s (Long, Shelhamer and Darrell 2015, Figure 3): VGG made convolutional, coarse scores refined by two skips."""

import keras

from knee3d.networks.layers import Bilinear
from knee3d.networks.vgg_blocks import convolution_relu, vgg_block

STRIDE = 32
UNITS = 4096
"""Of the two layers that were VGG's fully connected ones."""
DROPOUT = 0.5


def build_body(classes: int, encoder: str) -> keras.Model:
    """See `Architecture.body`.

    Pixels are padded by zeros at each convolution instead of by 100 at the first, so that nothing need be cropped. Each
    of the three streams has batch normalisation: Adam moves all weights by as much, so that without it the stream of
    the largest sums (25,088 inputs of fc6, pool3 in the hundreds) was for background, beyond all slopes, in ten steps.
    """
    image = features = keras.Input((None, None, 3), name="image")
    pooled = {}
    for number in range(1, 6):
        features = vgg_block(features, encoder, number)
        features = pooled[number] = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(features)
    for name, size in (("fc6", 7), ("fc7", 1)):
        features = convolution_relu(features, UNITS, size, name)
        features = keras.layers.Dropout(DROPOUT, name=f"{name}_dropout")(features)
    scores = _score(features, classes, "score_fr")
    for number, name in ((4, "upscore2"), (3, "upscore_pool4")):
        skip = keras.layers.BatchNormalization(name=f"pool{number}_bn")(pooled[number])
        scores = keras.layers.Add(name=f"fuse_pool{number}")([
            _up(scores, classes, 2, name), _score(skip, classes, f"score_pool{number}")
        ])  # fmt: skip
    return keras.Model(image, _up(scores, classes, 8, "upscore8"), name="fcn8s")


def _score(features: keras.KerasTensor, classes: int, name: str) -> keras.KerasTensor:
    """Scores begin as zeros, as the paper's."""
    return keras.layers.Conv2D(classes, 1, kernel_initializer="zeros", name=name)(features)


def _up(scores: keras.KerasTensor, classes: int, factor: int, name: str) -> keras.KerasTensor:
    """Learned upsampling that begins as bilinear interpolation."""
    return keras.layers.Conv2DTranspose(
        classes, 2 * factor, factor, padding="same", use_bias=False, kernel_initializer=Bilinear(), name=name
    )(scores)
