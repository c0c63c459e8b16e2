"""Knees for benchmarks: rendered from the real label maps of ../shared, deformed for each patient, and made up.

Where ../shared is not there, made-up knees alone serve.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from knee3d.api.data import prepare_dataset, write_phantom
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import read_manifest, write_manifest
from knee3d.dataset.preparation import PrepareConfig
from knee3d.geometry.orientation import to_canonical
from knee3d.io.label_names_file import LABELS_FILE
from knee3d.io.volume_file import read_volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.phantom.cohort import CohortConfig
from knee3d.phantom.parametric_knee import parametric_knee

REAL = Path(__file__).parents[2] / "shared" / "data" / "labels"
SCHEME = "compartments"
Shape = tuple[int, int, int]
"""Voxels along Inferior, Posterior, Left; the field of view stays, so that spacing changes with it."""


def make_dataset(folder: Path, shape: Shape, real: int, made_up: int, shares: tuple[float, float, float]) -> Path:
    """Both kinds of knee in one dataset, split by patient at random; the same patients at any shape.

    Args:
        folder: Gets cohorts and the dataset.
        shape: Of the knees.
        real: Knees deformed from the real label maps,
        made_up: and from the parametric one, which also stands in where there are no label maps.
        shares: Of training, validation and test patients.
    """
    sources = _sources()
    cohorts = {"real": CohortConfig(real, shape, 1, sources)} if sources else {}
    cohorts["made-up"] = CohortConfig(made_up if sources else real + made_up, shape, 2)
    return _prepared(folder, cohorts, {}, shares)


def make_apart(folder: Path, shape: Shape, counts: Mapping[Split, tuple[int, int]]) -> Path:
    """A dataset whose test knees are deformed from a label map of their own; made-up ones are from other seeds.

    Args:
        folder: Gets cohorts and the dataset.
        shape: Of the knees from label maps; the same patients at any shape. Made-up ones, which show less around the
            joint, have as many voxels as makes these as large.
        counts: For each split, patients deformed from a real label map, and made-up ones; of each the first comes
            twice.

    Raises:
        ValueError: There is one label map only, so that test knees would share their anatomy with the others.
    """
    sources, cohorts, splits = _sources(), {}, {}
    if len(sources) == 1:
        raise ValueError(f"{REAL} has one label map; test knees need one of their own")
    for seed, (split, (real, made_up)) in enumerate(counts.items()):
        mine = sources[-1:] if split is Split.TEST else sources[:1]
        if mine:
            cohorts[f"{split.value}-real"] = CohortConfig(real, shape, 10 + seed, mine)
        smaller = _as_fine(shape, mine[0]) if mine else shape
        cohorts[f"{split.value}-made-up"] = CohortConfig(made_up if mine else real + made_up, smaller, 20 + seed)
        splits |= dict.fromkeys((f"{split.value}-real", f"{split.value}-made-up"), split)
    return _prepared(folder, cohorts, splits, (0.7, 0.15, 0.15))


def _as_fine(shape: Shape, source: Path) -> Shape:
    """The shape of a made-up knee whose voxels are as large as those of a label map's knee of another shape."""
    theirs, ours = to_canonical(read_volume(source)), parametric_knee((64, 64, 48), 0)
    share = (ours.spacing_mm * ours.shape) / (theirs.spacing_mm * theirs.shape)
    first, second, third = np.maximum(np.rint(shape * share), 16).astype(int).tolist()
    return first, second, third


def _sources() -> tuple[Path, ...]:
    return tuple(sorted(REAL.glob("*.nrrd"))) if REAL.is_dir() else ()


def _prepared(
    folder: Path, cohorts: Mapping[str, CohortConfig], splits: Mapping[str, Split], shares: tuple[float, float, float]
) -> Path:
    knees = []
    for kind, cohort in cohorts.items():
        table = write_phantom(cohort, folder / kind, 2)
        knees += [
            replace(knee, case=f"{kind}-{knee.case}", patient=f"{kind}-{knee.patient}", split=splits.get(kind))
            for knee in read_manifest(table)
        ]
        shutil.copy(table.with_name(LABELS_FILE), folder)
    write_manifest(folder / "knees.csv", tuple(knees))
    prepare_dataset(folder / "knees.csv", folder / "dataset", PrepareConfig(SCHEMES[SCHEME], None, shares, 0), None, 2)
    return folder / "dataset"
