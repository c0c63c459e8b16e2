"""Label schemes, label maps, and the side of the body that a knee is on."""
