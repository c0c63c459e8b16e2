"""The convolutions of VGG (Simonyan and Zisserman 2014), for architectures that change it."""

import keras

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Of each of the five blocks."""
FILTERS = (64, 128, 256, 512, 512)


def vgg_block(pixels: keras.KerasTensor, encoder: str, number: int, normalised: bool = False) -> keras.KerasTensor:
    """A block's convolutions, without the pooling after them.

    Args:
        pixels: (batch, height, width, channels).
        encoder: Key of `CONVOLUTIONS`.
        number: Of the block, from 1 on.
        normalised: Whether batch normalisation comes between each convolution and its rectification.
    """
    for one in range(1, CONVOLUTIONS[encoder][number - 1] + 1):
        name = f"block{number}_conv{one}"
        pixels = keras.layers.Conv2D(FILTERS[number - 1], 3, padding="same", name=name)(pixels)
        if normalised:
            pixels = keras.layers.BatchNormalization(name=f"{name}_bn")(pixels)
        pixels = keras.layers.ReLU(name=f"{name}_relu")(pixels)
    return pixels


def convolution_relu(
    pixels: keras.KerasTensor, filters: int, size: int, name: str, transposed: bool = False, dilation: int = 1
) -> keras.KerasTensor:
    """Convolution, batch normalisation, rectification: what decoders are made of.

    Args:
        pixels: (batch, height, width, channels).
        filters: Channels that come out.
        size: Of the kernel.
        name: Of the convolution; the others are called after it.
        transposed: Whether it is a deconvolution.
        dilation: Pixels between two that the kernel sees.
    """
    layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    pixels = layer(filters, size, padding="same", use_bias=False, dilation_rate=dilation, name=name)(pixels)
    pixels = keras.layers.BatchNormalization(name=f"{name}_bn")(pixels)
    return keras.layers.ReLU(name=f"{name}_relu")(pixels)
