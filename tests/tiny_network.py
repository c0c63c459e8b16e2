"""A network of a thousand weights, trained in seconds: for tests of the way, not of what is learnt.

Importing this module lets `TrainConfig().with_options(network="tiny")` be known in the process, a program that a test
starts as well.
"""

import keras

from knee3d.networks.architecture import NETWORKS, Architecture
from knee3d.networks.layers import UpSample

TINY = "tiny"


def tiny(classes: int, encoder: str) -> keras.Model:
    """One step down and up, with batch normalisation; the first layer has the name of the encoder's first."""
    image = keras.Input((None, None, 3), name="image")
    fine = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="block1_conv1")(image)
    coarse = keras.layers.Conv2D(8, 3, padding="same", name="middle")(keras.layers.MaxPooling2D()(fine))
    coarse = keras.layers.ReLU()(keras.layers.BatchNormalization(name="middle_bn")(coarse))
    both = keras.layers.Concatenate()([fine, UpSample((2, 2), "nearest")(coarse)])
    return keras.Model(image, keras.layers.Conv2D(classes, 1, name="score")(both), name=TINY)


def alone(classes: int) -> keras.Model:
    """The same as a network of a user's own, `--network tiny_network:alone`."""
    return tiny(classes, "none")


NETWORKS[TINY] = Architecture(tiny, 2, ("vgg16",))  # type: ignore[index]
