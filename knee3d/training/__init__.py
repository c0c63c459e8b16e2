"""Train networks: from PNG slices through `tf.data` and Keras' `fit` to a folder with a SavedModel."""

import knee3d.tensorflow_setup  # noqa: F401
