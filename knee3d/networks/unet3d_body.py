"""3D U-Net (Çiçek et al. 2016, Figure 2): convolutions of volumes, channels doubled before each pooling."""

import keras

STRIDE = 8
FILTERS = (32, 64, 128, 256)
"""Of the first convolution at each resolution; the second has twice as many on the way down."""


def build_body(classes: int, encoder: str = "none", channels: int = 1) -> keras.Model:
    """See `Architecture.body`, with one more axis.

    Convolutions are padded by zeros, where the paper's shrink, so that scores come out for every voxel. Each patch is
    normalised by its own mean and variance, in training and after it: what the paper's batch normalisation comes to,
    whose batches are of one patch, and which it applies with these, not with running ones, at test time, too.

    Args:
        classes: Background included.
        encoder: It has none that was trained before.
        channels: Of the volume.
    """
    volume = features = keras.Input((None, None, None, channels), name="volume")
    skips = {}
    for level, width in enumerate(FILTERS, start=1):
        features = _rectified(features, width, f"down{level}_conv1")
        features = _rectified(features, 2 * width, f"down{level}_conv2")
        if level < len(FILTERS):
            skips[level] = features
            features = keras.layers.MaxPooling3D(2, name=f"down{level}_pool")(features)
    for level in reversed(skips):
        width = features.shape[-1]
        features = keras.layers.Conv3DTranspose(width, 2, 2, use_bias=False, name=f"up{level}")(features)
        features = keras.layers.Concatenate(name=f"up{level}_concat")([skips[level], features])
        for one in (1, 2):
            features = _rectified(features, 2 * FILTERS[level - 1], f"up{level}_conv{one}")
    return keras.Model(volume, keras.layers.Conv3D(classes, 1, name="scores")(features), name="unet3d")


def _rectified(features: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    features = keras.layers.Conv3D(width, 3, padding="same", name=name)(features)
    features = keras.layers.GroupNormalization(groups=-1, name=f"{name}_norm")(features)
    return keras.layers.ReLU(name=f"{name}_relu")(features)
