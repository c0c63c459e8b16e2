"""What a volume is: voxels with a place in the patient, planes, slices and sides. Numpy and scipy only."""
