"""Meshes of tissues as files: STL, PLY, GLB and VTP, in the scanner's millimetres, which each file says of itself.

The words are those that 3D Slicer looks for, `SPACE=RAS`: without them it takes a mesh for LPS and turns it about.
Nothing in a file depends on when, where or by whom it was written: the same meshes make the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvista as pv
from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

from knee3d.atomic import whole_file

FRAME = "millimetres, x to the patient's right, y to anterior, z to superior"
_TAKEN = ("x", "y", "z", "red", "green", "blue", "rgb", "tissue")


@dataclass(frozen=True, eq=False)
class TissueMesh:
    """The surface of a tissue, as it is written.

    Attributes:
        name: Of the tissue: printable ASCII.
        colour: RGB, 0 to 255, of all of it.
        points: (n, 3) RAS mm; kept as float32.
        triangles: (m, 3) integers, corners counter-clockwise seen from outside; kept as int32.
        values: Name to (n,) numbers, one a point, such as `thickness_mm`; NaN where unknown. Kept as float32.
        colours: (n, 3) uint8 RGB of each point, in place of `colour`; None has none.

    Raises:
        ValueError: One of them is not so.
    """

    name: str
    colour: tuple[int, int, int]
    points: np.ndarray
    triangles: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    colours: np.ndarray | None = None

    def __post_init__(self) -> None:
        points, triangles = np.asarray(self.points, dtype=np.float32), np.asarray(self.triangles)
        if not self.name.strip() or not self.name.isascii() or not self.name.isprintable():
            raise ValueError(f"the name of a mesh is one line of ASCII, got {self.name!r}")
        if len(self.colour) != 3 or not all(0 <= part <= 255 for part in self.colour):
            raise ValueError(f"a colour is RGB of 0 to 255, got {self.colour} for {self.name!r}")
        _check_triangles(self.name, points, triangles)
        _check_values(self.name, self.values, len(points))
        if self.colours is not None and (self.colours.dtype != np.uint8 or self.colours.shape != points.shape):
            raise ValueError(f"colours of {self.name!r} must be uint8 of shape {points.shape}")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "triangles", triangles.astype(np.int32))
        object.__setattr__(
            self, "values", {name: np.asarray(array, dtype=np.float32) for name, array in self.values.items()}
        )

    @property
    def point_colours(self) -> np.ndarray:
        """(n, 3) uint8: the colours, or the colour again and again."""
        if self.colours is not None:
            return self.colours
        return np.tile(np.array(self.colour, dtype=np.uint8), (len(self.points), 1))


def _check_triangles(name: str, points: np.ndarray, triangles: np.ndarray) -> None:
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise ValueError(f"points of {name!r} must be finite, of shape (n, 3), got shape {points.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "iu" or not triangles.size:
        raise ValueError(
            f"triangles of {name!r} must be integers of shape (m, 3), m above 0; "
            f"got {triangles.dtype} of shape {triangles.shape}"
        )
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise ValueError(f"triangles of {name!r} have corners that are none of its {len(points)} points")


def _check_values(mesh: str, values: Mapping[str, np.ndarray], count: int) -> None:
    for name, array in values.items():
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name.lower() in _TAKEN:
            raise ValueError(
                f"values are named by one word such as thickness_mm, and not {', '.join(_TAKEN)}; got {name!r}"
            )
        if np.shape(array) != (count,):
            raise ValueError(
                f"{name} of {mesh!r} needs a value for each of {count} points, got shape {np.shape(array)}"
            )


def write_meshes(path: Path, meshes: Sequence[TissueMesh]) -> None:
    """Write one tissue, or a scene of all of them, in the format of the path's ending.

    .glb: a node a tissue, with its name, in its colour or those of its points. glTF means metres with y up; these are
        millimetres in RAS all the same, as viewers of medical meshes expect, and `asset.extras` says so.
    .vtp: points have `RGB`, `tissue` (from 1 in the order of the field data `TISSUES`) and all values.
    .ply: binary; points have colours, `tissue` (as the comments number them) and all values.
    .stl: binary; one tissue, its name in the header; no colours, no values.

    A scene has NaN where a tissue lacks values that another one has.

    Args:
        path: Its folder is made; a file that was there is replaced.
        meshes: At least one, names all different.

    Raises:
        ValueError: The ending is none of these, there is no mesh, two have the same name, or STL shall hold several.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ValueError(f"meshes are written as {', '.join(_WRITERS)}; got {path.name!r}")
    names = [mesh.name for mesh in meshes]
    if not names or len(set(names)) < len(names) or len(names) > 255:
        raise ValueError(f"a file needs 1 to 255 meshes with different names, got {names}")
    if path.suffix.lower() == ".stl" and len(names) > 1:
        raise ValueError(f"STL keeps no names: write a file for each of {', '.join(names)}, or .glb, .vtp or .ply")
    with whole_file(path) as partial:
        write(partial, meshes)


