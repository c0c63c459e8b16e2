"""DeconvNet (Noh, Hong and Han 2015, Figure 2): VGG with its two fully connected layers, and its mirror image."""

import keras

from knee3d.networks.layers import PoolWithIndices, UnpoolWithIndices
from knee3d.networks.vgg_blocks import CONVOLUTIONS, FILTERS, convolution_relu, vgg_block

STRIDE = 32
UNITS = 4096
"""Of the two layers that were VGG's fully connected ones."""


def build_body(classes: int, encoder: str) -> keras.Model:
    """See `Architecture.body`.

    fc6 keeps its 7 x 7 kernel and slides over the features, padded: of the paper's 224 pixels, which were one place for
    it, there are 7 x 7 places, and of smaller slices some.
    """
    image = features = keras.Input((None, None, 3), name="image")
    indices = {}
    for number in range(1, 6):
        features = vgg_block(features, encoder, number, normalised=True)
        features, indices[number] = PoolWithIndices(name=f"block{number}_pool")(features)
    features = convolution_relu(features, UNITS, 7, "fc6")
    features = convolution_relu(features, UNITS, 1, "fc7")
    features = convolution_relu(features, FILTERS[-1], 7, "deconv_fc6", transposed=True)
    for number in range(5, 0, -1):
        features = UnpoolWithIndices(name=f"block{number}_unpool")([features, indices[number]])
        count = CONVOLUTIONS[encoder][number - 1]
        widths = [FILTERS[number - 1]] * (count - 1) + [FILTERS[max(number - 2, 0)]]
        for one, width in enumerate(widths, start=1):
            features = convolution_relu(features, width, 3, f"deconv{number}_{one}", transposed=True)
    scores = keras.layers.Conv2D(classes, 1, name="scores")(features)
    return keras.Model(image, scores, name="deconvnet")
