"""Networks of few channels and layers, for tests in which only the way matters, not what is learnt.

Both functions are given what sets an attribute: `monkeypatch.setattr`, or `setattr` in a process of its own.
"""

from collections.abc import Callable

SetAttribute = Callable[[object, str, object], None]


def narrow(set_attribute: SetAttribute) -> None:
    """Two networks have a layer of a hundred million weights, which is no matter of how they are trained."""
    from knee3d.learn.networks import deconvnet, fcn

    for module in (fcn, deconvnet):
        set_attribute(module, "UNITS", 16)


def slim(set_attribute: SetAttribute) -> None:
    """All networks that are built here, which those of `segmentation-models` are not; most blocks are one layer."""
    from knee3d.learn.networks import deconvnet, segnet, unet3d, vgg

    narrow(set_attribute)
    for module in (vgg, deconvnet, segnet):
        set_attribute(module, "FILTERS", (4, 4, 8, 8, 8))
        set_attribute(module, "CONVOLUTIONS", {"vgg16": (1, 1, 2, 1, 1)})
    set_attribute(unet3d, "FILTERS", (2, 2, 4, 4))
