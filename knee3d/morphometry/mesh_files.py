"""Write surfaces as PLY, STL and VTP files in the scanner's millimetres.

The words are those that 3D Slicer looks for, `SPACE=RAS`: without them it takes a mesh for LPS and turns it about.
Nothing in a file depends on when, where or by whom it was written: the same surfaces make the same bytes. They are made
in memory, as VTK's own writers leave half a file on a full disk without a word, or end the process (D78).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyvista as pv
from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

from knee3d.atomic import whole_file

FRAME = "millimetres, x to the patient's right, y to anterior, z to superior"


def write_surfaces(
    path: Path,
    surfaces: Mapping[str, pv.PolyData],
    colours: Mapping[str, tuple[int, int, int]],
    values: Sequence[str] = (),
) -> None:
    """Write the surface of one tissue, or a scene of several, in the format of the path's ending.

    .ply: binary; points have the colour of their tissue and `tissue`, its number from 1 on, which comments name.
    .stl: binary; one tissue, whose name is in the header; no colours.
    .vtp: points have `RGB`, `tissue` (a number from 1 on in the order of the field data `TISSUES`) and values.

    Args:
        path: Its folder is made; a file that was there is replaced.
        surfaces: Name of each tissue to its triangles, counter-clockwise seen from outside; points in RAS mm are
            written as float32. At least one.
        colours: Name of each tissue to RGB, 0 to 255.
        values: Names of numbers that each point of all surfaces has, such as `thickness_mm`; float32, for .vtp only.

    Raises:
        ValueError: The ending is none of these, or it cannot hold as many surfaces or the values.
    """
    kind = path.suffix.lower()
    if kind not in _WRITERS:
        raise ValueError(f"surfaces are written as {', '.join(_WRITERS)}; got {path.name!r}")
    if not 1 <= len(surfaces) <= (1 if kind == ".stl" else 255):
        raise ValueError(f"STL holds one surface, .ply and .vtp 1 to 255; got {len(surfaces)} for {path.name!r}")
    if values and kind != ".vtp":
        raise ValueError(f"values of points are written as .vtp only; got {path.name!r}")
    parts = []
    for number, (name, surface) in enumerate(surfaces.items(), start=1):
        points: np.ndarray = np.asarray(surface.points, dtype=np.float32)
        triangles: np.ndarray = surface.regular_faces.astype(np.int32)
        part = pv.PolyData.from_regular_faces(points, triangles)
        for value in values:
            part.point_data[value] = np.asarray(surface.point_data[value], dtype=np.float32)
        part.point_data["tissue"] = np.full(part.n_points, number, dtype=np.uint8)
        part.point_data["RGB"] = np.tile(np.array(colours[name], dtype=np.uint8), (part.n_points, 1))
        parts.append(part)
    content = _WRITERS[kind](parts[0].append_polydata(*parts[1:]) if len(parts) > 1 else parts[0], list(surfaces))
    with whole_file(path) as partial:
        partial.write_bytes(content)


def _stl(mesh: pv.PolyData, names: Sequence[str]) -> bytes:
    corners = mesh.points[mesh.regular_faces].astype(np.float64)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(across, axis=1, keepdims=True)
    facets = np.zeros(len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    facets["normal"], facets["corners"] = across / np.where(lengths > 0, lengths, 1), corners
    header = f"knee3d. SPACE=RAS UNIT=mm {names[0]}".encode()[:80].ljust(80)  # "solid" in front would mean text
    return header + np.array(len(facets), dtype="<u4").tobytes() + facets.tobytes()


def _ply(mesh: pv.PolyData, names: Sequence[str]) -> bytes:
    kinds = [(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "tissue")]
    rows = np.empty(mesh.n_points, dtype=kinds)
    columns = (*mesh.points.T, *mesh.point_data["RGB"].T, mesh.point_data["tissue"])
    for (name, _), column in zip(kinds, columns, strict=True):
        rows[name] = column
    faces = np.empty(mesh.n_cells, dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.regular_faces
    lines = ["ply", "format binary_little_endian 1.0", "comment SPACE=RAS", f"comment UNIT=mm: {FRAME}"]
    lines += [f"comment tissue {number}: {name}" for number, name in enumerate(names, start=1)]
    lines += [f"element vertex {len(rows)}"]
    lines += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode() + rows.tobytes() + faces.tobytes()


def _vtp(mesh: pv.PolyData, names: Sequence[str]) -> bytes:
    for name, words in {"SPACE": ["RAS"], "UNIT": ["mm"], "FRAME": [FRAME], "TISSUES": list(names)}.items():
        mesh.field_data[name] = words
    writer = vtkXMLPolyDataWriter()
    writer.SetInputData(mesh)
    writer.WriteToOutputStringOn()
    writer.Write()
    return writer.GetOutputString().encode("latin-1")


_WRITERS: Mapping[str, Callable[[pv.PolyData, Sequence[str]], bytes]] = {".ply": _ply, ".stl": _stl, ".vtp": _vtp}
