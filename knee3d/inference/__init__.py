"""From trained networks to the segmentation of a knee: views, their ensemble, and the region of interest."""
