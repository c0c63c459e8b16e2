"""From three opinions to one volume, and its scores. Numpy and scipy, no TensorFlow."""
