"""Write a made-up cohort: DICOM series, masks, knees.csv.

OUT/knees.csv  labels.json  cohort.json
OUT/<case>/dicom/IM0001.dcm ...
OUT/<case>/mask.nii.gz
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from knee3d import choices
from knee3d.atomic import whole_folder
from knee3d.dataset.manifest import ManifestRow, write_manifest
from knee3d.geometry.axis_resampling import axis_grid, resample_axes, resample_labels
from knee3d.geometry.box import bounding_box, box_between
from knee3d.geometry.orientation import Side, mirror_left_right
from knee3d.geometry.volume import Volume
from knee3d.io.dicom.writer import write_series
from knee3d.io.label_names_file import LABELS_FILE, write_label_names
from knee3d.io.volume_file import read_volume, write_volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.phantom.anatomy_variation import flex_knee, vary_cartilage
from knee3d.phantom.deformation import deform_labels, thin_cartilage
from knee3d.phantom.image_simulation import simulate_image
from knee3d.phantom.image_variation import VARIATIONS
from knee3d.phantom.leg import CARTILAGE
from knee3d.phantom.parametric_knee import FIELD_OF_VIEW_MM, parametric_knee
from knee3d.phantom.random_field_simulation import simulate_image_from_random_fields
from knee3d.records import Record
from knee3d.threads import results_as_completed

TABLE_FILE, COHORT_FILE = "knees.csv", "cohort.json"
NUMBERING = "pymskt"
LOSS = 0.1
TILT_DEG = 8.0
RETEST_DEG, RETEST_VOXELS = 3.0, 0.5
"""How far a knee lies otherwise in the grid of a retest, at most, about and along each axis: slices are planned on its
anatomy again. Any further, and the image would end elsewhere, through the parametric knee's cartilage."""
SHAPE = (128, 128, 96)
"""The voxels of the parametric knee along (Inferior, Posterior, Left), where nothing else is asked for."""
SMALLEST_VOXEL_RATIO = 0.5
"""The smallest ratio of a voxel of the scan to a voxel of the anatomy along an axis."""
SMALLEST_FIELD_OF_VIEW_MM = 20.0
"""A smaller scan shows no knee."""
MOST_FLEXION_DEG, MOST_THICKNESS = 20.0, 3.0
"""Beyond these, anatomies are no longer those of knees."""
_BASELINE, _FOLLOW_UP, _RETEST = "baseline", "follow-up", "retest"


