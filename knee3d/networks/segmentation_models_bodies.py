"""U-Net, LinkNet and FPN of `segmentation-models`, for slices of any size."""

from collections.abc import Callable

import keras
import segmentation_models

from knee3d.networks.layers import UpSample

STRIDE = 32


def unet_body(classes: int, encoder: str) -> keras.Model:
    """U-Net (Ronneberger et al. 2015) on an encoder: the paper's network. See `Architecture.body`."""
    return _built(segmentation_models.Unet, classes, encoder)


def linknet_body(classes: int, encoder: str) -> keras.Model:
    """LinkNet (Chaurasia and Culurciello 2017). See `Architecture.body`."""
    return _built(segmentation_models.Linknet, classes, encoder)


def fpn_body(classes: int, encoder: str) -> keras.Model:
    """Feature pyramid network (Lin et al. 2017; Kirillov et al. 2019). See `Architecture.body`."""
    return _built(segmentation_models.FPN, classes, encoder)


def _built(build: Callable[..., keras.Model], classes: int, encoder: str) -> keras.Model:
    """The network with `UpSample` for Keras' own layer."""
    model = build(encoder, input_shape=(None, None, 3), classes=classes, activation="linear", encoder_weights=None)
    copied = keras.models.clone_model(model, clone_function=_copy)
    copied.set_weights(model.get_weights())
    return copied


def _copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    if isinstance(layer, keras.layers.UpSampling2D):
        return UpSample(layer.size, layer.interpolation, name=layer.name)
    return layer.__class__.from_config(layer.get_config())
