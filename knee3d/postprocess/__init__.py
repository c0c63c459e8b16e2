"""From the probabilities of several views to labels, and their scores. Numpy and scipy, no TensorFlow."""
