"""PSPNet (Zhao et al. 2017, Figure 3) as `segmentation-models` builds it, for slices of any size.

The library's own is made for one size of slices; weight for weight it is this one (`tests/networks/test_networks.py`).
"""

import keras

from knee3d.networks.encoder import encoder_features, encoder_model
from knee3d.networks.layers import PoolToGrid, ResizeLike, UpSample
from knee3d.networks.vgg_blocks import convolution_relu

FEATURE_STRIDE = 8
LEVELS = (1, 2, 3, 6)
"""Cells of the pyramid's grids along each side."""
STRIDE = FEATURE_STRIDE * max(LEVELS)
WIDTH = 512


def build_body(classes: int, encoder: str) -> keras.Model:
    """See `Architecture.body`.

    The encoder ends at stride 8, where the paper's goes on with dilated convolutions.
    """
    whole = encoder_model(encoder)
    seen = encoder_features(whole, encoder, FEATURE_STRIDE)
    levels = [_context(seen, cells) for cells in LEVELS]
    pyramid = keras.layers.Concatenate(name="psp_concat")([seen, *levels])
    scores = keras.layers.Conv2D(classes, 3, padding="same", name="final_conv")(
        convolution_relu(pyramid, WIDTH, 1, "aggregation")
    )
    scores = UpSample((FEATURE_STRIDE, FEATURE_STRIDE), name="final_upsampling")(scores)
    return keras.Model(whole.input, scores, name="pspnet")


def _context(seen: keras.KerasTensor, cells: int) -> keras.KerasTensor:
    """What lies in each cell of a grid over the whole slice."""
    pooled = PoolToGrid(cells, name=f"psp_level{cells}_pooling")(seen)
    return ResizeLike(name=f"psp_level{cells}_upsampling")(
        [convolution_relu(pooled, WIDTH, 1, f"psp_level{cells}"), seen]
    )
