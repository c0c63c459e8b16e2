"""The journey from one knee to numbers."""

import logging
from dataclasses import dataclass
from pathlib import Path

from knee3d.anatomy.orientation import Side, axis_codes, from_canonical
from knee3d.dataset.prepare import canonical_image
from knee3d.dataset.sides import agreed_side
from knee3d.dataset.source import ANY, Choice, read_image
from knee3d.dataset.table import LABELS_FILE, write_numbering
from knee3d.dataset.volumefile import write_volume
from knee3d.models import load_models
from knee3d.postprocess.blend import blend
from knee3d.postprocess.decide import decide

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """An image that came in from outside.

    Attributes:
        path: A folder of DICOM, or a volume file.
        side: As the user says; unknown takes DICOM's word.
        choice: What the path alone does not say.
    """

    path: Path
    side: Side = Side.UNKNOWN
    choice: Choice = ANY


def segment(source: Source, models: Path, out: Path, case: str, ending: str = "nii.gz") -> dict[str, float]:
    """One knee -> labels on its own grid, volumes, a picture.

    Args:
        source: The knee.
        models: The networks', with fusion.json.
        out: Gets labels.<ending> (the input's grid and axes, voxel for voxel), labels.json, volumes.csv, overview.png.
        case: What the knee is called in them.
        ending: nii.gz, nrrd or mha.

    Returns:
        Tissue name to mm3.

    Raises:
        ValueError: The image cannot be read, or its side contradicts what the user says.
    """
    from knee3d.quantify.volumes import tissue_volumes
    from knee3d.report.figures import overview_figure
    from knee3d.report.tables import write_volumes_csv

    trained = load_models(models)
    original, tagged = read_image(source.path, source.choice)
    side = agreed_side(source.side, tagged)
    if side is Side.UNKNOWN:
        log.warning("%s: side unknown, taken as a right knee; give --side if it is a left one", case)
    image, _ = canonical_image(original, side)
    trained.warn_of_other_voxels(image, case)
    labels = decide(blend(trained.ensemble.views(image, f"segmenting {case}"), trained.ensemble.weights))
    volumes = tissue_volumes(labels, trained.scheme)
    back = from_canonical(labels, axis_codes(original.affine), side)
    write_volume(original.with_array(back.array), out / f"labels.{ending}")
    write_numbering(out / LABELS_FILE, dict(enumerate(trained.scheme.names, start=1)))
    write_volumes_csv(out / "volumes.csv", case, trained.scheme, volumes)
    overview_figure(image, labels, trained.scheme, out / "overview.png", case)
    return dict(zip(trained.scheme.names, volumes.tolist(), strict=True))
