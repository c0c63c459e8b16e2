"""knee3d: trustworthy knee cartilage measurement from MRI.

The plan of the house, one folder a room:

    anatomy      what a volume is: planes, orientation, slices, tissues           numpy
    dataset      from scanner to slices on disk, and made-up knees                pydicom, SimpleITK, OpenCV
    learn        from slices to a SavedModel                                      TensorFlow and Keras, nowhere else
    postprocess  from three opinions to one volume, and its scores                numpy, scipy
    quantify     from labels to millimetres                                       scipy, VTK
    report       from numbers to pictures and tables                              matplotlib, pyvista
    workflow     the journeys end to end: the only module that knows every room
    cli          the commands: each parses, calls one function of workflow, says what happened

`README.md` beside this file holds the types, the numbered decisions and their reasons.
"""

from knee3d.anatomy.orientation import Side
from knee3d.anatomy.plane import Plane
from knee3d.anatomy.tissue import SCHEMES, Scheme
from knee3d.anatomy.volume import Volume

__version__ = "0.1.0"
__all__ = ["SCHEMES", "Plane", "Scheme", "Side", "Volume", "__version__"]
