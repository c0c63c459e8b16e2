"""Draw the tissues in 3D."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.morphometry.mesh import mask_surface

BACKGROUND = (13, 15, 20)
# From the scene to the camera in RAS: in front, from the lateral side of a right knee, a little above.
VIEWPOINT = (0.75, 1.0, 0.3)
TIMEOUT_S = 120
# Smoother than a mesh to measure: some percent of a thin sheet's volume go with the steps. This one is looked at.
SMOOTHING, PASS_BAND = 60, 0.01
_PROGRAM = Path(__file__).with_name("offscreen.py")


class RenderingError(RuntimeError):
    """No 3D picture can be drawn on this machine."""


def render_labels(labels: Volume, scheme: LabelScheme, size: tuple[int, int]) -> np.ndarray:
    """Smoothed surfaces of the tissues in the scheme's colours, seen from the front, lateral and a little above.

    Drawn by VTK off screen in a process of its own, which finds X, EGL or OSMesa by itself: without any of them VTK
    takes its process down. Its warnings stay in that process.

    Args:
        labels: Integers in 0 to `scheme.classes` - 1, a right knee or one mirrored to right, any axis order.
        scheme: Colours of the tissues.
        size: Width and height of the picture in pixels.

    Returns:
        (height, width, 3) uint8; nothing but `BACKGROUND` when there is no tissue.

    Raises:
        RenderingError: VTK found no way to draw here.
    """
    present = [number for number in range(1, scheme.classes) if (labels.array == number).any()]
    if not present:
        return np.full((size[1], size[0], 3), BACKGROUND, dtype=np.uint8)
    scene: dict[str, np.ndarray] = {
        "size": np.array(size),
        "background": np.array(BACKGROUND, dtype=np.uint8),
        "direction": np.array(VIEWPOINT),
        "colours": np.array([scheme.tissues[number - 1].colour for number in present], dtype=np.uint8),
    }
    for i, number in enumerate(present):
        mesh = mask_surface(labels.with_array(labels.array == number), smoothing=SMOOTHING, pass_band=PASS_BAND)
        scene[f"points_{i}"] = np.asarray(mesh.points)
        scene[f"corners_{i}"] = mesh.regular_faces
    return _draw(scene)


def _draw(scene: dict[str, np.ndarray]) -> np.ndarray:
    with tempfile.TemporaryDirectory(prefix="knee3d-") as folder:
        scene_path, picture_path = Path(folder, "scene.npz"), Path(folder, "picture.npy")
        np.savez(scene_path, **scene)  # type: ignore[arg-type]
        # -P: the folder of the program must not hide other packages behind the names of this room's modules.
        command = [sys.executable, "-P", str(_PROGRAM), str(scene_path), str(picture_path)]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, cwd=folder, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RenderingError(f"no 3D rendering on this machine: {error}") from error
        if ended.returncode != 0 or not picture_path.exists():
            raise RenderingError(
                f"no 3D rendering on this machine: VTK ended with code {ended.returncode}, saying "
                f"{_last_words(ended.stderr)!r}; it needs X, EGL (libegl1) or OSMesa (libosmesa6)"
            )
        return np.load(picture_path)


def _last_words(stderr: bytes) -> str:
    """The last line without VTK's colour codes, time and place."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stderr.decode(errors="replace")).strip().splitlines()
    return lines[-1].split("| ")[-1] if lines else "nothing"
