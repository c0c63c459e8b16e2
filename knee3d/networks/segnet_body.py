"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, Figure 2): VGG's convolutions and their mirror image.

What decoders know of edges are the indices of the encoder's max pooling.
"""

import keras

from knee3d.networks.layers import PoolWithIndices, UnpoolWithIndices
from knee3d.networks.vgg_blocks import CONVOLUTIONS, FILTERS, convolution_relu, vgg_block

STRIDE = 32


def build_body(classes: int, encoder: str) -> keras.Model:
    """See `Architecture.body`."""
    image = features = keras.Input((None, None, 3), name="image")
    indices = {}
    for number in range(1, 6):
        features = vgg_block(features, encoder, number, normalised=True)
        features, indices[number] = PoolWithIndices(name=f"block{number}_pool")(features)
    for number in range(5, 0, -1):
        features = UnpoolWithIndices(name=f"block{number}_unpool")([features, indices[number]])
        for one in range(CONVOLUTIONS[encoder][number - 1], 1, -1):
            features = convolution_relu(features, FILTERS[number - 1], 3, f"decoder{number}_{one}")
        if number > 1:
            features = convolution_relu(features, FILTERS[number - 2], 3, f"decoder{number}_1")
    scores = keras.layers.Conv2D(classes, 3, padding="same", name="scores")(features)
    return keras.Model(image, scores, name="segnet")
