"""Read and write fusion.json: fusion weights and what they were fitted on."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from knee3d.atomic import whole_file
from knee3d.dataset.case_collection import Case
from knee3d.geometry.view_names import OBLIQUE
from knee3d.postprocess.fusion_fit import Fusion
from knee3d.postprocess.quality import QualityReference
from knee3d.records import VERSION, check_version

log = logging.getLogger(__name__)

FORM = 1
"""Version of the form of a `fusion_path`."""
AS_RECORDED = "reference as recorded"
"""Key of what `load_fusion` returns for what the file itself has, in which no later version of knee3d adds anything."""


def fusion_path(models: Path, oblique: int) -> Path:
    """Where the fusion of planes, or of planes and so many oblique views, is kept."""
    return models / (f"fusion-{OBLIQUE}-{oblique}.json" if oblique else "fusion.json")


def fusion_files(models: Path) -> list[Path]:
    """All that were fitted in a models folder, that of the planes first."""
    numbers = [path.stem.rpartition("-")[2] for path in models.glob(f"fusion-{OBLIQUE}-*.json")]
    wanted = (0, *sorted(int(number) for number in numbers if number.isdecimal()))
    return [path for oblique in wanted if (path := fusion_path(models, oblique)).is_file()]


def save_fusion(
    fusion: Fusion, cases: Sequence[Case], reference: QualityReference, fingerprints: Mapping[str, str], path: Path
) -> None:
    """Write a `fusion_path`.

    It holds how opinions become labels, the networks and cases it was fitted on, its Dice there, and what later knees
    are compared with.
    """
    content = {
        VERSION: FORM,
        "weights": dict(fusion.weights),
        "rule": fusion.rule,
        "thresholds": fusion.thresholds,
        "objective": fusion.objective,
        "dice": {"fused": fusion.dice, "equal weights": fusion.equal, **fusion.alone},
        "intervals": dict(fusion.intervals),
        "fitted_on": {
            "split": " and ".join(sorted({case.split.value for case in cases})),
            "cases": [case.name for case in cases],
        },
        "reference": {key: None if value != value else value for key, value in asdict(reference).items()},
        "networks": dict(fingerprints),
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def load_fusion(path: Path) -> dict[str, Any] | None:
    """What a `fusion_path` holds; None where there is none.

    Raises:
        ValueError: It cannot be read.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        check_version(content, FORM)
        weights = {str(name): np.asarray(weight, dtype=float).tolist() for name, weight in content["weights"].items()}
        thresholds = content["thresholds"] and tuple(map(float, content["thresholds"]))
        texts = {key: str(content[key]) for key in ("rule", "objective")}
        volumes = {name: (float(low), float(high)) for name, (low, high) in content["reference"]["volumes_mm3"].items()}
        borders = {name: float(area) for name, area in content["reference"]["border_mm2"].items()}
        seen = (float("nan") if content["reference"][key] is None else float(content["reference"][key])
                for key in ("inter_view_dice", "predictive_entropy"))  # fmt: skip
        reference = QualityReference(volumes, borders, *seen)
        checked = {"weights": weights, "thresholds": thresholds, "networks": dict(content["networks"])}
        return content | texts | checked | {"reference": reference, AS_RECORDED: content["reference"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable weight file ({error!r}); run knee3d fuse again") from error
