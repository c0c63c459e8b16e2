"""A coloured triangle mesh as the bytes of an MZ3 file, the smallest of the formats that NiiVue reads."""

import numpy as np
import pyvista as pv

_HEADER = np.dtype([("magic", "<u2"), ("parts", "<u2"), ("triangles", "<u4"), ("points", "<u4"), ("skip", "<u4")])
_MAGIC = 23117
_TRIANGLES, _POINTS, _COLOURS = 1, 2, 4
STEP_MM = 1 / 64
"""Points are rounded to it: no eye sees it, and it halves what they take up when packed."""


def mz3_bytes(mesh: pv.PolyData, colours: np.ndarray | None = None) -> bytes:
    """One file, not packed.

    Args:
        mesh: Triangles, points in RAS mm.
        colours: (points, 3) uint8, RGB of each point; None leaves the colour to the viewer.
    """
    points = np.rint(np.asarray(mesh.points, dtype=np.float64) / STEP_MM) * STEP_MM
    corners = mesh.regular_faces
    header = np.zeros((), dtype=_HEADER)
    header["magic"], header["triangles"], header["points"] = _MAGIC, len(corners), len(points)
    header["parts"] = _TRIANGLES | _POINTS | (_COLOURS if colours is not None else 0)
    parts = [header.tobytes(), corners.astype("<i4").tobytes(), points.astype("<f4").tobytes()]
    if colours is not None:
        parts.append(np.column_stack([colours, np.full(len(colours), 255)]).astype(np.uint8).tobytes())
    return b"".join(parts)
