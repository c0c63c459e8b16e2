"""Files that hold images, masks, labels and probabilities: read and written."""
