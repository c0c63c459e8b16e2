"""Read and write files of images, masks, labels and probabilities."""