def _write_stl(path: Path, meshes: Sequence[TissueMesh]) -> None:
    (mesh,) = meshes
    corners = mesh.points[mesh.triangles]
    facets = np.zeros(len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    facets["normal"], facets["corners"] = _of_length_1(_across(corners)), corners
    header = f"knee3d. SPACE=RAS UNIT=mm {mesh.name}".encode()[:80].ljust(80)  # "solid" in front would mean text
    path.write_bytes(header + np.array(len(facets), dtype="<u4").tobytes() + facets.tobytes())


def _write_ply(path: Path, meshes: Sequence[TissueMesh]) -> None:
    points, triangles, colours, tissue, values = _together(meshes)
    floats = ["x", "y", "z", *values]
    kinds = [(name, "<f4") for name in floats] + [(name, "u1") for name in ("red", "green", "blue", "tissue")]
    rows = np.empty(len(points), dtype=kinds)
    for name, column in zip(("x", "y", "z"), points.T, strict=True):
        rows[name] = column
    for name, array in values.items():
        rows[name] = array
    for name, column in zip(("red", "green", "blue"), colours.T, strict=True):
        rows[name] = column
    rows["tissue"] = tissue
    faces = np.empty(len(triangles), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    lines = ["ply", "format binary_little_endian 1.0", "comment SPACE=RAS", f"comment UNIT=mm: {FRAME}"]
    lines += [f"comment tissue {number}: {mesh.name}" for number, mesh in enumerate(meshes, start=1)]
    lines += [f"element vertex {len(rows)}"]
    lines += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    path.write_bytes("\n".join(lines).encode() + rows.tobytes() + faces.tobytes())


def _write_vtp(path: Path, meshes: Sequence[TissueMesh]) -> None:
    points, triangles, colours, tissue, values = _together(meshes)
    mesh = pv.PolyData.from_regular_faces(points, triangles)
    for name, array in {**values, "tissue": tissue, "RGB": colours}.items():
        mesh.point_data[name] = array
    names = [one.name for one in meshes]
    for name, words in {"SPACE": ["RAS"], "UNIT": ["mm"], "FRAME": [FRAME], "TISSUES": names}.items():
        mesh.field_data[name] = words
    writer = vtkXMLPolyDataWriter()  # into memory: on a full disk VTK takes the process down
    writer.SetInputData(mesh)
    writer.WriteToOutputStringOn()
    writer.Write()
    path.write_text(writer.GetOutputString(), encoding="latin-1")


def _together(
    meshes: Sequence[TissueMesh],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Points, triangles, colours, number of the tissue and values of all meshes one after the other."""
    counts = [len(mesh.points) for mesh in meshes]
    starts = np.cumsum([0, *counts[:-1]], dtype=np.int32)
    names = list(dict.fromkeys(name for mesh in meshes for name in mesh.values))
    return (
        np.concatenate([mesh.points for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.point_colours for mesh in meshes]),
        np.repeat(np.arange(1, len(meshes) + 1, dtype=np.uint8), counts),
        {name: np.concatenate([_values(mesh, name) for mesh in meshes]) for name in names},
    )


def _values(mesh: TissueMesh, name: str) -> np.ndarray:
    return mesh.values.get(name, np.full(len(mesh.points), np.nan, dtype=np.float32))


def _write_glb(path: Path, meshes: Sequence[TissueMesh]) -> None:
    data, views, accessors = bytearray(), [], []

    def put(array: np.ndarray, **more: object) -> int:
        """Rows of numbers of 4 bytes each, so that all of them lie where glTF wants them."""
        target = 34962 if array.ndim == 2 else 34963  # attributes of points, corners of triangles
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes, "target": target})
        accessors.append({"bufferView": len(views) - 1, "count": len(array), **more})
        data.extend(array.tobytes())
        return len(accessors) - 1

    vectors = {"componentType": 5126, "type": "VEC3"}
    parts, materials = [], []
    for number, mesh in enumerate(meshes):
        points = mesh.points.astype("<f4")
        ends = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        attributes = {"POSITION": put(points, **vectors, **ends), "NORMAL": put(_normals(mesh), **vectors)}
        if mesh.colours is not None:
            attributes["COLOR_0"] = put(_linear(mesh.colours).astype("<f4"), **vectors)
        corners = put(mesh.triangles.ravel().astype("<u4"), componentType=5125, type="SCALAR")
        parts.append(
            {
                "name": mesh.name,
                "primitives": [{"attributes": attributes, "indices": corners, "material": number}],
            }
        )
        colour = (1.0, 1.0, 1.0) if mesh.colours is not None else _linear(np.array(mesh.colour)).tolist()
        surface = {"baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.6}
        materials.append({"name": mesh.name, "pbrMetallicRoughness": surface})
    numbers = list(range(len(meshes)))
    _write_chunks(path, {
        "asset": {"version": "2.0", "generator": "knee3d", "extras": {"SPACE": "RAS", "UNIT": "mm", "FRAME": FRAME}},
        "scene": 0,
        "scenes": [{"nodes": numbers}],
        "nodes": [{"name": meshes[number].name, "mesh": number} for number in numbers],
        "meshes": parts,
        "materials": materials,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }, bytes(data))  # fmt: skip


def _write_chunks(path: Path, description: dict[str, object], data: bytes) -> None:
    """A GLB file: its description and its numbers, each with its length and its kind in front."""
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    whole = np.array([0x46546C67, 2, 28 + len(text) + len(data)], dtype="<u4")
    kinds = [np.array([len(chunk), kind], dtype="<u4") for chunk, kind in ((text, 0x4E4F534A), (data, 0x004E4942))]
    path.write_bytes(whole.tobytes() + kinds[0].tobytes() + text + kinds[1].tobytes() + data)


def _linear(colours: np.ndarray) -> np.ndarray:
    """RGB of 0 to 255 as screens take it -> 0 to 1 as light adds up (IEC 61966-2-1): what glTF wants."""
    shares = colours / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def _normals(mesh: TissueMesh) -> np.ndarray:
    """(n, 3) float32 of length 1: those of the triangles around each point, weighted by area."""
    across = _across(mesh.points[mesh.triangles])
    corners = mesh.triangles.ravel()
    sums = [np.bincount(corners, np.repeat(part, 3), minlength=len(mesh.points)) for part in across.T]
    return _of_length_1(np.stack(sums, axis=-1)).astype("<f4")


def _across(corners: np.ndarray) -> np.ndarray:
    """(m, 3) float64: normals of triangles, as long as twice their area."""
    corners = corners.astype(np.float64)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    """Vectors of any length; those of none, of triangles without area, become z."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), [0.0, 0.0, 1.0])


_WRITERS: Mapping[str, Callable[[Path, Sequence[TissueMesh]], None]] = {
    ".stl": _write_stl,
    ".ply": _write_ply,
    ".glb": _write_glb,
    ".vtp": _write_vtp,
}
