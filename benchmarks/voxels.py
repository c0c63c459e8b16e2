"""What do voxels of a scan cost before anything is segmented? Labels of real knees, resampled and measured.

Each label map is resampled along its axes to other voxels, as a perfect expert would outline such a scan: each voxel
has the label with most of it. Volume and mean thickness are compared with those of the map as it is.

    python benchmarks/voxels.py ../shared/data/labels/knee_a_label.nrrd ../shared/data/labels/knee_b_label.nrrd
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from knee3d.geometry.axis_resampling import axis_grid, resample_labels
from knee3d.geometry.orientation import CANONICAL, Side, reorient
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_names import LABEL_NAMES, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES
from knee3d.morphometry.knee_measurements import measure_knee

SCHEME = SCHEMES["compartments"]
VOXELS_MM = (
    (0.36, 0.36, 1.5), (0.55, 0.55, 1.4), (0.36, 0.36, 3.0), (0.55, 0.55, 3.0), (0.625, 0.625, 4.0), (0.36, 0.36, 4.5),
)  # fmt: skip
MEASURES = {"volume": "volume", "thickness_mean": "thickness"}


def measured(labels: Volume) -> dict[tuple[str, str], float]:
    """Tissue and measure to its value, of whole tissues."""
    found = measure_knee(labels, SCHEME, Side.RIGHT, None).measures
    return {(one.tissue, one.measure): one.value for one in found if one.region == "whole" and one.measure in MEASURES}


def main() -> None:
    """Print a table for each label map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", type=Path, help="label maps in pymskt numbering")
    for path in parser.parse_args().labels:
        source = reorient(read_volume(path), CANONICAL)
        knee = source.with_array(labels_to_classes(source.array, LABEL_NAMES["pymskt"], SCHEME))
        truth = measured(knee)
        table = Table(title=f"{path.name}: change by other voxels, in %")
        table.add_column("voxels mm", no_wrap=True)
        for tissue, measure in truth:
            table.add_column(f"{tissue.split()[0]} {MEASURES[measure]}", justify="right")
        for voxels in VOXELS_MM:
            found = measured(resample_labels(knee, axis_grid(knee, voxels)))
            changes = [f"{100 * (found[key] / truth[key] - 1):+.1f}" for key in truth]
            table.add_row(" x ".join(f"{mm:g}" for mm in voxels), *changes)
        Console(width=130).print(table)


if __name__ == "__main__":
    main()
