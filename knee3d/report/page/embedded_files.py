"""Volumes and surfaces as bytes of files that NiiVue reads: NIfTI-1 and MZ3.

Reading and writing volumes on disk is dataset's.
"""

import zlib

import numpy as np
import pyvista as pv

from knee3d.geometry.volume import Volume

# The part of the header that is not zero, at its offsets in nifti1.h, and the four bytes that say: no extension.
_NIFTI = np.dtype({
    "names": [
        "sizeof_hdr", "dim", "intent_code", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "xyzt_units",
        "sform_code", "srow", "magic",
    ],
    "formats": ["<i4", ("<i2", 8), "<i2", "<i2", "<i2", ("<f4", 8), "<f4", "<f4", "u1", "<i2", ("<f4", (3, 4)), "S4"],
    "offsets": [0, 40, 68, 70, 72, 76, 108, 112, 123, 254, 280, 344],
    "itemsize": 352,
})  # fmt: skip
_CODES = {"uint8": 2, "int16": 4, "float32": 16}
_MILLIMETRES, _SCANNER, _LABELS = 2, 1, 1002

_MZ3 = np.dtype([("magic", "<u2"), ("parts", "<u2"), ("triangles", "<u4"), ("points", "<u4"), ("skip", "<u4")])
_MAGIC = 23117
_TRIANGLES, _POINTS, _COLOURS = 1, 2, 4
STEP_MM = 1 / 64
"""Points are rounded to it: no eye sees it, and it halves what they take up when packed."""


def nifti_bytes(volume: Volume, labels: bool = False) -> bytes:
    """A volume as a NIfTI-1 file: header and voxels, with the affine as its sform: RAS mm of the scanner, to float32.

    Args:
        volume: uint8, int16 or float32, three axes of at most 32767 voxels.
        labels: Whether voxels are names and not amounts: a viewer then draws each as it is, with nothing in between.

    Raises:
        ValueError: The volume has channels, another dtype, or too long an axis.
    """
    array = volume.array
    if array.ndim != 3 or array.dtype.name not in _CODES or max(array.shape) > np.iinfo(np.int16).max:
        raise ValueError(
            f"NIfTI-1 takes three axes of {', '.join(_CODES)} here, got {array.dtype} of shape {array.shape}"
        )
    header = np.zeros((), dtype=_NIFTI)
    header["sizeof_hdr"], header["vox_offset"], header["magic"] = 348, 352, b"n+1"
    header["dim"] = [3, *array.shape, 1, 1, 1, 1]
    header["pixdim"] = [1, *volume.spacing_mm, 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = _CODES[array.dtype.name], 8 * array.dtype.itemsize
    header["scl_slope"], header["intent_code"] = 1, _LABELS * labels
    header["xyzt_units"], header["sform_code"], header["srow"] = _MILLIMETRES, _SCANNER, volume.affine[:3]
    return header.tobytes() + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="F")


def mz3_bytes(mesh: pv.PolyData, colours: np.ndarray | None = None) -> bytes:
    """A triangle mesh as an MZ3 file, not packed.

    Args:
        mesh: Triangles, points in RAS mm.
        colours: (points, 3) uint8, RGB of each point; None leaves the colour to the viewer.
    """
    points = np.rint(np.asarray(mesh.points, dtype=np.float64) / STEP_MM) * STEP_MM
    corners = mesh.regular_faces
    header = np.zeros((), dtype=_MZ3)
    header["magic"], header["triangles"], header["points"] = _MAGIC, len(corners), len(points)
    header["parts"] = _TRIANGLES | _POINTS | (_COLOURS if colours is not None else 0)
    parts = [header.tobytes(), corners.astype("<i4").tobytes(), points.astype("<f4").tobytes()]
    if colours is not None:
        parts.append(np.column_stack([colours, np.full(len(colours), 255)]).astype(np.uint8).tobytes())
    return b"".join(parts)


def gzip_bytes(content: bytes, level: int = 6) -> bytes:
    """The same as a gzip file without a name or a time, so that equal content gives equal bytes."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9)
    return packer.compress(content) + packer.flush()