@dataclass(frozen=True)
class CohortRecord(Record):
    """What a cohort was made of, as cohort.json keeps it. The attributes are those of `CohortConfig`.

    Attributes:
        knees: The number of patients.
        shape: The number of voxels along (Inferior, Posterior, Left); None where nothing else was asked for.
        seed: The seed of shapes, intensities, positions and noise.
        sources: The names of the files of the label maps, without their folders.
        strength: How far the label maps were deformed.
        retests: The number of patients who were scanned twice.
        letter: The letter before the number of a patient.
        renderer: The name of the renderer of the images, one of `choices.RENDERERS`.
        voxel_mm: The size of the voxels of the scan along (Inferior, Posterior, Left); None keeps those of the anatomy.
        appearance: The contrast of the images, one of `choices.APPEARANCES`.
        flexion_deg: How far knees were bent or straightened, at most.
        thickness: The smallest and the largest factor of the thickness of a plate of cartilage.
        defects: The largest share of a plate that was lost.
        field_of_view_mm: What of each scan was kept along (Inferior, Posterior, Left); None where it is whole.
    """

    knees: int
    shape: tuple[int, int, int] | None
    seed: int
    sources: tuple[str, ...]
    strength: float
    retests: int
    letter: str
    renderer: str = choices.RENDERERS[0]
    voxel_mm: tuple[float, float, float] | None = None
    appearance: str = choices.APPEARANCES[0]
    flexion_deg: float = 0.0
    thickness: tuple[float, float] = (1.0, 1.0)
    defects: float = 0.0
    field_of_view_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class CohortConfig:
    """What to make up.

    Attributes:
        knees: Patients, one knee each, right and left in turn; the first is seen a second time, at follow-up, with
            `LOSS` of its cartilage gone.
        shape: Voxels along (Inferior, Posterior, Left); None keeps a label map's own, and is 128, 128, 96 without one.
        seed: Of shapes, intensities, positions and noise.
        sources: Label maps in pymskt numbering to deform, right knees; empty takes the parametric knee.
        strength: How far label maps are deformed, see `deform_labels`; 0 keeps them, and their place, as they are.
        retests: The first so many patients come back at once, with nothing lost, for another scan in another place:
            the grid cuts their anatomy otherwise.
        letter: Before the number of a patient: cohorts of different people need different ones.
        renderer: The name of the renderer that makes images from labels, a key of `RENDERERS`.
        voxel_mm: The scan protocol: the size of its voxels along (Inferior, Posterior, Left), see `scan_anatomy`. None
            scans with the voxels of the anatomy. All knees of a cohort have the same protocol.
        appearance: "dess": images have the contrast of DESS. "any": the intensity of each tissue is drawn by itself,
            see `simulate_image`; for the renderer "leg".
        flexion_deg: Knees are bent or straightened by up to this much, see `flex_knee`.
        thickness: Smallest and largest factor of the thickness of a plate of cartilage, see `vary_cartilage`.
        defects: Largest share of a plate that is lost in places, see `vary_cartilage`.
        field_of_view_mm: The size of scans along (Inferior, Posterior, Left), see `cut_out_scan`; None keeps all of it.

    Raises:
        ValueError: There is no knee, the shape is too small to be one, there are more retests than knees, there is no
            such renderer or appearance, or voxels, flexion, thickness or defects are not possible.
    """

    knees: int
    shape: tuple[int, int, int] | None = None
    seed: int = 0
    sources: tuple[Path, ...] = ()
    strength: float = 1.0
    retests: int = 0
    letter: str = "P"
    renderer: str = choices.RENDERERS[0]
    voxel_mm: tuple[float, float, float] | None = None
    appearance: str = choices.APPEARANCES[0]
    flexion_deg: float = 0.0
    thickness: tuple[float, float] = (1.0, 1.0)
    defects: float = 0.0
    field_of_view_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.knees < 1 or (self.shape and min(self.shape) < 16) or self.strength < 0:
            raise ValueError(
                f"a cohort needs a knee or more, of 16 voxels or more each way, strength 0 or more: {self}"
            )
        if not math.isfinite(self.strength):
            raise ValueError(f"the strength of a deformation is a finite number, not {self.strength}")
        if not re.fullmatch("[A-Za-z]{1,8}", self.letter):
            raise ValueError(f"the letter of a cohort is one to eight of A to Z, not {self.letter!r}")
        if self.shape is not None and len(self.shape) != 3:
            raise ValueError(f"a shape is three numbers of voxels, not {self.shape}")
        if not 0 <= self.retests <= self.knees:
            raise ValueError(f"a cohort of {self.knees} knees has 0 to {self.knees} retests, not {self.retests}")
        choices.check_choice("renderer", self.renderer, choices.RENDERERS)
        choices.check_choice("appearance", self.appearance, choices.APPEARANCES)
        if (self.renderer, self.appearance) == ("random-fields", "any"):
            raise ValueError("the renderer random-fields has the contrast of DESS only; take leg for any appearance")
        self._check_protocol()
        self._check_anatomy()
        self._check_field_of_view()

    def _check_anatomy(self) -> None:
        if not 0 <= self.flexion_deg <= MOST_FLEXION_DEG:
            raise ValueError(f"knees are bent by 0 to {MOST_FLEXION_DEG:g} degrees, not by {self.flexion_deg}")
        if len(self.thickness) != 2 or not 0 < self.thickness[0] <= self.thickness[1] <= MOST_THICKNESS:
            raise ValueError(
                f"factors of thickness are two numbers of more than 0 and at most {MOST_THICKNESS:g}, the smaller "
                f"first, not {self.thickness}"
            )
        if not 0 <= self.defects < 1:
            raise ValueError(f"the share of cartilage that is lost is 0 or more and less than 1, not {self.defects}")

    def _check_field_of_view(self) -> None:
        view = self.field_of_view_mm
        if view is not None and (len(view) != 3 or not all(SMALLEST_FIELD_OF_VIEW_MM <= one < np.inf for one in view)):
            raise ValueError(f"a field of view has three sizes of {SMALLEST_FIELD_OF_VIEW_MM:g} mm or more, not {view}")

    def _check_protocol(self) -> None:
        if self.voxel_mm is None:
            return
        if len(self.voxel_mm) != 3 or not all(0 < size < np.inf for size in self.voxel_mm):
            raise ValueError(f"voxels of a scan have three sizes in mm of more than 0, not {self.voxel_mm}")
        if self.shape is not None and not self.sources:
            _check_voxels(self.voxel_mm, np.divide(FIELD_OF_VIEW_MM, self.shape))

    @property
    def visits(self) -> list[tuple[int, str]]:
        """Patients, counted from 0, and what they come for."""
        return [
            *((index, _BASELINE) for index in range(self.knees)),
            (0, _FOLLOW_UP),
            *((index, _RETEST) for index in range(self.retests)),
        ]

    @property
    def record(self) -> CohortRecord:
        """What cohort.json holds of it."""
        sources = tuple(path.name for path in self.sources)
        shape = None if self.shape is None else (self.shape[0], self.shape[1], self.shape[2])
        voxel_mm = None if self.voxel_mm is None else (self.voxel_mm[0], self.voxel_mm[1], self.voxel_mm[2])
        view = self.field_of_view_mm
        field_of_view = None if view is None else (view[0], view[1], view[2])
        return CohortRecord(
            self.knees, shape, self.seed, sources, self.strength, self.retests, self.letter, self.renderer, voxel_mm,
            self.appearance, self.flexion_deg, (self.thickness[0], self.thickness[1]), self.defects, field_of_view,
        )  # fmt: skip


