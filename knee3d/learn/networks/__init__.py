"""One table of networks, one builder per architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from knee3d.learn.networks import deconvnet, deeplab, fcn, library, pspnet, segnet, unet3d
from knee3d.learn.networks.encoder import ENCODERS, NO_ENCODER
from knee3d.learn.networks.frames import around_patches, around_slices
from knee3d.learn.networks.vgg import CONVOLUTIONS


@dataclass(frozen=True)
class Architecture:
    """A way to build networks.

    Attributes:
        body: (classes, encoder) -> a model with random weights from float32 (batch, height, width, 3), as the encoder
            knows pixels, to scores (batch, height, width, classes). The encoder's layers have the names that Keras
            gives them.
        stride: Height and width come as multiples of it.
        encoders: What it may begin with, keys of `ENCODERS`; the first is the default.
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
    "unet": Architecture(library.unet, library.STRIDE),
    "fcn": Architecture(fcn.fcn8s, fcn.STRIDE, _VGG),
    "deconvnet": Architecture(deconvnet.deconvnet, deconvnet.STRIDE, _VGG),
    "deeplab": Architecture(deeplab.deeplab, deeplab.STRIDE, _VGG, whole=True),
    "segnet": Architecture(segnet.segnet, segnet.STRIDE, _VGG),
    "pspnet": Architecture(pspnet.pspnet, pspnet.STRIDE, whole=True),
    "fpn": Architecture(library.fpn, library.STRIDE),
    "linknet": Architecture(library.linknet, library.STRIDE),
    "unet3d": Architecture(unet3d.unet3d, unet3d.STRIDE, (NO_ENCODER,), solid=True),
}
"""Those that the paper reviews (Luan et al. 2025, Table 1), two more, and one that sees the volume."""


def network(name: str, classes: int, context: int = 1, encoder: str | None = None) -> keras.Model:
    """A network with random weights that takes raw pixels of any size.

    Args:
        name: Key of `NETWORKS`.
        classes: Background included.
        context: Neighbours on each side of a slice, see `around_slices`.
        encoder: One of the architecture's; None is its first.

    Returns:
        See `around_slices` and `around_patches`.
    """
    architecture = NETWORKS[name]
    encoder = encoder or architecture.encoders[0]
    frame = around_patches if architecture.solid else around_slices
    return frame(architecture.body(classes, encoder), architecture.stride, encoder, context)
