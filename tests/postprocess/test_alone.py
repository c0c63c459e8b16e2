"""Post-processing needs numpy and scipy, and no network: for whoever has probabilities from elsewhere."""

import subprocess
import sys
from importlib.metadata import packages_distributions

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

OTHERS = set(packages_distributions()) - {"numpy", "scipy", "knee3d"}

class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OTHERS:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Wall())

import numpy as np
from knee3d.geometry.plane import Plane
from knee3d.geometry.slicing import to_slices
from knee3d.geometry.volume import Volume
from knee3d.postprocess.blend import blend
from knee3d.postprocess.candidate_voxels import find_candidates
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix
from knee3d.postprocess.decision import decide_labels, fused_labels
from knee3d.inference.ensemble import Ensemble
from knee3d.postprocess.assessment import bootstrap_interval
from knee3d.postprocess.quality import predictive_entropy
from knee3d.postprocess.stack import stack_slices
from knee3d.postprocess.fusion_fit import FusionConfig, fit_fusion

affine = np.array([[0, 0, -0.7, 0], [0, -0.4, 0, 0], [-0.4, 0, 0, 0], [0, 0, 0, 1.0]])
rng = np.random.default_rng(0)
truth = Volume((np.indices((8, 9, 10)).sum(axis=0) > 13).astype(np.uint8), affine)
right = np.eye(2, dtype=np.float32)[truth.array]
views = {}
for plane in Plane:
    said = Volume((0.6 * right + 0.4 * rng.dirichlet([1, 1], truth.shape)).astype(np.float32), affine)
    slices = to_slices(said, plane)
    views[plane.value] = stack_slices([(range(len(slices)), slices)], plane, len(slices), affine)
path = Path(sys.argv[1], "a.npz")
find_candidates(truth, views, "a").save(path)
fusion = fit_fusion([path], FusionConfig())
labels = fused_labels(views, fusion.weights)
assert (labels.array == decide_labels(blend(views.items(), fusion.weights)).array).all()
print(OverlapScores(confusion_matrix(truth.array, labels.array, 2), ("cartilage",)).dice[0], fusion.dice)
print(predictive_entropy(views["axial"].array).mean(), bootstrap_interval([1, 2], ["a", "b"]).mean)
"""


def test_numpy_and_scipy_are_enough(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tensorflow" in packages_distributions()  # or there was no wall
    reached, promised = map(float, done.stdout.split()[:2])
    assert reached == promised
    assert reached > 0.9
