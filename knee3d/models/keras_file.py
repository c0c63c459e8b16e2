"""Read model.keras, the network of a finished training."""

from pathlib import Path

import knee3d.tensorflow_setup  # noqa: F401

import keras

import knee3d.networks  # noqa: F401 its layers are registered with Keras


def load_keras_file(path: Path) -> keras.Model:
    """The network in a file. Layers that are neither Keras' nor knee3d's must have been registered with Keras before.

    Nothing is imported that a file names.

    Raises:
        ValueError: The file cannot be read, or holds layers that are not known.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except TypeError as error:
        if "Could not locate class" not in str(error):
            raise _unreadable(path, error) from error
        raise ValueError(
            f"{path} has layers of its own, which are not imported from a file; in Python, import the module that "
            "registers them with keras.saving.register_keras_serializable first"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return ValueError(f"{path} cannot be read ({first_line}); train this plane again")
