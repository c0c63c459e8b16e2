"""knee3d: trustworthy knee cartilage measurement from MRI.

    import knee3d

    data = knee3d.prepare("knees.csv", "data/oai", scheme="compartments")
    model = knee3d.train(data, "models", epochs=100, resume=True)
    model.fit_fusion(data.val)
    print(model.evaluate(data.test))

    image = knee3d.read("path/to/dicom")
    result = model.segment(image)
    result.measure().to_frame()
    result.save("out/labels.nii.gz")
    result.make_report("out/report.html")

`knee3d.networks`, `knee3d.losses` and `knee3d.metrics` are parts for Keras users. Names are imported at their first
use, so `import knee3d` imports neither TensorFlow nor VTK.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from knee3d import losses as losses
    from knee3d import metrics as metrics
    from knee3d import networks as networks
    from knee3d.api.batch_segmentation import segment
    from knee3d.api.data import make_phantom, prepare
    from knee3d.api.dataset import Dataset
    from knee3d.api.image_files import read, write
    from knee3d.api.knee_model import KneeModel
    from knee3d.api.measurements import measure
    from knee3d.api.repeated_measures import compare, repeatability
    from knee3d.api.reports import make_reports
    from knee3d.api.segment_config import SegmentConfig
    from knee3d.api.segmentation import Segmentation
    from knee3d.api.training import train
    from knee3d.geometry.knee_image import KneeImage
    from knee3d.geometry.orientation import Side
    from knee3d.geometry.plane import Plane
    from knee3d.geometry.volume import Volume
    from knee3d.labels.label_scheme import LabelScheme
    from knee3d.training.config import TrainConfig

_HOME = {
    "Dataset": "api.dataset",
    "KneeImage": "geometry.knee_image",
    "KneeModel": "api.knee_model",
    "LabelScheme": "labels.label_scheme",
    "Plane": "geometry.plane",
    "SegmentConfig": "api.segment_config",
    "Segmentation": "api.segmentation",
    "Side": "geometry.orientation",
    "TrainConfig": "training.config",
    "Volume": "geometry.volume",
    "compare": "api.repeated_measures",
    "make_phantom": "api.data",
    "make_reports": "api.reports",
    "measure": "api.measurements",
    "prepare": "api.data",
    "read": "api.image_files",
    "repeatability": "api.repeated_measures",
    "segment": "api.batch_segmentation",
    "train": "api.training",
    "write": "api.image_files",
}
"""Public name to the module that defines it."""
_SUBPACKAGES = ("losses", "metrics", "networks")

__all__ = [
    "Dataset",
    "KneeImage",
    "KneeModel",
    "LabelScheme",
    "Plane",
    "SegmentConfig",
    "Segmentation",
    "Side",
    "TrainConfig",
    "Volume",
    "compare",
    "make_phantom",
    "make_reports",
    "measure",
    "prepare",
    "read",
    "repeatability",
    "segment",
    "train",
    "write",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name in _SUBPACKAGES:
        return import_module(f"knee3d.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'knee3d' has no attribute {name!r}")
    value = getattr(import_module(f"knee3d.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted({*__all__, *_SUBPACKAGES, *(name for name in globals() if name.startswith("__"))})
