"""The models folder: the network of each view, its model card, and the fusion weights.

MODELS/<plane>/         see `models.saved_model`
MODELS/volume/          the same, of a network that sees patches of the volume
MODELS/oblique/         the same, of a network that was trained on oblique slices of several directions
MODELS/fold-1-of-5/     networks of a cross-validation, where MODELS has none of its own: together they are an ensemble
MODELS/fusion.json      weights keyed by view, and what they were fitted on
MODELS/fusion-oblique-6.json    the same, with six oblique views besides
"""
