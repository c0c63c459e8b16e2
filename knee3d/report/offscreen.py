"""The program that draws a 3D scene. `rendering` runs it in a process of its own, because VTK can crash.

On a machine without OpenGL, VTK does not raise an exception: it writes warnings from C++ and ends the process with a
segmentation fault. Run by its path, so it imports nothing of knee3d.
"""

import sys
from pathlib import Path

import numpy as np
import pyvista as pv

MARGIN = 1.08
UP = np.array([0.0, 0.0, 1.0])


def draw_offscreen(scene: Path, picture: Path) -> None:
    """Draw surfaces and save the picture.

    Args:
        scene: An npz file with `size` (width, height), `background` (3,) uint8, `direction` (3,) from the scene to
            the camera, `colours` (n, 3) uint8, and for each surface i `points_i` (p, 3) in RAS mm and `corners_i`
            (t, 3).
        picture: The npy file to write: (height, width, 3) uint8.
    """
    with np.load(scene) as data:
        count = len(data["colours"])
        points = [data[f"points_{i}"] for i in range(count)]
        plotter = pv.Plotter(off_screen=True, window_size=data["size"].tolist())
        plotter.set_background(data["background"].tolist())
        for i, colour in enumerate(data["colours"].tolist()):
            mesh = pv.PolyData.from_regular_faces(points[i], data[f"corners_{i}"])
            plotter.add_mesh(mesh, color=colour, smooth_shading=True, specular=0.2, specular_power=15, ambient=0.1)
        _frame(plotter, np.concatenate(points), data["direction"])
    plotter.enable_anti_aliasing("ssaa")
    np.save(picture, np.asarray(plotter.screenshot(return_img=True)))
    plotter.close()


def _frame(plotter: pv.Plotter, points: np.ndarray, direction: np.ndarray) -> None:
    """Look along `direction` without perspective, so that `points` just fill the window."""
    toward = direction / np.linalg.norm(direction)
    right = np.cross(UP, toward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(toward, right), toward])
    seen = points @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    width, height = plotter.window_size
    camera = plotter.camera
    camera.parallel_projection = True
    camera.focal_point = tuple((low + high) / 2 @ axes)
    camera.position = tuple(np.array(camera.focal_point) + toward * 2 * np.linalg.norm(high - low))
    camera.up = tuple(UP)
    camera.parallel_scale = MARGIN / 2 * max(high[1] - low[1], (high[0] - low[0]) * height / width)
    plotter.reset_camera_clipping_range()


if __name__ == "__main__":
    draw_offscreen(Path(sys.argv[1]), Path(sys.argv[2]))
