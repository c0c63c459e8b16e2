"""From slices to a SavedModel. TensorFlow and Keras live here and nowhere else."""
