"""Import TensorFlow and Keras quietly, with the settings that knee3d needs.

Every package or module that uses Keras imports this module first. It takes seconds: import such packages late, inside
the function that needs them.
"""

import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress

from knee3d.models.devices import unused_gpu_warning

# segmentation_models 1.0.1 asks for this before its import; with its default it fails on Keras 3.
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")
VERBOSE = bool(os.environ.get("KNEE3D_VERBOSE"))
"""Whether TensorFlow's own lines are shown; the commands' --verbose sets it."""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if VERBOSE else "3")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the block writes to the process's stdout and stderr; shown after all if the block fails.

    TensorFlow's C++ greets with six lines about CPUs and missing GPUs before its log level counts, and
    segmentation_models prints which framework it took; in a notebook that goes another way than the process's stdout.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved, printed = [os.dup(stream) for stream in (1, 2)], io.StringIO()
    with tempfile.TemporaryFile() as held:
        try:
            for stream in (1, 2):
                os.dup2(held.fileno(), stream)
            with redirect_stdout(printed):
                yield
        except BaseException:
            held.seek(0)
            os.write(saved[1], printed.getvalue().encode() + held.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


with nullcontext() if VERBOSE else _quiet():
    import segmentation_models  # noqa: F401
    import tensorflow as tf

if not VERBOSE:
    tf.get_logger().setLevel("ERROR")

_gpus = tf.config.list_physical_devices("GPU")
if _told := unused_gpu_warning(len(_gpus)):
    logging.getLogger(__name__).warning(_told)

# On CPUs, operations that run at the same time share threads otherwise in every run, and sums differ in their last
# digit: two trainings with one seed drift apart. One at a time is as fast, as each uses all cores (D71).
if not _gpus and "TF_NUM_INTEROP_THREADS" not in os.environ:
    with suppress(RuntimeError):  # TensorFlow was at work before this import
        tf.config.threading.set_inter_op_parallelism_threads(1)
