"""Read a segmented knee back: its image, labels, probabilities, and the mask where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from knee3d.api.segment_case import OPINION
from knee3d.api.segmentation_record import SegmentationRecord
from knee3d.dataset.input_case import InputCase
from knee3d.dataset.preparation import PrepareConfig, read_mask_classes, to_network_input
from knee3d.geometry.knee_image import KneeImage
from knee3d.geometry.orientation import Side, axis_codes, from_canonical, reorient
from knee3d.geometry.volume import Volume
from knee3d.io.image_source import read_image
from knee3d.io.label_files import DICOM_SEG, LABEL_FILES, read_labels
from knee3d.io.probability_file import read_probabilities, read_view_labels
from knee3d.labels.label_names import LabelNames
from knee3d.labels.label_scheme import LabelScheme
from knee3d.postprocess.confusion_matrix import OverlapScores, confusion_matrix


@dataclass(frozen=True, eq=False)
class SegmentedCase:
    """The files that are known of a segmented knee.

    Attributes:
        record: The content of its segmentation.json.
        entry: Its image; None where that was not given.
        mask: A mask of it to score against; None where there is none.
        label_names: Of a mask that does not tell itself.
    """

    record: SegmentationRecord
    entry: InputCase | None = None
    mask: Path | None = None
    label_names: LabelNames | None = None

    @property
    def scheme(self) -> LabelScheme:
        """The scheme of the labels."""
        return self.record.scheme

    @property
    def side(self) -> Side:
        """The side of the knee."""
        return self.record.side


@dataclass(frozen=True, eq=False)
class DisplayImage:
    """An image as it was read, and as it is shown: uint8 on the same grid."""

    source: KneeImage
    shown: Volume


def load_image(entry: InputCase, side: Side) -> DisplayImage:
    """Read the image of a knee, and make it uint8 as networks see it, but in its own axes and on its own side."""
    volume = read_image(entry.source.path, entry.source.choice)
    shown, _ = to_network_input(replace(volume, side=side))
    return DisplayImage(volume, from_canonical(shown, axis_codes(volume.affine), side))


def load_labels(folder: Path, given: SegmentedCase, image: DisplayImage | None) -> Volume:
    """The labels, on the grid of the image where that is at hand.

    Raises:
        ValueError: They cannot be read, are not on the image's grid, or are DICOM-SEG without an image.
    """
    form = given.record.label_format
    labels = read_labels(folder, given.scheme, form)
    if image is not None:
        return reorient(labels, axis_codes(image.source.affine)).padded_to(image.source)
    if form == DICOM_SEG:
        raise ValueError(
            f"{folder / LABEL_FILES[form]} ends where its labels do; give the images, too: knee3d report RESULTS KNEES"
        )
    return labels


def load_probabilities(folder: Path, labels: Volume, scheme: LabelScheme) -> tuple[Volume | None, dict[str, Volume]]:
    """Probabilities of all views together around tissue, and the labels of each view; not there where no tissue is.

    Raises:
        ValueError: They are of other tissues than the labels, or of another grid.
    """
    path = folder / OPINION
    if not path.is_file():
        return None, {}
    (fused, names), views = read_probabilities(path), read_view_labels(path)
    grids = all(view.same_grid(labels) for view in views.values())
    try:
        labels.box_of(fused)
    except ValueError:
        grids = False
    if names[1:] != scheme.names or fused.array.shape[3:] != (scheme.classes,) or not grids:
        raise ValueError(f"{path} is of another knee or scheme than the labels beside it; segment the knee again")
    return fused, views


def probability_maps(labels: Volume, fused: Volume | None, views: Mapping[str, Volume]) -> dict[str, Volume]:
    """How sure the networks are that there is tissue, and which share of the views says something else."""
    if fused is None:
        return {}
    box = labels.box_of(fused)
    maps = {"probability": fused.with_array(1 - fused.array[..., 0] / np.float32(255))}
    if len(views) > 1:
        others = [view.array[box] != labels.array[box] for view in views.values()]
        maps["disagreement"] = fused.with_array(np.asarray(np.mean(others, axis=0, dtype=np.float32)))
    return maps


def score_views(
    given: SegmentedCase, image: DisplayImage | None, views: Mapping[str, Volume]
) -> dict[str, OverlapScores] | None:
    """View to its confusion matrix against the mask; None where there is no mask, or no image to tell its place."""
    if given.mask is None or image is None:
        return None
    preparation = PrepareConfig(given.scheme, given.label_names)
    truth, _ = read_mask_classes(given.mask, lambda: replace(image.source, side=given.side), preparation)
    truth = reorient(truth, axis_codes(image.source.affine))
    return {
        name: OverlapScores(confusion_matrix(truth.array, view.array, given.scheme.classes), given.scheme.names)
        for name, view in views.items()
    }
