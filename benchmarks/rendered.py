"""Knees for benchmarks: rendered from the real label maps of ../shared, deformed for each patient, and made up.

Where ../shared is not there, made-up knees alone serve.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from knee3d import workflow
from knee3d.anatomy.tissue import SCHEMES
from knee3d.dataset.phantom.cohort import Cohort
from knee3d.dataset.prepare import Preparation
from knee3d.dataset.table import LABELS_FILE, read_table, write_table

REAL = Path(__file__).parents[2] / "shared" / "data" / "labels"
SCHEME = "compartments"


def make_dataset(
    folder: Path, shape: tuple[int, int, int], real: int, made_up: int, shares: tuple[float, float, float]
) -> Path:
    """Both kinds of knee in one dataset, split by patient; the same patients at any shape.

    Args:
        folder: Gets cohorts and the dataset.
        shape: Voxels along Inferior, Posterior, Left; the field of view stays, so that spacing changes with it.
        real: Knees deformed from the real label maps,
        made_up: and from the parametric one, which also stands in where there are no label maps.
        shares: Of training, validation and test patients.
    """
    sources = tuple(sorted(REAL.glob("*.nrrd"))) if REAL.is_dir() else ()
    kinds = {"real": Cohort(real, shape, 1, sources)} if sources else {}
    kinds["made-up"] = Cohort(made_up if sources else real + made_up, shape, 2)
    knees = []
    for kind, cohort in kinds.items():
        table = workflow.phantom(cohort, folder / kind, 2)
        knees += [
            replace(knee, case=f"{kind}-{knee.case}", patient=f"{kind}-{knee.patient}") for knee in read_table(table)
        ]
        shutil.copy(table.with_name(LABELS_FILE), folder)
    write_table(folder / "knees.csv", tuple(knees))
    workflow.prepare(folder / "knees.csv", folder / "dataset", Preparation(SCHEMES[SCHEME], None, shares, 0), None, 2)
    return folder / "dataset"
