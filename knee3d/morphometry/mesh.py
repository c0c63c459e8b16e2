"""Closed surfaces of tissues in the scanner's millimetres."""

import numpy as np
import pyvista as pv
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from knee3d.geometry.box import bounding_box, box_corners, whole_box
from knee3d.geometry.volume import Volume

Mesh = pv.PolyData
"""What surfaces are, for rooms that do not know VTK."""
SMOOTHINGS = ((60, 0.03, 0.1), (20, 0.1, 0.2), (0, 2.0, 0.25))
"""Strong, weak, none: iterations, pass band, and how far corners may then be pushed, of a voxel's smallest edge.

Strong smoothing suits a sheet of 1.5 mm in voxels of 0.36 x 0.36 x 0.7 mm and would eat one of a single voxel."""
LEVEL = 0.5
"""Value that parts inside from outside."""
REACH_VOXELS = 0.4
"""How far smoothing may move a corner along each axis: less than the half that lies between it and the next voxels."""
TOLERANCE = 0.01
"""Share of its volume by which a mesh may be off."""
PUSHES = 6
MENDS = 3
MORE = 1.5
"""Where so few triangles do not close, so many times as many are kept."""


def mask_surface(mask: Volume, smoothing: int = 20, pass_band: float = 0.1) -> pv.PolyData:
    """Closed, smoothed surface of a mask or of a probability.

    Flying edges give a triangle mesh through 0.5 between voxel centres, air around the array closes it at the
    border, and windowed-sinc smoothing (Taubin's: it does not shrink) takes the staircase of a boolean mask away.

    Args:
        mask: Boolean, 0/1 integers or probabilities, three axes, any affine.
        smoothing: Iterations of the smoothing filter; 0 leaves the mesh as it was cut.
        pass_band: How much detail survives, in (0, 2): smaller is smoother. The defaults keep the volume of cartilage
            within 1 % or so of its voxels' and leave ripples; 60 iterations at 0.01 look better and lose 1 to 4 %.

    Returns:
        Triangles with points in RAS mm and unit point normals. Seen from outside, corners run counter-clockwise
        and normals point outward, for affines of either handedness.

    Raises:
        ValueError: The mask has channels, or no voxel reaches 0.5.
    """
    mesh = _smoothed(_contour(mask.array, mask.spacing_mm), smoothing, pass_band)
    return _to_scanner(mesh, mask.affine, mask.spacing_mm)


def tissue_surface(field: Volume, volume_mm3: float, triangle_share: float = 1.0) -> pv.PolyData:
    """Closed, smoothed surface of a tissue that encloses the tissue's volume.

    Smoothing, and triangles left out, take a few percent of a thin sheet. They are given back by moving each corner
    along its normal by the same distance: the volume that is missing, over the area. Both are limited in how far they
    move a corner, so that no wall goes through another; what is off by more than `TOLERANCE` then is smoothed less. If
    that does not help, the nearest is returned, and `enclosed_volume_mm3` tells how near.

    Args:
        field: Boolean mask, or float 0 to 1 with 0.5 at the border, see `morphometry.level_set`; three axes, any
            affine.
        volume_mm3: What the mesh is to enclose: the voxels of the tissue times the volume of one.
        triangle_share: Share of the triangles to keep, in (0, 1]; more stay if so few make no closed surface. Specks
            may go.

    Returns:
        As `mask_surface` does. All pieces and hollows of the field; the walls of hollows face into them.

    Raises:
        ValueError: The field has channels or is nowhere 0.5 or more, or a number is out of its range.
    """
    if not 0 < volume_mm3 < np.inf or not 0 < triangle_share <= 1:
        raise ValueError(
            f"a mesh needs a volume above 0 and a share of triangles in (0, 1]; got {volume_mm3} mm3, {triangle_share}"
        )
    spacing, tried = field.spacing_mm, []
    cut = _contour(field.array, spacing)
    for iterations, pass_band, push in SMOOTHINGS:
        smooth = _held(cut, _smoothed(cut, iterations, pass_band), REACH_VOXELS * spacing)
        limit = push * float(spacing.min())
        mesh = _filled_to(_to_scanner(smooth, field.affine, spacing), volume_mm3, limit)
        tried.append((abs(enclosed_volume_mm3(mesh) / volume_mm3 - 1), limit, mesh))
        if tried[-1][0] <= TOLERANCE:
            break
    _, limit, mesh = min(tried, key=lambda found: found[0])
    return mesh if triangle_share == 1 else _filled_to(_decimated(mesh, triangle_share), volume_mm3, limit)


def enclosed_volume_mm3(mesh: pv.PolyData) -> float:
    """Volume within a closed surface of triangles, in mm3 if its points are in mm; less than 0 if it is inside out.

    Tetrahedra from the middle of the mesh to each triangle, added up with their signs.
    """
    points = np.asarray(mesh.points, dtype=np.float64)
    return _enclosed(points, mesh.regular_faces)


def _enclosed(points: np.ndarray, corners: np.ndarray) -> float:
    first, second, third = np.moveaxis((points - points.mean(axis=0))[corners], 1, 0)
    return float(np.einsum("ij,ij->", first, np.cross(second, third)) / 6)


