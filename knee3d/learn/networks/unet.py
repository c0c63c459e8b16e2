"""U-Net (Ronneberger et al. 2015) on a VGG16 encoder (Simonyan and Zisserman 2014): the paper's network."""

import keras
import segmentation_models

from knee3d.learn.networks.layers import CropLike, MiddleSlices, PadToStride, ToEncoder

STRIDE = 32


def vgg16_unet(classes: int, context: int, encoder_weights: str | None) -> keras.Model:
    """The U-Net of `segmentation-models`, between layers that take raw pixels of any size.

    Args:
        classes: Background included.
        context: Neighbours on each side of a slice. 1 feeds the encoder's three channels directly, as in the paper;
            others go through a learned 1 x 1 convolution, which starts by passing the slice and its next neighbours on.
        encoder_weights: "imagenet" (Keras downloads them), a path to Keras' VGG16 file without top, or None.

    Returns:
        uint8 (batch, height, width, 2 * context + 1) -> float32 (batch, height, width, classes), a softmax.
    """
    slices = keras.Input((None, None, 2 * context + 1), dtype="uint8", name="slices")
    pixels = slices
    if context != 1:
        pixels = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(pixels)
        pixels = keras.layers.Conv2D(
            3, 1, use_bias=False, kernel_initializer=MiddleSlices(), dtype="float32", name="mix_neighbours"
        )(pixels)
    pixels = ToEncoder(dtype="float32", name="to_encoder")(pixels)
    padded = PadToStride(STRIDE, dtype="float32", name="pad_to_stride")(pixels)
    unet = segmentation_models.Unet(
        "vgg16", input_shape=(None, None, 3), classes=classes, activation="linear", encoder_weights=encoder_weights
    )
    scores = CropLike(dtype="float32", name="crop_like")([unet(padded), slices])
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scores)
    return keras.Model(slices, probabilities, name="vgg16_unet")
