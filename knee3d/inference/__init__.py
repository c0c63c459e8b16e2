"""Predict a knee with trained networks: views, their ensemble, and the region of interest."""
