"""Segmentation: the labels of one knee. It can be measured, saved and shown."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from knee3d.api.measurements import Measurements, measure
from knee3d.geometry.orientation import Side
from knee3d.geometry.volume import Volume
from knee3d.io.slicer_segmentation import ENDING as SLICER_ENDING
from knee3d.io.slicer_segmentation import segmentation_header
from knee3d.io.volume_file import write_volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.postprocess.quality import QualityReport


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The labels of one knee.

    Attributes:
        name: The name of the knee.
        side: The side of the knee; empty where it is not known.
        labels: (i, j, k) uint8 classes of the scheme, on the grid and in the axes of the image.
        scheme: The meaning of the classes.
        volumes_mm3: Name of each tissue to its volume in mm3.
        quality: Numbers and flags that say how believable the labels are.
        probabilities: (*part, classes) uint8, where 255 is 1: the fused probabilities where tissue is and 5 mm around,
            on a part of the grid of the labels. None where there is no tissue.
        view_labels: Name of each view to its own labels, uint8 on the grid of the labels.
        computed_whole_because: Why the whole knee was computed though `fast` was set; empty otherwise.
        network_image: (I, P, L) uint8: what the networks saw, in canonical axes, a left knee mirrored to a right one.
        network_labels: The labels on the grid of `network_image`.
        made_by: What made the labels, in words: networks, weights, version. It names no patient.
    """

    name: str
    side: Side
    labels: Volume
    scheme: LabelScheme
    volumes_mm3: Mapping[str, float]
    quality: QualityReport
    probabilities: Volume | None
    view_labels: Mapping[str, Volume]
    computed_whole_because: str
    network_image: Volume
    network_labels: Volume
    made_by: Mapping[str, str] = field(default_factory=dict)

    def measure(self) -> Measurements:
        """Measure volumes, thickness and areas of each tissue and of its subregions.

        Surfaces are taken from the probabilities where there are some, which is finer than voxels.

        Returns:
            The measurements; `to_frame()` gives them as a pandas DataFrame.
        """
        return measure(
            self.labels, scheme=self.scheme, side=self.side, probabilities=self.probabilities, name=self.name
        )

    def save(self, path: Path | str) -> Path:
        """Write the labels to a file, on the grid of the image.

        Args:
            path: Its ending says the format: .nii, .nii.gz, .nrrd, .mha, or .seg.nrrd (3D Slicer: names and colours).

        Returns:
            The path. The file appears whole or not at all.

        Raises:
            ValueError: The ending is another one.
            OSError: The file cannot be written.
        """
        target = Path(path)
        is_slicer = target.name.lower().endswith(SLICER_ENDING)
        header = segmentation_header(self.scheme, self.labels.shape) if is_slicer else {}
        write_volume(self.labels, target, header)
        return target

    def make_report(self, path: Path | str) -> Path:
        """Write a page that opens in a browser, from disk: slices, surfaces, thickness, measures and flags.

        Args:
            path: The HTML file. Some 9 MB are written.

        Returns:
            The path. The file appears whole or not at all.

        Raises:
            ValueError: The path does not end in .html.
            OSError: The file cannot be written.
        """
        from knee3d.api.case_report import write_segmentation_page

        return write_segmentation_page(self, Path(path))

    def __repr__(self) -> str:
        volumes = ", ".join(f"{name} {mm3:,.0f} mm3" for name, mm3 in self.volumes_mm3.items())
        flags = f", {len(self.quality.flags)} quality flags" if self.quality.flags else ""
        return f"Segmentation({self.name!r}, {self.scheme.name}: {volumes}{flags})"

    def _repr_html_(self) -> str:
        """A picture of the labels, volumes and flags, for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{mm3:,.1f} mm³</td></tr>"
            for name, mm3 in self.volumes_mm3.items()
        )
        flags = "".join(f"<li>{html.escape(flag)}</li>" for flag in self.quality.flags)
        picture = base64.b64encode(self.picture()).decode()
        return (
            f"<img src='data:image/png;base64,{picture}' style='max-width:100%' alt='{html.escape(repr(self))}'>"
            f"<table>{rows}</table>{f'<ul>{flags}</ul>' if flags else ''}"
        )

    def picture(self) -> bytes:
        """A PNG of the knee in slices with its labels, and in 3D."""
        from knee3d.report.overview_figure import overview_figure

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "overview.png"
            overview_figure(self.network_image, self.network_labels, self.scheme, path, self.name)
            return path.read_bytes()
