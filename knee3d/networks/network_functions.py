"""The networks as functions, for whoever trains with Keras: `knee3d.networks.unet(4)` and others.

Each gives a `keras.Model` that takes raw uint8 voxels: scaling them for the encoder, padding them to the network's
stride and the softmax are layers of the model.
"""

from pathlib import Path

import keras

from knee3d.networks.architecture import NETWORKS, build_network
from knee3d.networks.encoder import NO_ENCODER, find_encoder_weights, load_encoder


def unet(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a U-Net (Ronneberger et al. 2015) on an encoder; with VGG16 it is the network of Luan et al. 2025.

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, a key of `encoder.ENCODERS` such as "resnet34".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.unet(4)  # doctest: +SKIP
    """
    return _with_weights("unet", classes, context, encoder, weights)


def fcn(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build an FCN-8s (Long, Shelhamer and Darrell 2015).

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, "vgg16" or "vgg19".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.fcn(4)  # doctest: +SKIP
    """
    return _with_weights("fcn", classes, context, encoder, weights)


def deconvnet(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a DeconvNet (Noh, Hong and Han 2015).

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, "vgg16" or "vgg19".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.deconvnet(4)  # doctest: +SKIP
    """
    return _with_weights("deconvnet", classes, context, encoder, weights)


def deeplab(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a DeepLab v3+ (Chen et al. 2018); it must see whole slices.

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, "vgg16" or "vgg19".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.deeplab(4)  # doctest: +SKIP
    """
    return _with_weights("deeplab", classes, context, encoder, weights)


def segnet(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a SegNet (Badrinarayanan, Kendall and Cipolla 2017).

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, "vgg16" or "vgg19".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.segnet(4)  # doctest: +SKIP
    """
    return _with_weights("segnet", classes, context, encoder, weights)


def pspnet(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a PSPNet (Zhao et al. 2017); it must see whole slices.

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, a key of `encoder.ENCODERS` such as "resnet34".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.pspnet(4)  # doctest: +SKIP
    """
    return _with_weights("pspnet", classes, context, encoder, weights)


def fpn(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a feature pyramid network (Lin et al. 2017; Kirillov et al. 2019).

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, a key of `encoder.ENCODERS` such as "resnet34".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.fpn(4)  # doctest: +SKIP
    """
    return _with_weights("fpn", classes, context, encoder, weights)


def linknet(
    classes: int, *, context: int = 1, encoder: str = "vgg16", weights: str | Path | None = "imagenet"
) -> keras.Model:
    """Build a LinkNet (Chaurasia and Culurciello 2017).

    Args:
        classes: Number of classes, background included.
        context: Number of neighbouring slices on each side that are further channels; the default 1 gives 3 channels.
        encoder: Name of the encoder, a key of `encoder.ENCODERS` such as "resnet34".
        weights: First weights of the encoder: "imagenet" (downloaded by Keras once), a path to weights of this encoder
            as Keras saves them (.h5), or None or "none" for random ones.

    Returns:
        A model from uint8 slices between their neighbours, (batch, height, width, 2 * context + 1), of any height and
        width, to float32 probabilities, (batch, height, width, classes).

    Raises:
        ValueError: There is no such encoder, the weights are not those of it, or a number is out of range.
        EncoderWeightsError: The file of weights is missing, or the download failed.

    Example:
        >>> model = knee3d.networks.linknet(4)  # doctest: +SKIP
    """
    return _with_weights("linknet", classes, context, encoder, weights)


def unet3d(classes: int) -> keras.Model:
    """Build a 3D U-Net (Çiçek et al. 2016), of random weights; it has no encoder that was trained before.

    Args:
        classes: Number of classes, background included.

    Returns:
        A model from uint8 patches of a volume, (batch, inferior, posterior, left), of any size, to float32
        probabilities, (batch, inferior, posterior, left, classes).

    Raises:
        ValueError: The number of classes is below 2.

    Example:
        >>> model = knee3d.networks.unet3d(4)  # doctest: +SKIP
    """
    return _with_weights("unet3d", classes, 1, NO_ENCODER, None)


def _with_weights(name: str, classes: int, context: int, encoder: str, weights: str | Path | None) -> keras.Model:
    """A network of the table, its encoder holding its first weights."""
    if classes < 2 or context < 0:
        raise ValueError(f"classes must be at least 2 and context at least 0, got {classes} and {context}")
    encoders = NETWORKS[name].encoders
    if encoder not in encoders:
        raise ValueError(f"{name} takes no encoder {encoder!r}, only: {', '.join(encoders)}")
    found = find_encoder_weights("none" if weights is None else str(weights), encoder)
    model = build_network(name, classes, context, encoder)
    load_encoder(model, encoder, found)
    return model