def _filled_to(mesh: pv.PolyData, volume_mm3: float, limit_mm: float) -> pv.PolyData:
    """The mesh with its corners moved along their normals until it encloses a volume, or the limit is reached."""
    points, corners = np.asarray(mesh.points, dtype=np.float64), mesh.regular_faces
    normals, area, distance = np.asarray(mesh.point_data["Normals"], dtype=np.float64), mesh.area, 0.0
    for _ in range(PUSHES):
        missing = volume_mm3 - _enclosed(points + distance * normals, corners)
        distance = float(np.clip(distance + missing / area, -limit_mm, limit_mm))
    return _with_normals(points + distance * normals, corners)


def _smoothed(mesh: pv.PolyData, iterations: int, pass_band: float) -> pv.PolyData:
    return (
        mesh.smooth_taubin(n_iter=iterations, pass_band=pass_band, normalize_coordinates=True) if iterations else mesh
    )


def _held(cut: pv.PolyData, smooth: pv.PolyData, reach: np.ndarray) -> pv.PolyData:
    """The smooth mesh with no corner further from where it was cut than a reach along each axis (3,)."""
    before = np.asarray(cut.points, dtype=np.float64)
    moved = np.clip(np.asarray(smooth.points, dtype=np.float64) - before, -reach, reach)
    return pv.PolyData.from_regular_faces(before + moved, cut.regular_faces)


def _decimated(mesh: pv.PolyData, triangle_share: float) -> pv.PolyData:
    """With fewer triangles (quadric error, Garland and Heckbert 1997), closed as before."""
    while triangle_share < 1:
        fewer = mesh.decimate(1 - triangle_share, volume_preservation=True)
        points, corners = np.asarray(fewer.points, dtype=np.float64), fewer.regular_faces
        for _ in range(MENDS):
            if _torn(corners).any():
                points, corners = _mended(points, corners)
        if len(corners) and not _torn(corners).any():
            return _with_normals(points, corners)
        triangle_share *= MORE
    return mesh


def _torn(corners: np.ndarray) -> np.ndarray:
    """(3 m,) bool: edges, 0-1, 1-2 and 2-0 of each triangle, that are not walked once in each direction."""
    there, back = _walks(corners)
    _, index, counts = np.unique(there, return_inverse=True, return_counts=True)
    return (counts[index] > 1) | ~np.isin(there, back)


def _walks(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each edge of each triangle, walked as the triangle does and walked back."""
    start = corners.astype(np.int64)
    stop, count = np.roll(start, -1, axis=1), int(corners.max(initial=0)) + 1
    return (start * count + stop).ravel(), (stop * count + start).ravel()


def _mended(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the triangles around torn edges; each hole gets a fan from its middle."""
    torn = _torn(corners).reshape(-1, 3)
    bad = np.concatenate([corners[torn], np.roll(corners, -1, axis=1)[torn]])
    corners = corners[~np.isin(corners, bad).any(axis=1)]
    there, back = _walks(corners)
    rim = ~np.isin(there, back)
    start, stop = corners.ravel()[rim], np.roll(corners, -1, axis=1).ravel()[rim]
    graph = coo_array((np.ones(len(start), dtype=bool), (start, stop)), shape=(len(points), len(points)))
    _, holes = np.unique(connected_components(graph, directed=False)[1][start], return_inverse=True)
    sizes = np.bincount(holes)
    middles = np.stack([np.bincount(holes, part) / sizes for part in points[start].T], axis=-1)
    fans = np.column_stack([stop, start, len(points) + holes])
    used, corners = np.unique(np.concatenate([corners, fans]), return_inverse=True)
    return np.concatenate([points, middles])[used], corners.reshape(-1, 3)


def _contour(array: np.ndarray, spacing: np.ndarray) -> pv.PolyData:
    """Triangles in the array's own frame, index times spacing."""
    if array.ndim != 3:
        raise ValueError(f"a surface needs a mask with three axes, got shape {array.shape}")
    inside = array >= LEVEL
    if not inside.any():
        raise ValueError(f"no voxel of the mask reaches {LEVEL:g}: there is no surface to draw")
    box = bounding_box(inside, 1) or whole_box(inside.shape)
    lower, array = box_corners(box)[0], array[box]
    padded = np.pad(array.astype(np.float32), 1)
    grid = pv.ImageData(dimensions=padded.shape, spacing=tuple(spacing), origin=tuple((lower - 1) * spacing))
    grid.point_data["inside"] = padded.ravel(order="F")
    return grid.contour([LEVEL], scalars="inside", method="flying_edges", compute_normals=False)


def _to_scanner(mesh: pv.PolyData, affine: np.ndarray, spacing: np.ndarray) -> pv.PolyData:
    corners = mesh.faces.reshape(-1, 4)[:, 1:]
    if np.linalg.det(affine[:3, :3]) < 0:
        corners = corners[:, ::-1]
    points = np.asarray(mesh.points, dtype=np.float64) @ (affine[:3, :3] / spacing).T + affine[:3, 3]
    return _with_normals(points, corners)


def _with_normals(points: np.ndarray, corners: np.ndarray) -> pv.PolyData:
    return pv.PolyData.from_regular_faces(points, corners).compute_normals(
        cell_normals=False, split_vertices=False, consistent_normals=False, auto_orient_normals=False
    )
