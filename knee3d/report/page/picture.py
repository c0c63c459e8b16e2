"""Reduce an image so that it fits into a page: crop, coarsen, fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from knee3d.geometry.box import Box, bounding_box, whole_box
from knee3d.geometry.resampling import LINEAR, resample
from knee3d.geometry.volume import Volume
from knee3d.report.page.embedded_files import gzip_bytes, nifti_bytes

MARGIN_MM = 15.0
"""Kept around the tissue."""
IMAGE_BYTES = 3_300_000
"""Of the packed image, at most. As base64 it is a third larger, and the page has 12 MB for all."""
QUICKLY = 1
"""Level of packing: noise gives nothing for more time."""
ATTEMPTS = ((0.0, 1), (0.0, 4), (0.5, 4), (0.6, 4), (0.7, 8), (1.0, 8), (1.5, 16), (2.0, 16))
"""Least spacing in mm and step between greys, the first that fits is taken. Noise is what does not pack: without the
two bits below it an image looks the same and packs to half."""


@dataclass(frozen=True)
class PageImage:
    """An image as it is shown.

    Attributes:
        packed: A gzipped NIfTI file.
        words: What was done to it; empty if nothing was.
    """

    packed: bytes
    words: str


def make_page_image(image: Volume, box: Box, most_bytes: int = IMAGE_BYTES) -> PageImage:
    """The part of an image within a box, as fine as fits.

    Args:
        image: uint8, three axes.
        box: What to show.
        most_bytes: Of the packed file; the coarsest attempt is taken if even that is larger.
    """
    part = image.part(box)
    for spacing_mm, step in ATTEMPTS:
        shown = subsample(coarsen_to_spacing(part, spacing_mm), step)
        packed = gzip_bytes(nifti_bytes(shown), QUICKLY)
        if len(packed) <= most_bytes:
            break
    done = ["cropped to the tissue"] if part.shape != image.shape else []
    if shown.shape != part.shape:
        done.append(f"shown at {' × '.join(f'{mm:.2f}' for mm in shown.spacing_mm)} mm")
    if step > 1:
        done.append(f"in {256 // step} greys")
    words = f"The picture is {', '.join(done)}; measures are from full resolution." if done else ""
    return PageImage(packed, words)


def box_around_labels(labels: Volume, margin_mm: float = MARGIN_MM) -> Box:
    """The box that holds all tissue and a margin, or everything where there is no tissue."""
    more = np.ceil(margin_mm / labels.spacing_mm).astype(int)
    return bounding_box(labels.array > 0, more) or whole_box(labels.shape)


def coarsen_to_spacing(image: Volume, spacing_mm: float) -> Volume:
    """On a grid of at least this spacing: blurred first, so that noise does not become a pattern, then linear.

    Returns:
        uint8; the same volume where its voxels are large enough already.
    """
    factors = np.minimum(np.maximum(1, spacing_mm / image.spacing_mm), image.shape)
    if (factors == 1).all():
        return image
    affine = image.affine @ np.diag([*factors, 1])
    affine[:3, 3] = image.affine[:3, :3] @ ((factors - 1) / 2) + image.affine[:3, 3]
    shape = np.maximum(1, np.floor(image.shape / factors + 1e-6)).astype(int)
    smooth = ndimage.gaussian_filter(image.array, (factors - 1) / 2, output=np.float32)
    grid = Volume(np.broadcast_to(np.uint8(0), tuple(shape.tolist())), affine)
    return grid.with_array(np.rint(resample(image.with_array(smooth), grid, LINEAR).array).astype(np.uint8))


def subsample(image: Volume, step: int) -> Volume:
    """Each grey rounded to a multiple of a step, at most 255; black stays black."""
    if step == 1:
        return image
    table = np.minimum(np.rint(np.arange(256) / step) * step, 255).astype(np.uint8)
    return image.with_array(table[image.array])
