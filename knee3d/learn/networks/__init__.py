"""One builder per architecture, one table of names.

A builder takes (classes, context, encoder_weights) and returns a keras.Model from uint8 slices
(batch, height, width, 2 * context + 1) of any size to float32 probabilities (batch, height, width, classes).
"""

from collections.abc import Callable, Mapping

import keras

from knee3d.learn.networks.unet import vgg16_unet

NETWORKS: Mapping[str, Callable[[int, int, str | None], keras.Model]] = {"unet": vgg16_unet}
