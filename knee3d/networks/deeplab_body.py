"""DeepLab v3+ (Chen et al. 2018, Figure 2): atrous spatial pyramid pooling, and a decoder with one skip at stride 4."""

import keras

from knee3d.networks.layers import ResizeLike
from knee3d.networks.vgg_blocks import convolution_relu, vgg_block

STRIDE = 16
RATES = (6, 12, 18)
"""Of the atrous convolutions, for an output stride of 16."""
WIDTH = 256
SKIP_WIDTH = 48
DROPOUT = 0.1


def build_body(classes: int, encoder: str) -> keras.Model:
    """See `Architecture.body`.

    The paper's encoders are Xception and ResNet. Of VGG the last pooling is left out, which makes its stride 16, and
    its fully connected layers; what is called low-level are the features before the third pooling, at stride 4.
    """
    image = features = keras.Input((None, None, 3), name="image")
    for number in range(1, 6):
        features = vgg_block(features, encoder, number)
        if number == 3:
            low_level = features
        if number < 5:
            features = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(features)
    features = _atrous_pyramid(features)
    upsampled = ResizeLike(name="encoder_upsampled")([features, low_level])
    skip = convolution_relu(low_level, SKIP_WIDTH, 1, "low_level")
    features = keras.layers.Concatenate(name="decoder_concat")([upsampled, skip])
    for one in (1, 2):
        features = convolution_relu(features, WIDTH, 3, f"decoder_{one}")
    scores = keras.layers.Conv2D(classes, 1, name="scores")(features)
    return keras.Model(image, ResizeLike(name="scores_upsampled")([scores, image]), name="deeplab")


def _atrous_pyramid(features: keras.KerasTensor) -> keras.KerasTensor:
    """What is there at a pixel, at three distances around it, and in the whole slice."""
    parts = [convolution_relu(features, WIDTH, 1, "aspp_1x1")]
    parts += [convolution_relu(features, WIDTH, 3, f"aspp_rate{rate}", dilation=rate) for rate in RATES]
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name="aspp_mean")(features)
    parts.append(ResizeLike(name="aspp_mean_spread")([convolution_relu(mean, WIDTH, 1, "aspp_image"), features]))
    pyramid = convolution_relu(keras.layers.Concatenate(name="aspp_concat")(parts), WIDTH, 1, "aspp")
    return keras.layers.Dropout(DROPOUT, name="aspp_dropout")(pyramid)
