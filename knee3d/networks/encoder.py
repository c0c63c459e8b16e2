"""Encoders of `segmentation-models`: their pixel scaling and their first weights."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf
from segmentation_models.backbones.backbones_factory import Backbones

VARIABLE = "KNEE3D_ENCODER_WEIGHTS"
NO_ENCODER = "none"
"""Of networks that have none that was trained before."""


class EncoderWeightsError(OSError):
    """The weights asked for cannot be had; the message says how to go on."""


@dataclass(frozen=True)
class PixelScaling:
    """What an encoder's ImageNet weights expect instead of pixels of 0 to 255.

    Attributes:
        means: Taken away from each of the three channels,
        deviations: which are then divided by these.
    """

    means: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviations: tuple[float, float, float] = (1.0, 1.0, 1.0)


# Blue, green, red for VGG; red, green, blue for EfficientNet. A slice and its neighbours have no colours.
_VGG = PixelScaling((103.939, 116.779, 123.68))
_RESNET = PixelScaling()
_MOBILENET = PixelScaling((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
_EFFICIENTNET = PixelScaling((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

ENCODERS: Mapping[str, PixelScaling] = {
    "vgg16": _VGG,
    "vgg19": _VGG,
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "mobilenetv2": _MOBILENET,
    "efficientnetb0": _EFFICIENTNET,
    "efficientnetb1": _EFFICIENTNET,
    "efficientnetb2": _EFFICIENTNET,
    "efficientnetb3": _EFFICIENTNET,
    "efficientnetb4": _EFFICIENTNET,
}
"""Those that train, save and export under Keras 3. DenseNet and SE-ResNet do not, and Inception names its layers by
chance."""


def scale_for_encoder(expected: PixelScaling) -> keras.layers.Layer:
    """Three grey channels of 0 to 255, of any dtype -> float32, as an encoder knows pixels."""
    scale = [1 / deviation for deviation in expected.deviations]
    offset = [-mean / deviation for mean, deviation in zip(expected.means, expected.deviations, strict=True)]
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="to_encoder")


def encoder_model(encoder: str, weights: str | None = None) -> keras.Model:
    """An encoder as `segmentation-models` has it, without its top.

    Args:
        encoder: Key of `ENCODERS`.
        weights: "imagenet", a path to weights of this encoder as Keras saves them (.h5), or None for random ones.

    Returns:
        float32 (batch, height, width, 3), see `PixelScaling` -> its last features.

    Raises:
        OSError, ValueError, KeyError: The weights are not those of this encoder.
    """
    submodules = {name: getattr(tf.keras, name) for name in ("backend", "layers", "models", "utils")}
    named = None if weights == "imagenet" else weights
    first = weights if named is None else None
    model = Backbones.get_backbone(encoder, input_shape=(None, None, 3), weights=first, include_top=False, **submodules)
    if named is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras leaves out what does not fit, and only warns
            try:
                model.load_weights(named)
            except UserWarning as error:
                raise ValueError(str(error)) from error
    return model


def encoder_features(model: keras.Model, encoder: str, stride: int) -> keras.KerasTensor:
    """The last features of a `encoder_model` at 16, 8, 4 or 2 pixels, where skip connections begin."""
    layers = Backbones.get_feature_layers(encoder, n=4)
    return model.get_layer(layers[(16, 8, 4, 2).index(stride)]).output


def find_encoder_weights(choice: str, encoder: str = "vgg16") -> str | None:
    """Make sure that the encoder weights are on this machine.

    Args:
        choice: "imagenet", "none" or a path. "imagenet" takes the file that the environment variable
            KNEE3D_ENCODER_WEIGHTS names, if set, and else Keras' download, which is kept in ~/.keras.
        encoder: Key of `ENCODERS`, or `NO_ENCODER`.

    Returns:
        What `encoder_model` takes: a path, "imagenet", or None for random weights.

    Raises:
        EncoderWeightsError: The file is missing, or the download failed.
    """
    if choice == "none" or encoder == NO_ENCODER:
        return None
    named = os.environ.get(VARIABLE, "") if choice == "imagenet" else choice
    if named:
        if not Path(named).is_file():
            raise EncoderWeightsError(f"encoder weights {named} do not exist; give a file, imagenet or none")
        return named
    try:
        encoder_model(encoder, "imagenet")
    except Exception as error:  # Keras raises bare Exception when a download fails
        raise EncoderWeightsError(
            "the ImageNet weights cannot be downloaded (offline?); go on with --encoder-weights FILE "
            f"(Keras' {encoder} notop .h5, or {VARIABLE}=FILE) or --encoder-weights none"
        ) from error
    return "imagenet"


def load_encoder(model: keras.Model, encoder: str, weights: str | None) -> None:
    """Give the layers of a network that are called as the encoder's the encoder's first weights.

    Args:
        model: Any network of `networks`.
        encoder: Key of `ENCODERS`.
        weights: See `encoder_model`; None leaves all as it is.

    Raises:
        ValueError: The weights are not those of this encoder.
    """
    if weights is None:
        return
    mine = {layer.name: layer for layer in model._flatten_layers()}
    try:
        for layer in encoder_model(encoder, weights).layers:
            if layer.weights and layer.name in mine:
                mine[layer.name].set_weights(layer.get_weights())
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"encoder weights {weights} do not fit {encoder}: {error}") from error


def set_encoder_trainable(model: keras.Model, encoder: str, learn: bool) -> bool:
    """Let the layers called as the encoder's learn, or stay as they are; returns whether that was a change."""
    layers = [] if encoder == NO_ENCODER else encoder_model(encoder).layers
    names = {layer.name for layer in layers if layer.weights}
    changed = [layer for layer in model._flatten_layers() if layer.name in names and layer.trainable != learn]
    for layer in changed:
        layer.trainable = learn
    return bool(changed)
