"""What networks have around them, so that they take raw pixels of any size and answer with as many probabilities."""

import keras

from knee3d.learn.networks.encoder import ENCODERS
from knee3d.learn.networks.layers import CropLike, MiddleSlices, PadToStride, ToEncoder


def around_slices(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
    """A network of slices between their neighbours.

    Args:
        body: See `Architecture.body`.
        stride: Of the body.
        encoder: Whose pixels it wants.
        context: Neighbours on each side. 1 feeds the three channels directly, as in the paper; others go through a
            learned 1 x 1 convolution, which starts by passing the slice and its next neighbours on.

    Returns:
        uint8 (batch, height, width, 2 * context + 1) -> float32 (batch, height, width, classes), a softmax.
    """
    slices = keras.Input((None, None, 2 * context + 1), dtype="uint8", name="slices")
    pixels, expected = slices, ENCODERS[encoder]
    if context != 1:
        pixels = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(pixels)
        pixels = keras.layers.Conv2D(
            3, 1, use_bias=False, kernel_initializer=MiddleSlices(), dtype="float32", name="mix_neighbours"
        )(pixels)
    pixels = ToEncoder(expected.means, expected.deviations, dtype="float32", name="to_encoder")(pixels)
    return _answering(body, stride, slices, pixels)


def around_patches(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
    """A network of patches of a volume; arguments as `around_slices`, the last two of no matter.

    Returns:
        uint8 (batch, *patch) -> float32 (batch, *patch, classes), a softmax.
    """
    patches = keras.Input((None, None, None), dtype="uint8", name="patches")
    voxels = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="to_float")(patches)
    return _answering(body, stride, patches, voxels[..., None])


def _answering(body: keras.Model, stride: int, raw: keras.KerasTensor, pixels: keras.KerasTensor) -> keras.Model:
    padded = PadToStride(stride, dtype="float32", name="pad_to_stride")(pixels)
    scores = CropLike(dtype="float32", name="crop_like")([body(padded), raw])
    return keras.Model(raw, keras.layers.Softmax(dtype="float32", name="probabilities")(scores))