def write_cohort(cohort: CohortConfig, folder: Path, jobs: int) -> Iterator[ManifestRow]:
    """Write a cohort; the same cohort gives the same bytes.

    Args:
        cohort: What.
        folder: Where. A finished cohort of the same description is left alone.
        jobs: Knees at a time.

    Yields:
        The knees as they are finished.

    Raises:
        ValueError: The folder holds another cohort, or a label map cannot be used.
    """
    visits = cohort.visits
    record, table = folder / COHORT_FILE, folder / TABLE_FILE
    if record.exists() and _read_record(record) != cohort.record:
        raise ValueError(f"{folder} holds another cohort; choose another folder or remove it")
    if table.exists() and record.exists():
        yield from (_knee(cohort, folder, *visit) for visit in visits)
        return
    folder.mkdir(parents=True, exist_ok=True)
    cohort.record.write(record)
    for future in results_as_completed(lambda visit: _write_knee(cohort, folder, *visit), visits, jobs):
        yield future.result()
    write_label_names(folder / LABELS_FILE, LABEL_NAMES[NUMBERING].names)
    write_manifest(table, tuple(_knee(cohort, folder, *visit) for visit in visits))


def _read_record(path: Path) -> CohortRecord | None:
    """What a cohort.json holds; None where it cannot be read."""
    try:
        return CohortRecord.from_json(path.read_bytes())
    except ValueError:
        return None


def _knee(cohort: CohortConfig, folder: Path, index: int, visit: str) -> ManifestRow:
    patient = f"{cohort.letter}{index + 1:03d}"
    name = f"{patient}-{visit}"
    side = Side.LEFT if index % 2 else Side.RIGHT
    return ManifestRow(name, patient, visit, side, folder / name / "dicom", folder / name / "mask.nii.gz")


