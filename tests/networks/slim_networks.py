"""Networks of few channels and layers, for tests in which only the way matters, not what is learnt.

Each function is given what sets an attribute: `monkeypatch.setattr`, or `setattr` in a process of its own.
"""

from collections.abc import Callable

SetAttribute = Callable[[object, str, object], None]


def narrow(set_attribute: SetAttribute) -> None:
    """Two networks have a layer of a hundred million weights, which is no matter of how they are trained."""
    from knee3d.networks import deconvnet_body, fcn_body

    for module in (fcn_body, deconvnet_body):
        set_attribute(module, "UNITS", 16)


def slim(set_attribute: SetAttribute) -> None:
    """All networks that are built here, which those of `segmentation-models` are not; most blocks are one layer."""
    from knee3d.networks import deconvnet_body, segnet_body, unet3d_body, vgg_blocks

    narrow(set_attribute)
    for module in (vgg_blocks, deconvnet_body, segnet_body):
        set_attribute(module, "FILTERS", (4, 4, 8, 8, 8))
        set_attribute(module, "CONVOLUTIONS", {"vgg16": (1, 1, 2, 1, 1)})
    set_attribute(unet3d_body, "FILTERS", (2, 2, 4, 4))


def slim_library(set_attribute: SetAttribute) -> None:
    """Those of `segmentation-models`, of which U-Net has as many channels as ever in its decoder."""
    import keras
    from segmentation_models.backbones.backbones_factory import Backbones

    def vgg16(**options: object) -> keras.Model:
        image = pixels = keras.Input(options["input_shape"])
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            for one in range(1, count + 1):
                name = f"block{block}_conv{one}"
                pixels = keras.layers.Conv2D(4 * block, 3, padding="same", activation="relu", name=name)(pixels)
            pixels = keras.layers.MaxPooling2D(name=f"block{block}_pool")(pixels)
        return keras.Model(image, pixels, name="vgg16")

    _, preprocess = Backbones.models["vgg16"]
    set_attribute(type(Backbones), "models", Backbones.models | {"vgg16": [vgg16, preprocess]})
