"""A finished knee read back: its image, labels, what the networks said, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.anatomy.orientation import Side, axis_codes, from_canonical, reorient
from knee3d.anatomy.schemes import scheme_of_record
from knee3d.anatomy.tissue import Numbering, Scheme
from knee3d.anatomy.volume import Volume
from knee3d.dataset.files.probabilities import read_probabilities, read_views
from knee3d.dataset.intake import Entry
from knee3d.dataset.labels import DICOM_SEG, FORMS, read_labels
from knee3d.dataset.prepare import Preparation, canonical_image, read_classes
from knee3d.dataset.source import read_image
from knee3d.postprocess.confusion import Scores, confusion_matrix
from knee3d.workflow.making import OPINION


@dataclass(frozen=True, eq=False)
class Given:
    """What there is of a knee.

    Attributes:
        record: Its segmentation.json.
        entry: Its image; None where that was not given.
        mask: A mask of it to score against; None where there is none.
        numbering: Of a mask that does not tell itself.
    """

    record: Mapping[str, Any]
    entry: Entry | None = None
    mask: Path | None = None
    numbering: Numbering | None = None

    @property
    def scheme(self) -> Scheme:
        """Of the labels."""
        return scheme_of_record(self.record["scheme"])

    @property
    def side(self) -> Side:
        """Of the knee."""
        return Side(self.record["side"])


@dataclass(frozen=True, eq=False)
class Read:
    """An image as it was read, and as it is shown: uint8 on the same grid."""

    source: Volume
    shown: Volume


def image_of(entry: Entry, side: Side) -> Read:
    """Read the image of a knee, and make it uint8 as networks see it, but in its own axes and on its own side."""
    volume, _ = read_image(entry.source.path, entry.source.choice)
    shown, _ = canonical_image(volume, side)
    return Read(volume, from_canonical(shown, axis_codes(volume.affine), side))


def labels_of(folder: Path, given: Given, image: Read | None) -> Volume:
    """The labels, on the grid of the image where that is at hand.

    Raises:
        ValueError: They cannot be read, are not on the image's grid, or are DICOM-SEG without an image.
    """
    form = given.record["settings"]["form"]
    labels = read_labels(folder, given.scheme, form)
    if image is not None:
        return reorient(labels, axis_codes(image.source.affine)).padded_to(image.source)
    if form == DICOM_SEG:
        raise ValueError(
            f"{folder / FORMS[form]} ends where its labels do; give the images, too: knee3d report RESULTS KNEES"
        )
    return labels


def opinion_of(folder: Path, labels: Volume, scheme: Scheme) -> tuple[Volume | None, dict[str, Volume]]:
    """Probabilities of all views together around tissue, and the labels of each view; not there where no tissue is.

    Raises:
        ValueError: They are of other tissues than the labels, or of another grid.
    """
    path = folder / OPINION
    if not path.is_file():
        return None, {}
    (fused, names), views = read_probabilities(path), read_views(path)
    grids = all(view.same_grid(labels) for view in views.values())
    try:
        labels.box_of(fused)
    except ValueError:
        grids = False
    if names[1:] != scheme.names or fused.array.shape[3:] != (scheme.classes,) or not grids:
        raise ValueError(f"{path} is of another knee or scheme than the labels beside it; segment the knee again")
    return fused, views


def maps_of(labels: Volume, fused: Volume | None, views: Mapping[str, Volume]) -> dict[str, Volume]:
    """How sure the networks are that there is tissue, and which share of the views says something else."""
    if fused is None:
        return {}
    box = labels.box_of(fused)
    maps = {"probability": fused.with_array(1 - fused.array[..., 0] / np.float32(255))}
    if len(views) > 1:
        others = [view.array[box] != labels.array[box] for view in views.values()]
        maps["disagreement"] = fused.with_array(np.asarray(np.mean(others, axis=0, dtype=np.float32)))
    return maps


def scores_of(given: Given, image: Read | None, views: Mapping[str, Volume]) -> dict[str, Scores] | None:
    """View to its confusion matrix against the mask; None where there is no mask, or no image to tell its place."""
    if given.mask is None or image is None:
        return None
    preparation = Preparation(given.scheme, given.numbering)
    truth, _ = read_classes(given.mask, lambda: (image.source, given.side), preparation)
    truth = reorient(truth, axis_codes(image.source.affine))
    return {
        name: Scores(confusion_matrix(truth.array, view.array, given.scheme.classes), given.scheme.names)
        for name, view in views.items()
    }