def _write_knee(cohort: CohortConfig, folder: Path, index: int, visit: str) -> ManifestRow:
    """One visit: the same anatomy for all visits of a patient, another scan each time."""
    knee = _knee(cohort, folder, index, visit)
    shape_seed, scan_seed = (
        int(np.random.default_rng([cohort.seed, index, *key]).integers(2**31)) for key in ((0,), (1, len(visit)))
    )
    try:
        labels = _anatomy(cohort, index, shape_seed)
        if visit == _FOLLOW_UP:
            labels = thin_cartilage(labels, LOSS)
        if visit == _RETEST:
            labels = _cut_otherwise(labels, scan_seed)
        image, labels = scan_anatomy(labels, scan_seed, cohort.renderer, cohort.voxel_mm, cohort.appearance)
        if cohort.field_of_view_mm is not None:
            image, labels = cut_out_scan(image, labels, cohort.field_of_view_mm, scan_seed)
    except ValueError as error:
        raise ValueError(f"{_source(cohort, index) or 'the parametric knee'}: {error}") from error
    affine = labels.affine if cohort.sources and cohort.strength == 0 else _tilted(labels.affine, scan_seed)
    placed = [Volume(volume.array, affine) for volume in (image, labels)]
    image, labels = [mirror_left_right(volume) for volume in placed] if knee.side is Side.LEFT else placed
    with whole_folder(folder / knee.case) as partial:
        write_series(
            image,
            partial / "dicom",
            knee.side,
            patient=knee.patient,
            description=f"phantom DESS {visit}",
            seed=scan_seed,
        )
        write_volume(labels, partial / "mask.nii.gz")
    return knee


def _leg_image(labels: Volume, seed: int, grid: Volume, appearance: str) -> Volume:
    """An image of the first renderer: its finished image, noise included, is averaged over the voxels of the scan."""
    return resample_axes(simulate_image(labels, seed, VARIATIONS[appearance]), grid)


def _random_field_image(labels: Volume, seed: int, grid: Volume, appearance: str) -> Volume:
    """An image of the second renderer, whose appearance is that of DESS."""
    return simulate_image_from_random_fields(labels, seed, grid)


RENDERERS: Mapping[str, Callable[[Volume, int, Volume, str], Volume]] = MappingProxyType(
    {"leg": _leg_image, "random-fields": _random_field_image}
)
"""What makes an image on a grid from labels, a seed and an appearance, by the name of the renderer. "leg" is
`image_simulation`, "random-fields" is `random_field_simulation`."""


def scan_anatomy(
    labels: Volume,
    seed: int,
    renderer: str = choices.RENDERERS[0],
    voxel_mm: tuple[float, float, float] | None = None,
    appearance: str = choices.APPEARANCES[0],
) -> tuple[Volume, Volume]:
    """Render an anatomy and scan it with voxels of another size.

    The image is rendered on the grid of the anatomy. A voxel of the scan is the mean of what lies in it, and its label
    is the one with most of it. The renderer "random-fields" adds noise after that, as a scanner does. The renderer
    "leg" adds noise before, so that larger voxels have less noise.

    Args:
        labels: The anatomy, canonical axes.
        seed: The seed of intensities and noise.
        renderer: A key of `RENDERERS`.
        voxel_mm: The size of the voxels of the scan along (Inferior, Posterior, Left). None keeps those of the anatomy.
        appearance: One of `choices.APPEARANCES`.

    Returns:
        The image, int16, and its labels, on the same grid.

    Raises:
        ValueError: A voxel of the scan is shorter than half a voxel of the anatomy, or the labels cannot be rendered.
    """
    if voxel_mm is not None:
        _check_voxels(voxel_mm, labels.spacing_mm)
    grid = labels if voxel_mm is None else axis_grid(labels, voxel_mm)
    return RENDERERS[renderer](labels, seed, grid, appearance), resample_labels(labels, grid)


def cut_out_scan(
    image: Volume, labels: Volume, field_of_view_mm: tuple[float, float, float], seed: int
) -> tuple[Volume, Volume]:
    """Cut a part of some size out of a scan, at a random place that holds all cartilage where this is possible.

    Args:
        image: The image.
        labels: Its labels in pymskt numbering, on the same grid.
        field_of_view_mm: The size of the part along the axes; along an axis that is shorter, everything is kept.
        seed: The seed of the place.

    Returns:
        The part of the image, and that of the labels.

    Raises:
        ValueError: There is no cartilage.
    """
    box = bounding_box(np.isin(labels.array, CARTILAGE))
    if box is None:
        raise ValueError("there is no cartilage in the label map (1 to 4), around which a part is cut out")
    size = np.minimum(np.rint(field_of_view_mm / labels.spacing_mm).astype(int), labels.shape)
    first, last = (np.array(one) for one in zip(*((side.start, side.stop) for side in box), strict=True))
    lowest, highest = np.minimum(last - size, first), np.maximum(last - size, first)
    start = np.random.default_rng([seed, 2]).integers(lowest, highest + 1).clip(0, labels.shape - size)
    part = box_between(start, start + size)
    return image.part(part), labels.part(part)


