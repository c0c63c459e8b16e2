"""Make the report of one segmented knee: measures, maps, meshes, and a page that opens from disk.

report.html         everything at a glance
measures.csv .json  case, tissue, region, measure, unit, value; the JSON has a schema
thickness.nii.gz    mm, on the grid of the labels
meshes/             TISSUE.ply (or stl, vtp) closed surfaces, TISSUE_thickness.vtp with thickness_mm, scene.ply
labels.txt          what labels mean, for ITK-SNAP; labels_lut.txt for FreeSurfer
confusion.pdf       where the truth is known
report.json         what it was made of
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from knee3d import __version__
from knee3d.api.report_record import REPORT_RECORD, ReportConfig, ReportRecord, report_digests, report_origin
from knee3d.api.segmentation_record import REPORT, SegmentationRecord
from knee3d.api.segmented_case import (
    SegmentedCase,
    load_image,
    load_labels,
    load_probabilities,
    probability_maps,
    score_views,
)
from knee3d.atomic import whole_folder
from knee3d.dataset.case_collection import Split
from knee3d.geometry.orientation import Side, axis_codes, from_canonical
from knee3d.geometry.view_names import FUSED
from knee3d.geometry.volume import Volume
from knee3d.io.volume_file import write_volume
from knee3d.labels.label_scheme import LabelScheme
from knee3d.lease import Lease
from knee3d.morphometry.knee_measurements import KneeMeasurements, measure_knee, thickness_map
from knee3d.morphometry.level_set import crop_around_tissue, tissue_level_set
from knee3d.morphometry.mesh import enclosed_volume_mm3, tissue_surface
from knee3d.morphometry.thickness import THICKNESS
from knee3d.morphometry.volumes import tissue_volumes
from knee3d.postprocess.confusion_matrix import OverlapScores
from knee3d.records import Settings
from knee3d.report.quality_record import QUALITY, QualityRecord

if TYPE_CHECKING:
    from knee3d.api.segmentation import Segmentation
    from knee3d.morphometry.mesh import Mesh
    from knee3d.report.page import KneePage

OFF = 0.01
"""A surface whose volume differs more from that of the voxels is said to."""
SEEN_WORDS = {
    Split.TRAIN: "The networks were trained on this patient: scores flatter, and say nothing of other knees.",
    Split.VAL: "The networks were chosen and fused by this patient: scores flatter a little.",
}
SEEN_SHORT = {Split.TRAIN: "trained on this patient", Split.VAL: "chosen by this patient"}
"""Words on a patient whom the networks know, see `SegmentationRecord.patient_seen`."""
PAGE, MEASURES = "report.html", "measures.csv"


def write_case_report(folder: Path, given: SegmentedCase, config: ReportConfig, lease: Lease) -> ReportRecord:
    """Fill FOLDER/report.

    Args:
        folder: The folder of the finished knee.
        given: The files that are known of the knee.
        config: How the report is made.
        lease: Lease on the folder.

    Returns:
        The record that its report.json holds.

    Raises:
        LeaseLostError: Another process has the lease now.
        ValueError: A file of it cannot be read, or does not fit the others.
    """
    image = load_image(given.entry, given.side) if given.entry else None
    labels = load_labels(folder, given, image)
    fused, views = load_probabilities(folder, labels, given.scheme)
    shown = image.shown if image else None
    made = report_content(labels, given.scheme, given.side, shown, fused, views, triangle_share=config.triangle_share)
    quality = _load_quality(folder / QUALITY)
    made = replace(_with_notes(made, quality.limits), scores=score_views(given, image, {**views, FUSED: labels}))
    with whole_folder(folder / REPORT) as partial:
        _write(folder, given, made, config, partial)
        record = ReportRecord(
            knee3d=__version__,
            case=given.record.case,
            side=given.side,
            flags=given.record.flags,
            unchecked=given.record.unchecked,
            notes=made.findings.notes,
            inter_view_dice=quality.inter_view_dice,
            predictive_entropy=quality.predictive_entropy,
            patient_seen=given.record.patient_seen,
            has_scores=made.scores is not None,
            origin=report_origin(folder, given, config),
            files=report_digests(partial),
        )
        record.write(partial / REPORT_RECORD)
        lease.renew()
    return record


@dataclass(frozen=True, eq=False)
class ReportContent:
    """All that is shown and written of a knee.

    Attributes:
        image: uint8 on the grid of the labels; None where it is not at hand.
        labels: Classes of the scheme.
        findings: What was measured.
        overlay: Thickness in mm on the grid of the labels.
        interfaces: Cartilage to its interface with bone, with thickness.
        surfaces: Tissue to its closed surface.
        maps: Name to floats around the tissue.
        scores: View to its confusion matrix; None where the truth is not known.
    """

    image: Volume | None
    labels: Volume
    findings: KneeMeasurements
    overlay: Volume
    interfaces: Mapping[str, Mesh]
    surfaces: Mapping[str, Mesh]
    maps: Mapping[str, Volume]
    scores: Mapping[str, OverlapScores] | None


def report_content(
    labels: Volume,
    scheme: LabelScheme,
    side: Side,
    image: Volume | None,
    fused: Volume | None,
    views: Mapping[str, Volume],
    triangle_share: float = 1.0,
) -> ReportContent:
    """Measure a knee, and make all that its report shows.

    Args:
        labels: (i, j, k) classes of the scheme.
        scheme: The meaning of the labels.
        side: The side of the knee.
        image: (i, j, k) uint8 on the grid of the labels; None where it is not at hand.
        fused: (*part, classes) uint8 probabilities around the tissue; None where there are none.
        views: Name of each view to its own labels.
        triangle_share: Share of the triangles of surfaces that is kept, in (0, 1].
    """
    findings = measure_knee(labels, scheme, side, fused)
    surfaces, notes = _surfaces(labels, scheme, fused, triangle_share)
    findings = replace(findings, notes=(*findings.notes, *notes))
    return ReportContent(
        image,
        labels,
        findings,
        thickness_map(labels, scheme, findings.interfaces),
        {name: interface.mesh() for name, interface in findings.interfaces.items()},
        surfaces,
        probability_maps(labels, fused, views),
        None,
    )


def write_segmentation_page(found: Segmentation, path: Path) -> Path:
    """Write the page of a knee that was just segmented; returns the path.

    Args:
        found: The segmentation.
        path: The HTML file, which appears whole or not at all.

    Raises:
        ValueError: The path has another ending.
    """
    from knee3d.report.page import write_page

    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML page: name a file such as {path.with_suffix('.html')}, not {path}")
    image = found.labels.with_array(
        from_canonical(found.network_image, axis_codes(found.labels.affine), found.side).array
    )
    made = report_content(found.labels, found.scheme, found.side, image, found.probabilities, found.view_labels)
    made = _with_notes(made, found.quality.limits)
    page = _page(found.name, found.side, found.scheme, made, found.picture())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        replace(page, flags=found.quality.flags, unchecked=found.quality.unchecked, made=dict(found.made_by)), path
    )
    return path


def _load_quality(path: Path) -> QualityRecord:
    try:
        return QualityRecord.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); segment the knee again") from error


def _with_notes(made: ReportContent, notes: tuple[str, ...]) -> ReportContent:
    """The same with further notes behind those of the measurements."""
    return replace(made, findings=replace(made.findings, notes=(*made.findings.notes, *notes)))


def _surfaces(
    labels: Volume, scheme: LabelScheme, fused: Volume | None, triangle_share: float
) -> tuple[dict[str, Mesh], list[str]]:
    """Closed surfaces, and what is to be said of those that are not as large as their tissue."""
    found, notes = {}, []
    for number, (name, mm3) in enumerate(zip(scheme.names, tissue_volumes(labels, scheme), strict=True), start=1):
        if not mm3:
            continue
        part, known = crop_around_tissue(labels, number, fused, margin_mm=2.0)
        try:
            found[name] = tissue_surface(tissue_level_set(part, number, known), mm3, triangle_share=triangle_share)
        except ValueError:
            notes.append(f"{name}: {mm3:.1f} mm3 are too little for a surface")
            continue
        off = enclosed_volume_mm3(found[name]) / mm3 - 1
        if abs(off) > OFF:
            notes.append(f"{name}: its surface encloses {off:+.1%} of its volume, as it is thin for its voxels")
    return found, notes


def _write(folder: Path, given: SegmentedCase, made: ReportContent, config: ReportConfig, out: Path) -> None:
    from knee3d.morphometry.mesh_files import write_surfaces
    from knee3d.report.confusion_figure import confusion_figure
    from knee3d.report.label_tables import write_freesurfer_table, write_itksnap_table
    from knee3d.report.measures_files import MEASURES_JSON, measures_record, write_measures_csv
    from knee3d.report.page import write_page

    case = given.record.case
    write_measures_csv(out / MEASURES, {case: made.findings.measures})
    measures_record(case, given.side, given.scheme, made.findings).write(out / MEASURES_JSON)
    write_volume(made.overlay, out / "thickness.nii.gz")
    write_itksnap_table(out / "labels.txt", given.scheme)
    write_freesurfer_table(out / "labels_lut.txt", given.scheme)
    meshes, colours = out / "meshes", {tissue.name: tissue.colour for tissue in given.scheme.tissues}
    for name, surface in made.surfaces.items():
        write_surfaces(meshes / f"{_file_name(name)}.{config.meshes}", {name: surface}, colours)
    for name, surface in made.interfaces.items():
        write_surfaces(meshes / f"{_file_name(name)}_thickness.vtp", {name: surface}, colours, (THICKNESS,))
    if made.surfaces:
        write_surfaces(meshes / "scene.ply", made.surfaces, colours)
    if made.scores:
        confusion_figure(made.scores, out / "confusion.pdf")
    record = given.record
    page = replace(
        _page(case, given.side, given.scheme, made, (folder / "overview.png").read_bytes()),
        scores=None if made.scores is None else {view: _dice(one) for view, one in made.scores.items()},
        confusion=made.scores,
        flags=record.flags,
        unchecked=record.unchecked,
        made=_made(record),
        seen=SEEN_WORDS.get(record.patient_seen, ""),
    )
    write_page(page, out / PAGE)


def _page(case: str, side: Side, scheme: LabelScheme, made: ReportContent, overview: bytes) -> KneePage:
    from knee3d.report.page import KneePage
    from knee3d.report.subregion_picture import subregions_picture

    findings = made.findings
    pictures = {"overview": overview}
    if findings.landmarks is not None:
        pictures["parts of cartilage"] = subregions_picture(findings.interfaces, findings.landmarks)
    return KneePage(
        case=case,
        side=side.value,
        image=made.image,
        labels=made.labels.with_array(made.labels.array.astype(np.uint8, copy=False)),
        scheme=scheme,
        meshes=made.surfaces,
        thickness=made.interfaces,
        maps={**made.maps, **_overlay(made)},
        measures=findings.measures,
        notes=findings.notes,
        pictures=pictures,
    )


def _overlay(made: ReportContent) -> dict[str, Volume]:
    """Thickness as a map of the page: around the tissue only."""
    if not made.findings.interfaces:
        return {}
    thick = made.overlay.with_array((made.overlay.array > 0).astype(np.uint8))
    part, _ = crop_around_tissue(thick, 1, margin_mm=1.0)
    return {"thickness": made.overlay.part(made.overlay.box_of(part))}


def _dice(scores: OverlapScores) -> dict[str, float]:
    found = dict(zip(scores.names, scores.dice.tolist(), strict=True))
    return found | {"foreground": float(scores.foreground_dice)}


def _file_name(tissue: str) -> str:
    return tissue.replace(" ", "_")


def _made(record: SegmentationRecord) -> dict[str, str]:
    """How the labels were made, in words."""
    weights = "  ".join(f"{view} {_weight(weight)}" for view, weight in record.fusion_weights.items())
    voxels, millimetres = " x ".join(map(str, record.shape)), " x ".join(map(str, record.spacing_mm))
    return {
        "knee3d": record.knee3d,
        "networks": "  ".join(f"{view} {one[:12]}" for view, one in record.network_fingerprints.items()),
        "fusion weights": weights,
        "settings": _in_words(record.settings),
        "computed by": record.computed_by,
        "image (SHA-256)": record.image_fingerprint,
        "voxels": f"{voxels} of {millimetres} mm",
        **({"computed whole because": record.computed_whole_because} if record.computed_whole_because else {}),
    }


def _in_words(settings: Settings) -> str:
    """Settings, and those within them in brackets."""
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({_in_words(value)})"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _weight(weight: float | tuple[float, ...]) -> str:
    return f"{weight:.3f}" if isinstance(weight, float | int) else "/".join(f"{one:.3f}" for one in weight)
