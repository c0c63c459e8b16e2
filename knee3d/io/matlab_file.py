"""Read the structures of a MATLAB file in a process of its own, because SciPy's reader can crash.

Run as a program it reads FILE and writes JSON.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat

TIMEOUT_S = 120.0
_MEMORY_BYTES = 2 << 30


class MatlabFileError(ValueError):
    """A file that cannot be read; the text names it and the way out."""


def read_matlab_structures(path: Path, key: str) -> list[dict[str, list]]:
    """The array of structures under a key.

    Args:
        path: MATLAB file of version 4 to 7.2.
        key: Name of the variable.

    Returns:
        For each structure, by field, the arrays in its cell as nested lists; one array if it is no cell. Empty if there
        is no such variable or it holds no structures.

    Raises:
        MatlabFileError: The file cannot be read.
    """
    # -P: the folder of the program must not hide other packages behind the names of this room's modules.
    command = [sys.executable, "-P", __file__, str(path.resolve()), key]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MatlabFileError(f"cannot read {path.name}: {error}") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines() or [f"its reader died ({ended.returncode})"]
        raise MatlabFileError(f"cannot read {path.name}: {said[-1]}; fetch it again")
    return json.loads(ended.stdout)


def _structures(path: str, key: str) -> list[dict[str, list]]:
    found = np.ravel(loadmat(path, struct_as_record=False, variable_names=[key]).get(key, np.empty(0, object)))
    names = [getattr(entry, "_fieldnames", ()) for entry in found]
    return [
        {name: _arrays(getattr(entry, name)) for name in fields} for entry, fields in zip(found, names, strict=True)
    ]


def _arrays(value: object) -> list:
    cells = np.ravel(value) if isinstance(value, np.ndarray) and value.dtype == object else [value]
    return [np.asarray(cell).tolist() for cell in cells]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        sys.stdout.write(json.dumps(_structures(*sys.argv[1:])))
    except Exception as problem:  # SciPy raises nearly anything on bad bytes
        sys.exit(f"{type(problem).__name__}: {problem}")
