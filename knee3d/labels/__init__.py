"""Label schemes, names of label values, and the side of the body that a knee is on."""
