"""Networks that take raw slices or patches and give probabilities, and a layer that changes (image, mask) pairs.

`NETWORKS` in `architecture.py` is the table of all architectures.
"""

import knee3d.tensorflow_setup  # noqa: F401

from knee3d.networks.architecture import Architecture
from knee3d.networks.augmentation import Augmentation, AugmentationStrength
from knee3d.networks.network_functions import (
    deconvnet,
    deeplab,
    fcn,
    fpn,
    linknet,
    pspnet,
    segnet,
    unet,
    unet3d,
)

__all__ = [
    "Architecture",
    "Augmentation",
    "AugmentationStrength",
    "deconvnet",
    "deeplab",
    "fcn",
    "fpn",
    "linknet",
    "pspnet",
    "segnet",
    "unet",
    "unet3d",
]
