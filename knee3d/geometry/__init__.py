"""Volumes with their place in the patient, planes, slices, orientation and resampling. Numpy and scipy only."""
