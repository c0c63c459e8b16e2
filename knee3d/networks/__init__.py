"""One table of networks, one builder per architecture, and what all have around them.

So they take raw pixels of any size and answer with as many probabilities.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import knee3d.tensorflow_setup  # noqa: F401

import keras

from knee3d.networks import (
    custom_network,
    deconvnet,
    deeplab,
    fcn,
    pspnet,
    segmentation_models_networks,
    segnet,
    unet3d,
)
from knee3d.networks.encoder import ENCODERS, NO_ENCODER, PixelScaling, scale_for_encoder
from knee3d.networks.layers import CropLike, MiddleSlices, PadToStride
from knee3d.networks.vgg_blocks import CONVOLUTIONS


@dataclass(frozen=True)
class Architecture:
    """A way to build networks.

    Attributes:
        body: (classes, encoder) -> a model with random weights from float32 (batch, height, width, 3), as the encoder
            knows pixels, to scores (batch, height, width, classes). The encoder's layers have the names that Keras
            gives them.
        stride: Height and width come as multiples of it.
        encoders: What it may begin with, keys of `ENCODERS`; the first is the default. With `NO_ENCODER` it is given
            pixels of 0 to 255.
        whole: Whether means over the whole slice have a say, so that it knows nothing of a part that is cut out.
        solid: Whether it takes patches of a volume, (batch, inferior, posterior, left, 1), instead of slices.
    """

    body: Callable[[int, str], keras.Model]
    stride: int
    encoders: tuple[str, ...] = tuple(ENCODERS)
    whole: bool = False
    solid: bool = False


_VGG = tuple(CONVOLUTIONS)

NETWORKS: Mapping[str, Architecture] = {
    "unet": Architecture(segmentation_models_networks.unet, segmentation_models_networks.STRIDE),
    "fcn": Architecture(fcn.fcn8s, fcn.STRIDE, _VGG),
    "deconvnet": Architecture(deconvnet.deconvnet, deconvnet.STRIDE, _VGG),
    "deeplab": Architecture(deeplab.deeplab, deeplab.STRIDE, _VGG, whole=True),
    "segnet": Architecture(segnet.segnet, segnet.STRIDE, _VGG),
    "pspnet": Architecture(pspnet.pspnet, pspnet.STRIDE, whole=True),
    "fpn": Architecture(segmentation_models_networks.fpn, segmentation_models_networks.STRIDE),
    "linknet": Architecture(segmentation_models_networks.linknet, segmentation_models_networks.STRIDE),
    "unet3d": Architecture(unet3d.unet3d, unet3d.STRIDE, (NO_ENCODER,), solid=True),
}
"""Those that the paper reviews (Luan et al. 2025, Table 1), two more, and one that sees the volume."""

NetworkChoice = str | custom_network.Body | Architecture
"""Which network: a key of `NETWORKS`, "module:function" or "file.py:function", a function (see
`custom_network.Body`), or an `Architecture` of one's own."""


def find_architecture(choice: NetworkChoice) -> Architecture:
    """The architecture that is meant.

    Raises:
        ValueError: There is none, or it cannot be imported.
    """
    if isinstance(choice, str):
        if choice in NETWORKS:
            return NETWORKS[choice]
        if ":" not in choice:
            raise ValueError(
                f"unknown network {choice!r}; there are: {', '.join(NETWORKS)}; your own is module:function"
            )
        choice = custom_network.import_network_function(choice)
    if isinstance(choice, Architecture):
        return choice
    if isinstance(choice, keras.Model) or not callable(choice):
        raise ValueError(f"{choice!r} is no function that builds a network from the number of classes")
    # Nobody knows whether it looks at the whole slice: it is never given a part.
    return Architecture(custom_network.checked_body(choice), custom_network.STRIDE, (NO_ENCODER,), whole=True)


def network_name(choice: NetworkChoice) -> str:
    """What a network is called in records, which never import it; of a file without its folder."""
    if isinstance(choice, Architecture):
        return next(
            (name for name, known in NETWORKS.items() if known is choice), custom_network.function_name(choice.body)
        )
    return (
        choice.replace("\\", "/").rpartition("/")[2]
        if isinstance(choice, str)
        else custom_network.function_name(choice)
    )


def is_custom_network(choice: NetworkChoice) -> bool:
    """Whether a network is a user's, whose function may change while its name stays."""
    return network_name(choice) not in NETWORKS


def build_network(choice: NetworkChoice, classes: int, context: int = 1, encoder: str | None = None) -> keras.Model:
    """A network with random weights that takes raw pixels of any size.

    Args:
        choice: Which.
        classes: Background included.
        context: Neighbours on each side of a slice, see `slice_network`.
        encoder: One of the architecture's; None is its first.

    Returns:
        See `slice_network` and `patch_network`.
    """
    architecture = find_architecture(choice)
    encoder = encoder or architecture.encoders[0]
    frame = patch_network if architecture.solid else slice_network
    return frame(architecture.body(classes, encoder), architecture.stride, encoder, context)


def slice_network(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
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
    pixels = slices
    if context != 1:
        pixels = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(pixels)
        pixels = keras.layers.Conv2D(
            3, 1, use_bias=False, kernel_initializer=MiddleSlices(), dtype="float32", name="mix_neighbours"
        )(pixels)
    return _answering(body, stride, slices, scale_for_encoder(ENCODERS.get(encoder, PixelScaling()))(pixels))


def patch_network(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
    """A network of patches of a volume; arguments as `slice_network`, the last two of no matter.

    Returns:
        `uint8 (batch, *patch) -> float32 (batch, *patch, classes)`, a softmax.
    """
    patches = keras.Input((None, None, None), dtype="uint8", name="patches")
    voxels = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="to_float")(patches)
    return _answering(body, stride, patches, voxels[..., None])


def _answering(body: keras.Model, stride: int, raw: keras.KerasTensor, pixels: keras.KerasTensor) -> keras.Model:
    padded = PadToStride(stride, dtype="float32", name="pad_to_stride")(pixels)
    scores = CropLike(dtype="float32", name="crop_like")([body(padded), raw])
    return keras.Model(raw, keras.layers.Softmax(dtype="float32", name="probabilities")(scores))