def _check_voxels(voxel_mm: tuple[float, float, float], anatomy_mm: np.ndarray) -> None:
    if (np.divide(voxel_mm, anatomy_mm) < SMALLEST_VOXEL_RATIO - 1e-6).any():
        wanted, own = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in (voxel_mm, anatomy_mm))
        raise ValueError(
            f"voxels of {wanted} mm are asked for, and the anatomy has voxels of {own} mm, more than twice as long; "
            "ask for larger voxels, or for an anatomy with a larger shape"
        )


def _source(cohort: CohortConfig, index: int) -> Path | None:
    return cohort.sources[index % len(cohort.sources)] if cohort.sources else None


def _anatomy(cohort: CohortConfig, index: int, seed: int) -> Volume:
    source = _source(cohort, index)
    if source is None:
        labels = parametric_knee(cohort.shape or parametric_shape(cohort.voxel_mm), seed)
    else:
        labels = deform_labels(read_volume(source), seed, cohort.strength, cohort.shape)
    if cohort.flexion_deg:
        most = cohort.flexion_deg
        labels = flex_knee(labels, float(np.random.default_rng([seed, 1]).uniform(-most, most)))
    if cohort.thickness != (1, 1) or cohort.defects:
        labels = vary_cartilage(labels, seed, cohort.thickness, cohort.defects)
    return labels


def parametric_shape(voxel_mm: tuple[float, float, float] | None) -> tuple[int, int, int]:
    """The voxels of the parametric knee where no shape is asked for: `SHAPE`, or as fine as the scan where finer."""
    if voxel_mm is None:
        return SHAPE
    down, back, left = (
        max(count, int(np.ceil(length / size - 1e-6)))
        for count, length, size in zip(SHAPE, FIELD_OF_VIEW_MM, voxel_mm, strict=True)
    )
    return down, back, left


def _cut_otherwise(labels: Volume, seed: int) -> Volume:
    """The same anatomy at the same place, on a grid that lies otherwise in it, see `RETEST_DEG`.

    Voxels have the label that is nearest, which takes nothing away: were labels interpolated, a plate one or two voxels
    thick would lose some percent. What lies outside the first grid repeats its edge: shafts go on.
    """
    rng = np.random.default_rng([seed, 1])
    middle = labels.affine @ [*((np.array(labels.shape) - 1) / 2), 1]
    move = _turn(rng.uniform(-RETEST_DEG, RETEST_DEG, 3))
    off = labels.affine[:3, :3] @ rng.uniform(-RETEST_VOXELS, RETEST_VOXELS, 3)
    move[:3, 3] = middle[:3] - move[:3, :3] @ middle[:3] + off
    grid = move @ labels.affine
    steps = np.linalg.solve(labels.affine, grid)
    array = ndimage.affine_transform(labels.array, steps[:3, :3], steps[:3, 3], order=0, mode="nearest")
    return Volume(array, grid)


def _tilted(affine: np.ndarray, seed: int) -> np.ndarray:
    """The same grid as another session would place it: turned by some degrees and moved by some centimetres."""
    rng = np.random.default_rng(seed)
    turned = _turn(rng.uniform(-TILT_DEG, TILT_DEG, 3)) @ affine
    turned[:3, 3] += rng.uniform(-30, 30, 3)
    return turned


def _turn(degrees: np.ndarray) -> np.ndarray:
    """(4, 4) rotation about the axes of the scanner, one after the other; about the second the other way round."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees * [1, -1, 1], degrees=True).as_matrix()
    return turn
