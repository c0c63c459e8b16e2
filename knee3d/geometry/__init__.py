"""What a volume is: voxels with a place in the patient, planes, slices, sides and tissues. Numpy only."""
