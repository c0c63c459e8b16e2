"""The journey from one knee to numbers."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

from knee3d.anatomy.orientation import Side, axis_codes, from_canonical
from knee3d.dataset.labels import check_form, write_labels
from knee3d.dataset.prepare import canonical_image
from knee3d.dataset.sides import agreed_side
from knee3d.dataset.source import Source, read_image
from knee3d.dataset.table import LABELS_FILE, write_numbering
from knee3d.models import load_models
from knee3d.postprocess.clean import NOTHING, Cleaning, cleaned
from knee3d.postprocess.quality import Look, looked_at, quality

log = logging.getLogger(__name__)


def segment(
    source: Source, models: Path, out: Path, case: str, form: str = "nifti", cleaning: Cleaning = NOTHING
) -> dict[str, float]:
    """One knee -> labels on its own grid, volumes, a picture.

    Args:
        source: The knee.
        models: The networks', with fusion.json.
        out: Gets labels (the input's grid and axes, voxel for voxel), labels.json, volumes.csv, overview.png, and
            quality.json with what looks wrong, see `postprocess.quality`.
        case: What the knee is called in them.
        form: Of the labels, one of `dataset.labels.FORMS`.
        cleaning: What is too small to be kept.

    Returns:
        Tissue name to mm3.

    Raises:
        ValueError: The image cannot be read, its side contradicts what the user says, or the form cannot hold labels.
    """
    from knee3d.quantify.volumes import tissue_volumes
    from knee3d.report.figures import overview_figure
    from knee3d.report.tables import write_json, write_volumes_csv

    check_form(form, source.path)
    trained = load_models(models)
    original, tagged = read_image(source.path, source.choice)
    side = agreed_side(source.side, tagged)
    if side is Side.UNKNOWN:
        log.warning("%s: side unknown, taken as a right knee; give --side if it is a left one", case)
    image, _ = canonical_image(original, side)
    trained.warn_of_other_voxels(image, case)
    looks: dict[str, Look] = {}
    views = looked_at(trained.ensemble.views(image, f"segmenting {case}"), looks)
    labels = trained.ensemble.decided(trained.ensemble.fused(views))
    labels = cleaned(labels, cleaning) if cleaning else labels
    volumes = tissue_volumes(labels, trained.scheme)
    found = quality(labels, [*looks.values()], trained.scheme.names, trained.reference)
    for flag in found.flags:
        log.warning("%s: %s", case, flag)
    back = from_canonical(labels, axis_codes(original.affine), side)
    source = replace(source, side=side)
    write_labels(original.with_array(back.array), trained.scheme, source, form, out, case)
    write_numbering(out / LABELS_FILE, dict(enumerate(trained.scheme.names, start=1)))
    write_json(asdict(found), out / "quality.json")
    write_volumes_csv(out / "volumes.csv", case, trained.scheme, volumes)
    overview_figure(image, labels, trained.scheme, out / "overview.png", case)
    return dict(zip(trained.scheme.names, volumes.tolist(), strict=True))
