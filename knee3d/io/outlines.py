"""Read iMorphics' outlines of OAI tissues (MATLAB files) as labels on the grid of their image.

`datastruct` has an entry for each sagittal slice, with a field for each tissue that holds its closed outlines as (n, 2)
points or more columns: how far along a row and how far up from the bottom, in pixels, 0 at the picture's edge. Nothing
is said of millimetres, nor whether slices count from the patient's right or left: the side of the knee must tell, for
medial tissue is towards the other leg.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from skimage.draw import polygon2mask

from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.matlab_file import MatlabFileError, read_matlab_structures
from knee3d.labels.label_names import LABEL_NAMES, LabelNames
from knee3d.labels.laterality import side_from_labels

ENDINGS = (".mat",)
KEY = "datastruct"
NUMBERING = LABEL_NAMES["imorphics"]
_FIELDS = {name: "".join(word.capitalize() for word in name.split()) for name in NUMBERING.names.values()}
_LARGEST_BYTES = 1 << 28  # a knee's outlines are 1 MB
_BEYOND_PIXELS = 1.0  # an outline may touch the edge


class OutlineError(ValueError):
    """A file of outlines that cannot be taken as the mask of an image; the text names it and the way out."""


def read_outlines(path: Path, image: Volume, side: Side) -> tuple[Volume, LabelNames]:
    """Fill the outlines: a voxel belongs to a tissue whose outline surrounds its centre.

    Args:
        path: .mat file.
        image: The one they were drawn on, canonical axes, not mirrored.
        side: Of the knee; decides in which direction slices count.

    Returns:
        uint8 labels on the image's grid in iMorphics' numbering. Where tissues overlap, the one with the lower number
        wins.

    Raises:
        OutlineError: The file is unreadable, has other slices than the image, points beyond it, or no medial and
            lateral tissue; or the side is unknown.
        ValueError: Its medial and lateral tissues contradict each other.
    """
    entries = _entries(path)
    if len(entries) != image.shape[2]:
        raise OutlineError(
            f"{path.name} has outlines for {len(entries)} slices, the image {image.shape[2]} from side to side"
        )
    labels = np.stack([_filled(path, entry, image.shape[:2]) for entry in entries], axis=-1)
    shown = side_from_labels(image.with_array(labels), NUMBERING)
    if not (side and shown):
        lacking = "no medial and lateral tissue" if side else "no side"
        raise OutlineError(f"{path.name}: slices may count from either side, and there is {lacking} to tell; add it")
    return image.with_array(labels if shown is side else labels[:, :, ::-1]), NUMBERING


def _entries(path: Path) -> list[dict[str, list]]:
    """What stands for each slice."""
    if path.stat().st_size > _LARGEST_BYTES:
        raise OutlineError(f"{path.name} is too large for the outlines of a knee")
    try:
        found = read_matlab_structures(path, KEY)
    except MatlabFileError as error:
        raise OutlineError(str(error)) from error
    fields = set(_FIELDS.values())
    if not any(fields & set(entry) for entry in found):
        raise OutlineError(f"{path.name} has no iMorphics outlines ({KEY} with fields such as {min(fields)})")
    return found


def _filled(path: Path, entry: dict[str, list], shape: tuple[int, int]) -> np.ndarray:
    """uint8 labels of one slice."""
    labels = np.zeros(shape, np.uint8)
    for value, name in sorted(NUMBERING.names.items(), reverse=True):
        for points in _outlines(path, entry.get(_FIELDS[name], [])):
            beyond = max(-points.min(), (points - shape[::-1]).max())
            if beyond > _BEYOND_PIXELS:
                raise OutlineError(
                    f"{path.name} has an outline of {name} that is {beyond:.0f} pixels beyond the image's "
                    f"{shape[0]} x {shape[1]}; is it of another knee?"
                )
            # From origin at the edge to pixel centres at whole numbers, from bottom up to top down.
            labels[polygon2mask(shape, np.stack([shape[0] - points[:, 1], points[:, 0]], axis=1) - 0.5)] = value
    return labels


def _outlines(path: Path, cells: list) -> Iterator[np.ndarray]:
    """The closed outlines of one tissue in one slice."""
    for points in cells:
        try:
            table = np.asarray(points)
        except ValueError:  # lists of different lengths
            table = np.asarray("ragged")
        if not table.size:
            continue
        if table.dtype.kind not in "iuf" or table.ndim != 2 or table.shape[1] < 2 or not np.isfinite(table).all():
            raise OutlineError(f"{path.name} has an outline that is no list of points: {table.dtype} {table.shape}")
        yield table[:, :2].astype(np.float64)
