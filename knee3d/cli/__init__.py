"""The commands. Each parses its options, calls one function of `knee3d.api`, and prints the result.

What is slow to import is imported inside the commands, so that `--help` answers at once.
"""

import click

from knee3d import __version__
from knee3d.cli.data import audit, inspect, phantom, prepare, restore, table
from knee3d.cli.fusion import evaluate, fuse
from knee3d.cli.options import Group
from knee3d.cli.repeated_measures import compare, repeatability
from knee3d.cli.segmentation import demo, report, segment
from knee3d.cli.training import card, export, train, train_from_labels


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="knee3d")
def main() -> None:
    """Measure knee cartilage in MRI: one network per plane, fused, in mm3.

    \b
    Try it:          knee3d demo
    Your own knees:  knee3d prepare knees.csv data/oai --scheme compartments
                     knee3d-train data/oai --plane all --models models
                     knee3d fuse data/oai --models models
                     knee3d evaluate data/oai --models models --out results
                     knee3d segment path/to/dicom --models models --out knee_1
                     knee3d report knee_1 path/to/dicom
    """


for _command in (
    phantom, inspect, table, prepare, restore, audit, train, train_from_labels, card, export, fuse, evaluate, segment,
    report, repeatability, compare, demo,
):  # fmt: skip
    main.add_command(_command)


def train_main() -> None:
    """`knee3d-train`: the train command by itself."""
    train.main(prog_name="knee3d-train")
