"""Train networks: from PNG slices through `tf.data` and Keras' `fit` to a folder with a SavedModel.

Modules that need Keras import `knee3d.tensorflow_setup` first; `config` needs no framework.
"""
