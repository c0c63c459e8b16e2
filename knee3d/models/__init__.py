"""A models folder: one network per view of a knee, and the weights of their fusion.

MODELS/<plane>/         see `learn.savedmodel`
MODELS/volume/          the same, of a network that sees patches of the volume
MODELS/oblique/         the same, of a network that was trained on oblique slices of several directions
MODELS/fold-1-of-5/     networks of a cross-validation, where MODELS has none of its own: together they are an ensemble
MODELS/fusion.json      weights keyed by view, and what they were fitted on
MODELS/fusion-oblique-6.json    the same, with six oblique views besides
"""

from knee3d.models.folder import (
    all_trained,
    is_trained,
    mark,
    missing_folds,
    network_folders,
    scheme_of,
    trained_networks,
    trained_views,
)
from knee3d.models.fusion import fusion_file, fusion_files, load_fusion, save_fusion
from knee3d.models.trained import Trained, check_match, check_not_tested, fusion_mark, load_models

__all__ = [
    "Trained",
    "all_trained",
    "check_match",
    "check_not_tested",
    "missing_folds",
    "fusion_file",
    "fusion_files",
    "fusion_mark",
    "network_folders",
    "is_trained",
    "load_fusion",
    "load_models",
    "mark",
    "save_fusion",
    "scheme_of",
    "trained_networks",
    "trained_views",
]
