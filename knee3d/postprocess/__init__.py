"""Stack and blend the probabilities of views, decide labels, and score them. Numpy and scipy, no TensorFlow."""
