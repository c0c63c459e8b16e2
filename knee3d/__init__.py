"""knee3d: trustworthy knee cartilage measurement from MRI.

The plan of the house, one folder a room:

    anatomy      what a volume is: planes, orientation, slices, tissues           numpy
    dataset      from scanner to slices on disk, and made-up knees                pydicom, SimpleITK, OpenCV
    learn        from slices to a SavedModel                                      TensorFlow and Keras, nowhere else
    postprocess  from three opinions to one volume, and its scores                numpy, scipy
    quantify     from labels to millimetres                                       scipy, VTK
    models       a models folder: which networks, their fusion
    launch       the same work on other machines                                  Ray, submitit
    report       from numbers to pictures and tables                              matplotlib, pyvista
    workflow     the journeys end to end: the only module that knows every room
    cli          the commands: each parses, calls one function of workflow, says what happened

`README.md` beside this file holds the types, the numbered decisions and their reasons.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d.geometry.orientation import Side
from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES, LabelScheme

__version__ = "0.1.0"
__all__ = ["SCHEMES", "Plane", "LabelScheme", "Side", "Volume", "__version__", "load", "read", "write"]

if TYPE_CHECKING:
    from knee3d.geometry.knee_image import KneeImage
    from knee3d.inference.segmenter import Segmenter


def load(models: Path | str, **how: Any) -> "Segmenter":
    """The networks of a models folder, ready to segment; see `inference.segmenter.load_segmenter`.

    knee3d.load("models").segment(volume) gives labels on the volume's own grid, volumes in mm3, and flags of quality.
    """
    from knee3d.inference import segmenter

    return segmenter.load_segmenter(models, **how)


def read(path: Path | str, **choice: Any) -> "KneeImage":
    """Read the image of a knee, with its side as far as DICOM tells it.

    Args:
        path: A folder of DICOM or a zip of it, or a NIfTI, NRRD, MHA, HDF5 or .npy file.
        choice: `series`, `echo`, `spacing_mm`, `axes` and others where the path alone does not say, see
            `io.image_source.ReadOptions`.
    """
    from knee3d.io.image_source import ReadOptions, read_image

    return read_image(Path(path), ReadOptions(**choice))


def write(volume: Volume, path: Path | str) -> None:
    """Save a volume, labels or any other, with its place in the patient.

    Args:
        volume: Three axes.
        path: Ending in .nii, .nii.gz, .nrrd or .mha; the file appears whole or not at all.

    Raises:
        ValueError: The ending is another one, or the form cannot hold the volume.
    """
    from knee3d.io.volume_file import write_volume

    write_volume(volume, Path(path))
