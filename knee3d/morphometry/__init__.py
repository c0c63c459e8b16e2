"""Measure labels in millimetres: volumes, thickness, subregions, meshes, repeatability and change."""
