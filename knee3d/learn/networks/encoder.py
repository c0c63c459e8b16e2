"""Where the encoder's first weights come from."""

import os
import re
from pathlib import Path

import keras

_LAYER = re.compile(r"\bblock\d_conv\d\b")
VARIABLE = "KNEE3D_ENCODER_WEIGHTS"


class EncoderWeightsError(OSError):
    """The weights asked for cannot be had; the message says how to go on."""


def find_encoder_weights(choice: str) -> str | None:
    """Make sure that the encoder weights are on this machine.

    Args:
        choice: "imagenet", "none" or a path. "imagenet" takes the file that the environment variable
            KNEE3D_ENCODER_WEIGHTS names, if set, and else Keras' download, which is kept in ~/.keras.

    Returns:
        What `segmentation_models` takes: a path, "imagenet", or None for random weights.

    Raises:
        EncoderWeightsError: The file is missing, or the download failed.
    """
    if choice == "none":
        return None
    named = os.environ.get(VARIABLE, "") if choice == "imagenet" else choice
    if named:
        if not Path(named).is_file():
            raise EncoderWeightsError(f"encoder weights {named} do not exist; give a file, imagenet or none")
        return named
    try:
        keras.applications.VGG16(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
    except Exception as error:  # Keras raises bare Exception when a download fails
        raise EncoderWeightsError(
            "the ImageNet weights cannot be downloaded (offline?); go on with --encoder-weights FILE "
            f"(Keras' vgg16 notop .h5, or {VARIABLE}=FILE) or --encoder-weights none"
        ) from error
    return "imagenet"


def without_encoder(model: keras.Model) -> list[keras.Variable]:
    """The trainable variables that did not come with the encoder's first weights."""
    return [variable for variable in model.trainable_variables if not _LAYER.search(variable.path)]
