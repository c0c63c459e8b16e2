"""Compute float32 exactly, without the TF32 of newer NVIDIA GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import knee3d.tensorflow_setup  # noqa: F401

import tensorflow as tf


@contextmanager
def exact_float32(wanted: bool = True) -> Iterator[None]:
    """Keep TF32 off within the block; what was set before comes back after it.

    Args:
        wanted: Whether to; False leaves all as it is.
    """
    settings = tf.config.experimental
    before = settings.tensor_float_32_execution_enabled()
    if wanted:
        settings.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        if wanted:
            settings.enable_tensor_float_32_execution(before)
