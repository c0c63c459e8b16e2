"""What the numbers of a mask mean: label schemes, label maps, and on which side of the body a knee is."""
