"""Commands that prepare data: phantom, inspect, table, prepare, restore, audit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knee3d.choices import APPEARANCES, RENDERERS
from knee3d.cli.options import (
    EXISTING,
    FILE,
    FOLDER,
    Command,
    Numbers,
    add_command_hints,
    axes_option,
    choice_of,
    choice_options,
    count,
    jobs_option,
    modality_option,
    seed_option,
    spacing_option,
)
from knee3d.labels.label_scheme import SCHEMES

if TYPE_CHECKING:
    from knee3d import api


@click.command(cls=Command)
@click.argument("out", type=FOLDER)
@click.option("--knees", type=click.IntRange(1), default=8, help="Patients, one knee each.")
@click.option("--shape", type=Numbers(int, "64,64,48"), metavar="I,P,L", help="Voxels down, back, left [128,128,96].")
@click.option("--from-labels", type=FILE, multiple=True, help="Label map to deform (repeat for more).")
@click.option(
    "--letter",
    default="P",
    help="First letter of patients' names: cohorts of other people need another.",
)
@click.option("--deform", type=click.FloatRange(0), default=1.0, help="How much; 0 keeps them exactly.")
@click.option("--flexion", "flexion_deg", type=float, default=0.0, help="Bend or straighten knees by up to this.")
@click.option(
    "--thickness", type=Numbers(float, "0.5,1.5"), metavar="LOW,HIGH", default="1,1",
    help="Factors of the thickness of cartilage.",
)  # fmt: skip
@click.option("--defects", type=float, default=0.0, help="Largest share of a plate of cartilage that is lost.")
@click.option("--retests", type=click.IntRange(0), default=0, help="Patients scanned twice at once.")
@click.option("--renderer", type=click.Choice(RENDERERS), default=RENDERERS[0], help="What makes images from labels.")
@click.option(
    "--appearance", type=click.Choice(APPEARANCES), default=APPEARANCES[0],
    help="Contrast: of DESS, or any, with each tissue's intensity drawn by itself.",
)  # fmt: skip
@click.option(
    "--voxels", "voxel_mm", type=Numbers(float, "0.36,0.36,0.7"), metavar="I,P,L",
    help="Scan with voxels of these mm [those of the anatomy].",
)  # fmt: skip
@click.option(
    "--field-of-view", "field_of_view_mm", type=Numbers(float, "112,112,96"), metavar="I,P,L",
    help="Cut scans of these mm out, at random places around cartilage [all].",
)  # fmt: skip
@seed_option
@jobs_option
def phantom(out: Path, knees: int, **options: Any) -> None:
    """Make up a cohort: DICOM series, masks, knees.csv.

    Right and left knees in turn; the first patient comes back for a follow-up visit with less cartilage. With
    --retests, the first so many have a visit "retest": the same anatomy in another place, and nothing lost.
    Without --from-labels the anatomy is parametric and needs no data. Label maps are right knees numbered as pymskt
    does: 1 femoral, 2 medial tibial, 3 lateral tibial, 4 patellar cartilage, 5 femur, 6 tibia, 7 patella, 8 fibula,
    9 lateral, 10 medial meniscus.

    The renderer leg models the tissues of a leg; random-fields divides the tissue around the labels by random fields.
    --voxels scans the anatomy with voxels of another size, at most twice as fine. A cohort has one size: for a mixed
    one, make several and join their tables.

    \b
    knee3d phantom cohort --knees 8 --shape 64,64,48 --seed 1
    knee3d phantom cohort --knees 8 --retests 8
    knee3d phantom cohort --knees 8 --renderer random-fields --voxels 0.36,0.36,0.7
    knee3d phantom cohort --knees 8 --from-labels knee_a.nrrd --from-labels knee_b.nrrd
    knee3d phantom cohort --knees 24 --from-labels knee_a.nrrd --appearance any --flexion 15 --thickness 0.5,1.5
    """
    from knee3d import api

    table = api.make_phantom(out, knees=knees, **options)
    retests = f", {options['retests']} retests" if options["retests"] else ""
    click.echo(f"{knees} knees and a follow-up{retests} in {table}")


@click.command(cls=Command)
@click.argument("path", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@spacing_option
@axes_option
@modality_option
def inspect(path: Path, as_json: bool, **choice: Any) -> None:
    """List what could be read from PATH, and what stands in the way.

    PATH is a folder of DICOM, a zip of it, or a NIfTI, NRRD, MHA or HDF5 file. Descriptions are shown as the scanner
    wrote them; they may name a person. In a terminal each series has a second line with its folder and description;
    into a pipe it is one line. The exit code is 1 if nothing can be read: a broken file may be a slice of any series.

    \b
    knee3d inspect path/to/dicom
    knee3d inspect study.zip --json
    """
    from knee3d import api

    found = api.inspect(path, choice_of(choice))
    if as_json:
        click.echo(found.to_json())
    else:
        _show_findings(found)
    if all(volume.problem for volume in found.volumes):
        files = "" if path.is_file() else "; of volume files, give one"
        raise ValueError(f"nothing in {path} can be read as a volume{files}")
    if found.broken:
        raise ValueError(f"{path} is not read while files in it are broken; replace them, or move them elsewhere")


MOST_BROKEN = 5
"""So many broken files are named."""


def _show_findings(found: "api.Inspection") -> None:
    """Print what an inspection found."""
    from knee3d.report.tables import volume_lines

    for line in volume_lines(found.volumes, one_line=not sys.stdout.isatty()):
        click.echo(line)
    for one in found.volumes:
        if one.problem:
            name = one.path if one.echo is None else f"{one.path}, series {one.name} echo {one.echo}"
            click.echo(add_command_hints(f"{name}: {one.problem}", inspect))
    for reason, number in found.skipped.items():
        click.echo(f"left aside: {count(number, 'file')}, {reason}")
    for problem in found.broken[:MOST_BROKEN]:
        click.echo(add_command_hints(f"broken: {problem}", inspect))
    if len(found.broken) > MOST_BROKEN:
        click.echo(f"broken: {len(found.broken) - MOST_BROKEN} more")


@click.command(cls=Command)
@click.argument("folder", type=FOLDER)
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), default="knees.csv")
def table(folder: Path, out: Path) -> None:
    """Write the table of the knees in FOLDER, to be checked by you.

    Known layouts: a folder for each patient and visit (9001/00 or 9001-baseline) with DICOM or a volume file and its
    mask, nnU-Net (imagesTr, labelsTr), IWOAI 2019 (train_001_V00.im and .seg), BIDS-like (sub-01/ses-02/anat), and flat
    folders. What is not sure is left empty, and what was guessed is said.

    \b
    knee3d table data/raw -o data/raw/knees.csv
    """
    from knee3d import api

    for note in api.make_manifest(folder, out):
        click.echo(note)
    click.echo(f"{out}: please check it before knee3d prepare {out}")


@click.command(cls=Command)
@click.argument("table", type=FILE)
@click.argument("dataset", type=FOLDER)
@click.option(
    "--scheme",
    default="cartilage",
    metavar="NAME|FILE",
    help=f"Classes: {', '.join(SCHEMES)}, or a JSON file of your own, see docs/reference/inputs.md.",
)
@click.option(
    "--labels",
    help="What mask values mean: a name, or a file: JSON, nnU-Net's dataset.json, a label file of ITK-SNAP, FreeSurfer "
    "or 3D Slicer [labels.json beside the table].",
)
@click.option(
    "--split",
    type=Numbers(float, "0.7,0.15,0.15"),
    default=(0.7, 0.15, 0.15),
    help="Shares of patients for train,val,test.",
)
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", help="Of image pixels; networks see 8.")
@choice_options
@seed_option
@jobs_option
def prepare(table: Path, dataset: Path, **options: Any) -> None:
    """Turn the knees of TABLE into PNG slices in three planes.

    TABLE is CSV with the columns case, patient, visit, side (L, R or empty), image (a folder of DICOM, a zip of it, or
    NIfTI, NRRD, MHA, HDF5), mask (labels or a channel for each tissue, on the same grid and in the same forms,
    DICOM-SEG, iMorphics' .mat, or empty), and optionally split. Splits are by patient. Run it again after an
    interruption: finished knees are kept. Run it several times at once, as a Slurm array (sbatch --array=1-20) for
    example, on machines that share a disk: each knee is prepared once.

    \b
    knee3d prepare knees.csv data/oai --scheme compartments --split 0.7,0.15,0.15 --seed 1
    """
    from knee3d import api

    prepared = api.prepare(
        table,
        dataset,
        scheme=options["scheme"],
        labels=options["labels"],
        split=options["split"],
        seed=options["seed"],
        bits=int(options["bits"]),
        options=choice_of(options),
        jobs=options["jobs"],
    )
    click.echo(f"{dataset}: {prepared.split_counts()}")


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@click.argument("case")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="NIfTI, NRRD or MHA.")
@click.option("--mask", is_flag=True, help="The mask in place of the image.")
def restore(dataset: Path, case: str, out: Path, mask: bool) -> None:
    """Turn the slices of one CASE of DATASET back into a volume in mm.

    It lies where the knee lay, in the order of axes and on the side of its source. Image intensities are those of the
    scanner, as finely as PNGs of 8 or 16 bits hold them, and end at the window's limits. Mask values are the classes in
    DATASET/cases.json.

    \b
    knee3d restore data/oai 9001-00 -o knee.nii.gz
    knee3d restore data/oai 9001-00 -o mask.nii.gz --mask
    """
    from knee3d import api

    api.restore_volume(dataset, case, out, mask)
    click.echo(out)


@click.command(cls=Command)
@click.argument("dataset", type=FOLDER)
@click.option("--out", type=FOLDER, default="audit")
def audit(dataset: Path, out: Path) -> None:
    """Check DATASET: counts, outliers, leaks, and a picture of every case with its mask.

    \b
    knee3d audit data/oai --out audit
    """
    from knee3d import api

    found = api.audit_dataset(dataset, out)
    for name, split in found.splits.items():
        click.echo(f"{name:<11} {split.cases} cases of {split.patients} patients")
    for case in found.cases:
        if case.notes:
            click.echo(f"{case.case}: {'; '.join(case.notes)}")
    click.echo(f"{out}/index.html  audit.json  cases.csv  cases/")
    if found.leak:
        raise ValueError(found.leak)
