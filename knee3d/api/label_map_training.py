"""Train networks from label maps alone: knees are deformed from them and rendered as scans of many kinds.

OUT/cohorts/<protocol>   made-up knees of one scan protocol each
OUT/knees.csv            the table of all of them
OUT/dataset              their slices
OUT/cache                slices with the voxels of the network; may be deleted after the training
OUT/models               the networks and their fusion weights
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knee3d.api.data import make_phantom, prepare
from knee3d.api.knee_model import KneeModel
from knee3d.api.training import train_views
from knee3d.dataset.case_collection import Split
from knee3d.dataset.manifest import ManifestRow, read_manifest, write_manifest

if TYPE_CHECKING:
    from knee3d.training.config import TrainConfig

log = logging.getLogger(__name__)

SCHEME, NUMBERING, SHARED = "knee", "pymskt", "shared"
DEFORM, FLEXION_DEG, THICKNESS, DEFECTS = 1.5, 15.0, (0.4, 1.6), 0.3
"""How knees differ from the label maps, see `make_phantom`."""
FIELD_OF_VIEW_MM = (112.0, 112.0, 96.0)
"""Scans are cut out at this size, so that more knees are seen in the same time."""
SETTINGS = {
    "epochs": 4, "limit_slices": 4500, "batch_size": 4, "learning_rate": 5e-4, "schedule": "cosine", "loss": "dice-ce",
    "augment": "strong", "ema": 0.998, "spacing": "0.55,1.4", "precision": "mixed_bfloat16",
}  # fmt: skip
"""Settings of the training where nothing else is asked for."""


@dataclass(frozen=True)
class Protocol:
    """A scan protocol of the knees that networks learn from.

    Attributes:
        letter: The first letter of the names of its patients.
        voxel_mm: The size of its voxels along inferior, posterior and left.
        share: Its share of the knees.
    """

    letter: str
    voxel_mm: tuple[float, float, float]
    share: float

    @property
    def name(self) -> str:
        """The name of its folder, such as "A-0.5x0.5x3"."""
        return f"{self.letter}-{'x'.join(f'{mm:g}' for mm in self.voxel_mm)}"


PROTOCOLS = (
    Protocol("A", (0.3646, 0.3646, 0.7), 0.3),
    Protocol("B", (0.3646, 0.3646, 1.5), 0.17),
    Protocol("C", (0.5, 0.5, 3.0), 0.17),
    Protocol("D", (0.6, 0.6, 0.8), 0.16),
    Protocol("E", (0.5, 3.0, 0.5), 0.1),
    Protocol("F", (3.0, 0.5, 0.5), 0.1),
)
"""Protocols that networks learn from: 3D ones, and 2D ones with thick slices along each axis."""
VALIDATION = Protocol("V", (0.3646, 0.3646, 0.7), 1.0)
VALIDATION_KNEES = 2


def label_map_settings(**options: Any) -> TrainConfig:
    """The settings of a training from label maps: `SETTINGS`, and others where options say so; None says nothing."""
    from knee3d.training.config import TrainConfig

    return TrainConfig().with_options(**SETTINGS | {name: one for name, one in options.items() if one is not None})


def train_from_labels(
    label_maps: Sequence[Path | str],
    out: Path | str,
    *,
    knees: int = 48,
    config: TrainConfig | None = None,
    seed: int = 0,
    jobs: int | None = None,
    licence: str = "",
) -> KneeModel:
    """Train one network for all three planes from label maps, without any image. Finished steps are not done again.

    Knees are deformed from the label maps and rendered by the renderer "leg" with any appearance, on six scan
    protocols. Validation knees, which choose the fusion weights, come from the same label maps. Scores on them say
    nothing about other people, and nothing about real scans.

    Args:
        label_maps: Label files of right knees, numbered as pymskt does.
        out: The folder that gets cohorts, dataset and models.
        knees: Number of knees to train on, at least 12. Each protocol has one knee more, a follow-up.
        config: Settings of the training. None takes `SETTINGS`.
        seed: Seed of the knees.
        jobs: Knees to make at a time. None takes one for each core.
        licence: Licence of the networks, which is written into their cards.

    Returns:
        The model.

    Raises:
        ValueError: There are too few knees, a label map cannot be used, or the folder holds a training of other
            settings.

    Example:
        >>> train_from_labels(["knee_a.nrrd", "knee_b.nrrd"], "runs/labels")        # doctest: +SKIP
        KneeModel('runs/labels/models', axial + coronal + sagittal, knee: femur, tibia, patella, ...)
    """
    from knee3d.training.config import RunOptions

    out = Path(out)
    table = make_training_knees(label_maps, out, knees=knees, seed=seed, jobs=jobs)
    data = prepare(table, out / "dataset", scheme=SCHEME, labels=NUMBERING, jobs=jobs)
    settings = config or label_map_settings()
    population = f"knees made up from {', '.join(Path(one).name for one in label_maps)}; no real image"
    options = RunOptions(True, False, str(out / "cache"), (), None, licence, population)
    train_views(data.folder, [SHARED], out / "models", settings, options)
    model = KneeModel(out / "models")
    model.fit_fusion(data.val)
    return model


def make_training_knees(
    label_maps: Sequence[Path | str], out: Path, *, knees: int, seed: int = 0, jobs: int | None = None
) -> Path:
    """Make the knees that networks learn from, see `train_from_labels`. Returns the path of their table.

    Raises:
        ValueError: There are too few knees, or no label map.
    """
    fewest = 2 * len(PROTOCOLS)
    if knees < fewest:
        raise ValueError(f"networks learn from {len(PROTOCOLS)} scan protocols; take at least {fewest} knees")
    if not label_maps:
        raise ValueError("there is no label map to make knees from")
    rows: list[ManifestRow] = []
    for number, protocol in enumerate((*PROTOCOLS, VALIDATION)):
        is_validation = protocol is VALIDATION
        count = VALIDATION_KNEES if is_validation else max(1, round(protocol.share * knees))
        log.info("%s: making %d knees", protocol.name, count + 1)
        made = make_phantom(
            out / "cohorts" / protocol.name, knees=count, seed=1000 * seed + number, from_labels=label_maps,
            deform=DEFORM, letter=protocol.letter, voxel_mm=protocol.voxel_mm, appearance="any",
            flexion_deg=FLEXION_DEG, thickness=THICKNESS, defects=DEFECTS, field_of_view_mm=FIELD_OF_VIEW_MM, jobs=jobs,
        )  # fmt: skip
        split = Split.VAL if is_validation else Split.TRAIN
        rows += [replace(knee, split=split) for knee in read_manifest(made)]
    table = out / "knees.csv"
    write_manifest(table, tuple(rows))
    return table
