"""STAPLE, for comparison: labels that explain best what each view says, if each errs in its own way (SimpleITK)."""

from __future__ import annotations

from collections.abc import Sequence

from knee3d.anatomy.volume import Volume


def staple(views: Sequence[Volume]) -> Volume:
    """Fuse labels by simultaneous truth and performance level estimation (Warfield et al. 2004).

    Args:
        views: Labels of each view, uint8 on one grid.

    Returns:
        uint8 labels; background where several are equally likely.
    """
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray(view.array) for view in views]
    fused = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, 255))
    fused[fused == 255] = 0
    return views[0].with_array(fused)
