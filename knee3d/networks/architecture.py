"""One table of architectures, one module with a body for each, and the layers that all networks have around it.

With these, a network takes raw pixels of any size and answers with as many probabilities.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import knee3d.tensorflow_setup  # noqa: F401

import keras

from knee3d.networks import (
    custom_network,
    deconvnet_body,
    deeplab_body,
    fcn_body,
    pspnet_body,
    segmentation_models_bodies,
    segnet_body,
    unet3d_body,
)
from knee3d.networks.encoder import ENCODERS, NO_ENCODER, PixelScaling, scale_for_encoder
from knee3d.networks.layers import CropLike, MiddleSlices, PadToStride
from knee3d.networks.vgg_blocks import CONVOLUTIONS


@dataclass(frozen=True)
class Architecture:
    """How to build the body of a network, and what the body needs around it.

    Attributes:
        body: Function of the number of classes and the name of the encoder. It returns a model with random weights from
            float32 pixels as the encoder expects them, (batch, height, width, 3), to scores before the softmax,
            (batch, height, width, classes). The encoder's layers have the names that Keras gives them.
        stride: Number of pixels; slices are padded until their height and width are multiples of it.
        encoders: Names of the encoders that the body can have, keys of `encoder.ENCODERS`; the first is the default.
            With `NO_ENCODER` the body gets pixels of 0 to 255.
        whole_slices_only: Whether the body averages over the whole slice, so that its answer for a cut-out part would
            be another one. The default is False.
        solid: Whether the body takes patches of a volume, (batch, inferior, posterior, left, 1), instead of slices. The
            default is False.

    Example:
        >>> mine = Architecture(my_body, stride=16, encoders=("vgg16",))  # doctest: +SKIP
        >>> TrainConfig(network=mine)  # doctest: +SKIP
    """

    body: Callable[[int, str], keras.Model]
    stride: int
    encoders: tuple[str, ...] = tuple(ENCODERS)
    whole_slices_only: bool = False
    solid: bool = False


_VGG = tuple(CONVOLUTIONS)

NETWORKS: Mapping[str, Architecture] = {
    "unet": Architecture(segmentation_models_bodies.unet_body, segmentation_models_bodies.STRIDE),
    "fcn": Architecture(fcn_body.build_body, fcn_body.STRIDE, _VGG),
    "deconvnet": Architecture(deconvnet_body.build_body, deconvnet_body.STRIDE, _VGG),
    "deeplab": Architecture(deeplab_body.build_body, deeplab_body.STRIDE, _VGG, whole_slices_only=True),
    "segnet": Architecture(segnet_body.build_body, segnet_body.STRIDE, _VGG),
    "pspnet": Architecture(pspnet_body.build_body, pspnet_body.STRIDE, whole_slices_only=True),
    "fpn": Architecture(segmentation_models_bodies.fpn_body, segmentation_models_bodies.STRIDE),
    "linknet": Architecture(segmentation_models_bodies.linknet_body, segmentation_models_bodies.STRIDE),
    "unet3d": Architecture(unet3d_body.build_body, unet3d_body.STRIDE, (NO_ENCODER,), solid=True),
}
"""The architectures that the paper reviews (Luan et al. 2025, Table 1), two more, and one of volumes, by name."""

NetworkChoice = str | custom_network.Body | Architecture
"""Which network: a key of `NETWORKS`, "module:function" or "file.py:function", a function (see
`custom_network.Body`), or an `Architecture` of one's own."""


def find_architecture(choice: NetworkChoice) -> Architecture:
    """Find the architecture of a network.

    Args:
        choice: The network in any of the forms of `NetworkChoice`.

    Returns:
        The architecture; a function of a user's own gets one without an encoder, for whole slices only.

    Raises:
        ValueError: There is no such network, or it cannot be imported.
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
    return Architecture(
        custom_network.checked_body(choice), custom_network.STRIDE, (NO_ENCODER,), whole_slices_only=True
    )


def network_name(choice: NetworkChoice) -> str:
    """Give the name of a network in records, which never import it; a file is named without its folder."""
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
    """Build a network with random weights that takes raw pixels of any size.

    Args:
        choice: The network in any of the forms of `NetworkChoice`.
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side, see `slice_network`; the default is 1.
        encoder: Name of one of the architecture's encoders; None is its first.

    Returns:
        A model as `slice_network` or, for patches of a volume, `volume_patch_network` returns it.

    Raises:
        ValueError: There is no such network, or it cannot be imported or built.
    """
    architecture = find_architecture(choice)
    encoder = encoder or architecture.encoders[0]
    frame = volume_patch_network if architecture.solid else slice_network
    return frame(architecture.body(classes, encoder), architecture.stride, encoder, context)


def slice_network(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
    """Put the layers around a body that make it a network of slices between their neighbours.

    Args:
        body: Model as `Architecture.body` returns it.
        stride: Number of pixels of which height and width are multiples inside the body.
        encoder: Name of the encoder, which says how pixels are scaled.
        context: Number of neighbouring slices on each side. With 1 the three channels go to the encoder directly, as in
            Luan et al. 2025. With others they go through a learned 1 x 1 convolution first, which at the beginning
            passes the slice and its next neighbours on.

    Returns:
        A model from uint8 slices, (batch, height, width, 2 * context + 1), to float32 probabilities, (batch, height,
        width, classes).
    """
    slices = keras.Input((None, None, 2 * context + 1), dtype="uint8", name="slices")
    pixels = slices
    if context != 1:
        pixels = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(pixels)
        pixels = keras.layers.Conv2D(
            3, 1, use_bias=False, kernel_initializer=MiddleSlices(), dtype="float32", name="mix_neighbours"
        )(pixels)
    return _answering(body, stride, slices, scale_for_encoder(ENCODERS.get(encoder, PixelScaling()))(pixels))


def volume_patch_network(body: keras.Model, stride: int, encoder: str, context: int) -> keras.Model:
    """Put the layers around a body that make it a network of patches of a volume.

    Args:
        body: Model as `Architecture.body` returns it, from (batch, inferior, posterior, left, 1).
        stride: Number of voxels of which each side is a multiple inside the body.
        encoder: Not used; it is here as `slice_network` has it.
        context: Not used; it is here as `slice_network` has it.

    Returns:
        A model from uint8 patches, (batch, inferior, posterior, left), to float32 probabilities, (batch, inferior,
        posterior, left, classes).
    """
    patches = keras.Input((None, None, None), dtype="uint8", name="patches")
    voxels = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="to_float")(patches)
    return _answering(body, stride, patches, voxels[..., None])


def _answering(body: keras.Model, stride: int, raw: keras.KerasTensor, pixels: keras.KerasTensor) -> keras.Model:
    padded = PadToStride(stride, dtype="float32", name="pad_to_stride")(pixels)
    scores = CropLike(dtype="float32", name="crop_like")([body(padded), raw])
    return keras.Model(raw, keras.layers.Softmax(dtype="float32", name="probabilities")(scores))
