"""Render a label map as an MR image whose unlabelled tissue is made of random fields, with no model of a leg.

This renderer shares no code and no structure with `image_simulation`, so that networks can be trained on images of one
renderer and measured on images of the other. All scales are in mm, so the same seed gives similar images of similar
knees; nothing depends on the number of threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from knee3d.geometry.axis_resampling import resample_axes
from knee3d.geometry.box import Box, bounding_box
from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import BONE_OF, FEMUR, FIBULA, LATERAL_MENISCUS, MEDIAL_MENISCUS, PATELLA, TIBIA
from knee3d.phantom.random_field import (
    SmoothField,
    field_from_coefficients,
    field_from_samples,
    knot_places_mm,
    random_coefficients,
    random_field,
    refine_coefficients,
)

VALUES = LABEL_NAMES["pymskt"].values
PLATES = {VALUES[plate]: VALUES[bone] for plate, bone in BONE_OF.items() if plate in VALUES}
"""The label of each plate of cartilage, and that of its bone."""
BONES = tuple(VALUES[name] for name in (FEMUR, TIBIA, PATELLA, FIBULA))
MENISCI = tuple(VALUES[name] for name in (LATERAL_MENISCUS, MEDIAL_MENISCUS))

AIR, SKIN, FLUID, SHEET, VESSEL, FIRST_CLUSTER = 11, 12, 13, 14, 15, 16
"""Tissues beyond the labels, in one numbering with them; clusters of unlabelled tissue follow."""
CLUSTERS = {
    "fat": (0.10, 0.38, 0.2, 0.0), "muscle": (0.38, 0.82, 0.6, -0.3), "tendon": (0.04, 0.20, -0.5, 0.3),
    "fluid": (0.80, 1.40, -1.5, 1.2), "synovium": (0.60, 1.15, -1.2, 1.5),
}  # fmt: skip
"""Kind of cluster: the range of its mean in units of cartilage, how much of the tissue it tends to take up, and how
much more near cartilage."""
FIRST_KINDS = ("fat", "fat", "muscle", "muscle", "tendon", "synovium")
"""Kinds of cluster that every knee has."""
WORKING_MM, DEPTH_MM = 0.7, 1.0
"""The distance of the samples of depths, and the standard deviation of the Gaussian that depths are computed with."""
COARSE_MM = 4.0
"""The distance of the samples of the distance to labelled anatomy."""
CLOSING_MM = 40.0
"""Hollows between bones up to twice as wide are within the skin."""
SLAB_VOXELS = 1 << 19
"""Voxels that are rendered at a time."""


@dataclass(frozen=True, eq=False)
class Signal:
    """An image before its noise.

    Attributes:
        volume: float32, arbitrary units, 0 or more.
        noise: The standard deviation of the noise of each of the two channels of the scanner.
    """

    volume: Volume
    noise: float


def simulate_image_from_random_fields(labels: Volume, seed: int, grid: Volume | None = None) -> Volume:
    """Render labels as an MR image with the contrast of DESS.

    Unlabelled tissue is divided into clusters by smooth random fields. Cartilage, fluid and synovium overlap in
    intensity, as they do in real images.

    Args:
        labels: Whole numbers in pymskt numbering, canonical axes. Everything but the femur may be absent.
        seed: The same seed and labels give the same bytes.
        grid: The voxels of the scan, from `axis_grid` of the labels. None keeps the voxels of the labels.

    Returns:
        int16, in arbitrary units, on the grid. Noise is added after the voxels of the scan are formed, as in a scanner;
        its level does not depend on the voxels: a protocol with small voxels is taken to have a longer scan.

    Raises:
        ValueError: A label has no name in pymskt numbering, or there is no femur.

    Example:
        >>> import numpy as np
        >>> labels = np.zeros((24, 20, 20), np.uint8)
        >>> labels[:12, 5:15, 5:15], labels[12, 5:15, 5:15] = 5, 1
        >>> simulate_image_from_random_fields(Volume(labels, np.diag([-1, -1, -1, 1])), seed=1).array.dtype
        dtype('int16')
    """
    signal = render_signal(labels, seed)
    volume = signal.volume if grid is None else resample_axes(signal.volume, grid)
    return add_noise(Signal(volume, signal.noise), seed)


def render_signal(labels: Volume, seed: int) -> Signal:
    """The image of labels before its noise; arguments and errors as in `simulate_image_from_random_fields`."""
    labels = labels.with_array(_checked(labels.array))
    draws = _Draws(seed)
    rng = draws.of("scan")
    level, noise = rng.uniform(250, 1200), rng.uniform(0.02, 0.055)
    image = np.empty(labels.shape, np.float32)
    for rows, values in _slabs(labels, draws):
        image[rows] = values
    for axis, width in enumerate(rng.uniform(0.42, 0.65, 3)):
        _spread(image, np.exp(-1 / (2 * width**2)), axis)
    image *= np.float32(level)
    return Signal(labels.with_array(image), level * noise)


def add_noise(signal: Signal, seed: int) -> Volume:
    """The magnitude of a complex image with independent noise in both channels (Rician), as int16.

    Args:
        signal: The image before its noise.
        seed: The same seed gives the same noise.
    """
    rng = _Draws(seed).of("noise")
    array, sd = signal.volume.array, np.float32(signal.noise)
    image = np.empty(array.shape, np.int16)
    for rows in _row_blocks(array.shape):
        real, imaginary = (sd * rng.standard_normal(array[rows].shape, np.float32) for _ in range(2))
        image[rows] = np.rint(np.minimum(np.hypot(array[rows] + real, imaginary), 32767))
    return signal.volume.with_array(image)


@dataclass(frozen=True)
class _Draws:
    """Random numbers by seed: each part of the image has a generator of its own, which no other part changes."""

    seed: int

    def of(self, part: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *part.encode()])


def _checked(array: np.ndarray) -> np.ndarray:
    """Labels as uint8."""
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {array.dtype}")
    present = np.array([array.min(), array.max()])
    if present[0] >= 0 and present[1] < 256:
        array = array.astype(np.uint8, copy=False)
        present = np.flatnonzero(np.bincount(array.ravel()))
    unknown = sorted(set(present.tolist()) - {0, *VALUES.values()})
    if unknown:
        named = ", ".join(f"{value} {name}" for name, value in VALUES.items())
        raise ValueError(f"label values {unknown[:10]} have no name; named are 0 background, {named}")
    if VALUES[FEMUR] not in present:
        raise ValueError(f"the {FEMUR}, label {VALUES[FEMUR]}, is not in the label map; an image needs it")
    return array


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _spread(image: np.ndarray, neighbour: float, axis: int) -> None:
    """The point spread of the scanner along an axis, in place: each voxel gets some of its two neighbours."""
    ahead = np.moveaxis(image, axis, 0)
    share = np.float32(neighbour / (1 + 2 * neighbour))
    before = ahead[:1].copy()
    for start in range(0, len(ahead), 16):
        block = ahead[start : start + 16].copy()
        after = ahead[start + 16 : start + 17] if start + 16 < len(ahead) else block[-1:]
        padded = np.concatenate([before, block, after])
        before = block[-1:]
        ahead[start : start + 16] = block + share * (padded[:-2] + padded[2:] - 2 * block)


# ---- tissues


@dataclass(frozen=True, eq=False)
class _Tissues:
    """What each tissue looks like, by its number; float32, in units of the mean of cartilage.

    Attributes:
        mean: The mean.
        mixture: The difference between the two components of its mixture, as a share of the mean.
        fine: The amplitude of the fine texture, as a share of the mean.
        coarse: The amplitude of the coarser texture, as a share of the mean.
        trends: (clusters, 4), how much of a cluster there is by depth below the skin, by height, near cartilage, and
            everywhere.
    """

    mean: np.ndarray
    mixture: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    trends: np.ndarray


def _draw_tissues(rng: np.random.Generator) -> _Tissues:
    kinds = [*FIRST_KINDS, *rng.choice(list(CLUSTERS), rng.integers(1, 4))]
    table = np.zeros((FIRST_CLUSTER + len(kinds), 4))
    trends = np.zeros((len(kinds), 4))
    marrow = rng.uniform(0.16, 0.36)
    for plate in PLATES:
        table[plate] = 1 + rng.normal(0, 0.05), rng.uniform(-0.16, 0.16), 0.05, rng.uniform(0.05, 0.14)
    for bone in BONES:
        table[bone] = marrow * rng.uniform(0.88, 1.14), rng.uniform(0.0, 0.3), rng.uniform(0.15, 0.28), 0.12
    for meniscus in MENISCI:
        table[meniscus] = rng.uniform(0.12, 0.26), rng.uniform(-0.1, 0.5), 0.08, 0.1
    table[SKIN] = rng.uniform(0.3, 0.8), 0.1, 0.1, 0.2
    table[FLUID] = rng.uniform(0.66, 1.30), -0.1, 0.02, 0.05
    table[SHEET] = rng.uniform(0.05, 0.25), 0.2, 0.1, 0.1
    table[VESSEL] = rng.choice([rng.uniform(0.05, 0.2), rng.uniform(0.8, 1.4)]), -0.2, 0.1, 0.3
    for number, kind in enumerate(kinds):
        low, high, share, near = CLUSTERS[kind]
        fine, coarse = rng.uniform(0.03, 0.14), rng.uniform(0.05, 0.16)
        table[FIRST_CLUSTER + number] = rng.uniform(low, high), rng.uniform(-0.2, 0.2), fine, coarse
        trends[number] = rng.normal([0, 0, near, share], [0.6, 0.5, 0.3, 0.3])
    columns = table.T.astype(np.float32)
    return _Tissues(columns[0], columns[1], columns[2], columns[3], trends)


# ---- slabs


def _slabs(labels: Volume, draws: _Draws) -> Iterator[tuple[slice, np.ndarray]]:
    """The image in units of cartilage, some rows at a time, before the point spread and the noise."""
    tissues = _draw_tissues(draws.of("tissues"))
    below_skin = _below_skin(labels, draws.of("skin"))
    unlabelled = _Unlabelled(labels, draws, tissues, below_skin)
    coil = _coil(labels, below_skin, draws.of("coil"))
    mixture, fine, coarse = (random_field(labels, scale, draws.of(f"texture {scale}")) for scale in (4.0, 0.8, 2.0))
    bones = _BoneDepth(labels, draws.of("bones"), tissues)
    index, factors = _cartilage(labels, draws.of("cartilage"))
    row_voxels = labels.shape[1] * labels.shape[2]
    for rows in _row_blocks(labels.shape):
        part = labels.array[rows]
        tissue = np.where(part == 0, unlabelled.rows(rows), part)
        component = np.tanh(3 * mixture.rows(rows) - np.float32(1.2))
        values = 1 + tissues.mixture[tissue] * component
        values += tissues.fine[tissue] * fine.rows(rows)
        values += tissues.coarse[tissue] * coarse.rows(rows)
        values *= tissues.mean[tissue]
        bones.apply(values, rows, part, component)
        first, last = np.searchsorted(index, [rows.start * row_voxels, rows.stop * row_voxels])
        values.reshape(-1)[index[first:last] - rows.start * row_voxels] *= factors[first:last]
        values *= coil.rows(rows)
        yield rows, np.maximum(values, 0)


# ---- unlabelled tissue


@dataclass(frozen=True, eq=False)
class _Samples:
    """Values at some voxels.

    Attributes:
        array: (s0, s1, s2) float32.
        spacing_mm: (3,) their distance along each axis.
        origin_mm: (3,) the place of the first one, from the first edge of the image.
    """

    array: np.ndarray
    spacing_mm: np.ndarray
    origin_mm: np.ndarray

    def at_knots(self, grid: Volume, knot_mm: tuple[float, float, float]) -> np.ndarray:
        """Linear interpolation at the knots of a lattice of the image."""
        lengths = grid.spacing_mm * grid.shape
        places = [
            (knot_places_mm(length, knot) - origin) / step
            for length, knot, origin, step in zip(lengths, knot_mm, self.origin_mm, self.spacing_mm, strict=True)
        ]
        where = np.meshgrid(*places, indexing="ij")
        return ndimage.map_coordinates(self.array, where, order=1, mode="nearest", output=np.float32)


def _below_skin(labels: Volume, rng: np.random.Generator) -> _Samples:
    """The distance in mm from a smooth random surface around the anatomy, positive within it."""
    steps = _sample_steps(labels, COARSE_MM)
    inside = labels.array > 0
    for axis, step in enumerate(steps):
        inside = np.logical_or.reduceat(inside, np.arange(0, inside.shape[axis], step), axis=axis)
    spacing = labels.spacing_mm * steps
    pad = np.ceil((CLOSING_MM + 12) / spacing).astype(int)
    inside = np.pad(inside, [(more, more) for more in pad], mode="edge")
    near = ndimage.distance_transform_edt(~inside, sampling=spacing) < CLOSING_MM
    filled = ndimage.distance_transform_edt(near, sampling=spacing) > CLOSING_MM  # a closing
    away = ndimage.gaussian_filter(ndimage.distance_transform_edt(~(filled | inside), sampling=spacing), 6 / spacing)
    away = away[tuple(slice(more, size - more) for more, size in zip(pad, away.shape, strict=True))]
    back = np.arange(away.shape[1]) * spacing[1]
    behind = np.clip(back - np.flatnonzero(inside.any(axis=(0, 2))).mean() * spacing[1] + pad[1] * spacing[1], 0, 60)
    reach = rng.uniform(8, 15) + rng.uniform(0.2, 0.5) * behind[:, None] + np.zeros(away.shape)
    waves = ndimage.gaussian_filter(rng.standard_normal(away.shape), 22 / spacing, mode="nearest")
    reach += rng.uniform(2, 5) * waves / max(float(waves.std()), 1e-6)
    return _Samples((reach - away).astype(np.float32), spacing, spacing / 2)


def _sample_steps(labels: Volume, wanted_mm: float) -> np.ndarray:
    """How many voxels lie between samples, along each axis, so that samples are about that far apart."""
    return np.maximum(1, np.rint(wanted_mm / labels.spacing_mm)).astype(int)


class _Unlabelled:
    """Which tissue lies where there is no label."""

    def __init__(self, labels: Volume, draws: _Draws, tissues: _Tissues, below_skin: _Samples) -> None:
        rng = draws.of("clusters")
        self.skin_mm = np.float32(rng.uniform(1.0, 2.2))
        skin_knots = (6.0, 6.0, 6.0)
        self.below_skin = field_from_coefficients(below_skin.at_knots(labels, skin_knots), skin_knots, labels)
        near_plates = _near_plates(labels, 8.0, COARSE_MM)
        self.clusters = [_cluster(labels, rng, trend, below_skin, near_plates) for trend in tissues.trends]
        self.sheets = random_field(labels, 9.0, rng), random_field(labels, 9.0, rng)
        self.sheet, self.vessel = np.float32(rng.uniform(0.04, 0.09)), np.float32(rng.uniform(0.08, 0.2) ** 2)
        steps = _sample_steps(labels, 2 * WORKING_MM)
        self.near_plates = field_from_samples(_near_plates(labels, 2.0, 2 * WORKING_MM).array, steps.tolist(), labels)
        self.pockets = random_field(labels, 7.0, rng)
        self.film, self.effusion = np.float32(rng.uniform(0.42, 0.6)), np.float32(rng.uniform(1.0, 2.2))

    def rows(self, rows: slice) -> np.ndarray:
        """Numbers of tissues, uint8."""
        best = self.clusters[0].rows(rows)
        tissue = np.full(best.shape, FIRST_CLUSTER, np.uint8)
        for number, cluster in enumerate(self.clusters[1:], start=FIRST_CLUSTER + 1):
            values = cluster.rows(rows)
            tissue[values > best] = number
            np.maximum(best, values, out=best)
        one, other = (field.rows(rows) for field in self.sheets)
        tissue[(np.abs(one) < self.sheet) & (other > 0)] = SHEET
        tissue[one**2 + other**2 < self.vessel] = VESSEL
        near, pockets = self.near_plates.rows(rows), self.pockets.rows(rows)
        film = near + np.float32(0.12) * pockets > self.film
        tissue[film | ((near > 0.04) & (pockets > self.effusion))] = FLUID
        below = self.below_skin.rows(rows)
        tissue[below < self.skin_mm] = SKIN
        tissue[below < 0] = AIR
        return tissue


def _near_plates(labels: Volume, blur_mm: float, sample_mm: float) -> _Samples:
    """The share of cartilage around each place, under a Gaussian with this standard deviation."""
    steps = _sample_steps(labels, sample_mm)
    spacing = labels.spacing_mm * steps
    samples = labels.array[:: steps[0], :: steps[1], :: steps[2]]
    plates = (samples >= min(PLATES)) & (samples <= max(PLATES))
    return _Samples(
        ndimage.gaussian_filter(plates.astype(np.float32), blur_mm / spacing), spacing, labels.spacing_mm / 2
    )


def _cluster(
    labels: Volume, rng: np.random.Generator, trend: np.ndarray, below_skin: _Samples, near_plates: _Samples
) -> SmoothField:
    """The field of a cluster, a sum over three scales; where it is the largest of all, its tissue lies."""
    stretch = rng.uniform(1, 2.5)  # along the leg, as muscles and vessels are
    fine_mm = (4.0, 2.8, 2.8)
    total = (trend[0] * np.clip(below_skin.at_knots(labels, fine_mm) / 20 - 1, -2, 2)).astype(np.float32)
    height = knot_places_mm(float(labels.spacing_mm[0] * labels.shape[0]), fine_mm[0])
    total += (trend[1] * (height / height.max() * 2 - 1) + trend[3]).astype(np.float32)[:, None, None]
    total += np.float32(trend[2]) * np.minimum(near_plates.at_knots(labels, fine_mm) / np.float32(0.08), 1)
    for scale, weight in ((14.0, 1.0), (6.0, rng.uniform(0.15, 0.5))):
        knot_mm = (scale * stretch, scale, scale)
        coefficients = random_coefficients(labels, knot_mm, rng)
        total += np.float32(weight) * refine_coefficients(coefficients, knot_mm, fine_mm, labels)
    total += np.float32(rng.uniform(0.02, 0.12)) * random_coefficients(labels, fine_mm, rng)
    return field_from_coefficients(total, fine_mm, labels)


def _coil(labels: Volume, below_skin: _Samples, rng: np.random.Generator) -> SmoothField:
    """The sensitivity of the coil: smooth, and lower in the depth."""
    knot_mm = (20.0, 20.0, 20.0)
    wide_mm = (60.0, 60.0, 60.0)
    smooth = refine_coefficients(random_coefficients(labels, wide_mm, rng), wide_mm, knot_mm, labels)
    depth = np.clip(below_skin.at_knots(labels, knot_mm) - 20, -20, 60)
    sensitivity = np.exp(rng.uniform(0.04, 0.16) * smooth - rng.uniform(0, 0.008) * depth)
    return field_from_coefficients(sensitivity.astype(np.float32), knot_mm, labels)


# ---- bones


class _BoneDepth:
    """The dark cortical shell of bones, and bright lesions of their marrow."""

    def __init__(self, labels: Volume, rng: np.random.Generator, tissues: _Tissues) -> None:
        steps = _sample_steps(labels, WORKING_MM)
        spacing = labels.spacing_mm * steps
        samples = labels.array[:: steps[0], :: steps[1], :: steps[2]]
        bone = (samples >= min(BONES)) & (samples <= max(BONES))
        self.depth = field_from_samples(_depth_mm(bone, spacing), steps.tolist(), labels)
        lesions = _lesions(samples, bone, spacing, rng)
        self.lesions = None if lesions is None else field_from_samples(lesions, steps.tolist(), labels)
        self.bright = np.float32(rng.uniform(0.3, 0.75))
        self.shell_mm = random_field(labels, 10.0, rng)
        self.mean_mm, self.varying_mm = np.float32(rng.uniform(0.55, 1.1)), np.float32(rng.uniform(0.1, 0.3))
        self.soft_mm = np.float32(max(0.5, float(labels.spacing_mm.mean())))
        self.cortex = np.float32(rng.uniform(0.03, 0.1))
        self.marrow = float(tissues.mean[list(BONES)].mean())

    def apply(self, values: np.ndarray, rows: slice, labels: np.ndarray, component: np.ndarray) -> None:
        """Change the values of bone voxels in some rows, in place."""
        where = (labels >= min(BONES)) & (labels <= max(BONES))
        found = values[where]
        if self.lesions is not None:
            found += self.bright * self.lesions.rows(rows)[where] * (1 + np.float32(0.25) * component[where])
        thickness = self.mean_mm + self.varying_mm * self.shell_mm.rows(rows)[where]
        shell = np.clip((thickness - self.depth.rows(rows)[where]) / self.soft_mm + np.float32(0.5), 0, 1)
        values[where] = found + shell * (self.cortex - found)


def _depth_mm(inside: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The depth in mm below the surface of a tissue, negative outside; within about 2.5 mm of the surface.

    Across a plane surface a mask under a Gaussian is its distribution function, so that its inverse is the depth.
    """
    blurred = ndimage.gaussian_filter(inside.astype(np.float32), DEPTH_MM / spacing_mm, mode="nearest", truncate=3)
    found: np.ndarray = np.float32(DEPTH_MM) * special.ndtri(np.clip(blurred, 0.004, 0.996))
    return found


def _lesions(samples: np.ndarray, bone: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Bright lesions of the marrow near cartilage, 0 to 1; None in two knees of five."""
    number = int(rng.choice([0, 0, 1, 2, 4]))
    below = ndimage.uniform_filter(
        ((samples > 0) & (samples <= max(PLATES))).astype(np.float32), np.ceil(6 / spacing).astype(int)
    )
    places = np.flatnonzero(bone & (below > 0.02))
    if not number or not len(places):
        return None
    found = np.zeros(samples.shape, np.float32)
    for place in rng.choice(places, number):
        centre = np.array(np.unravel_index(place, samples.shape))
        radii = rng.uniform(2.5, 10) * rng.uniform(0.6, 1.4, 3) / spacing
        box = tuple(slice(max(0, int(c - 2 * r)), int(c + 2 * r) + 1) for c, r in zip(centre, radii, strict=True))
        squares = [((np.arange(size)[part] - c) / r) ** 2 for size, part, c, r in
                   zip(samples.shape, box, centre, radii, strict=True)]  # fmt: skip
        away = squares[0][:, None, None] + squares[1][:, None] + squares[2]
        found[box] = np.maximum(found[box], rng.uniform(0.5, 1) * np.exp(-(away**1.5)))
    return found


# ---- cartilage


def _cartilage(labels: Volume, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Factors on the signal of cartilage: layers by depth, and focal changes.

    Returns:
        Index of each voxel of cartilage in the flat image, ascending, and its factor, float32.
    """
    indices, factors = [np.zeros(0, np.intp)], [np.zeros(0, np.float32)]
    layers = np.array([0.70, 0.97, 1.08, 0.93]) + rng.uniform(-0.2, 0.2, 4)
    for plate, bone in PLATES.items():
        inside = labels.array == plate
        box = bounding_box(inside, np.ceil(5 / labels.spacing_mm).astype(int))
        if box is None:
            continue
        index = np.flatnonzero(inside)
        places = np.array(np.unravel_index(index, labels.shape), np.float32)
        depth = _relative_depth(labels, box, places, plate, bone)
        factor = np.interp(depth, np.linspace(0, 1, 4), layers + rng.uniform(-0.05, 0.05, 4)).astype(np.float32)
        factor *= _focal_changes(places * labels.spacing_mm[:, None].astype(np.float32), rng)
        indices.append(index)
        factors.append(factor)
    index, factor = np.concatenate(indices), np.concatenate(factors)
    order = np.argsort(index, kind="stable")
    return index[order], factor[order]


def _relative_depth(labels: Volume, box: Box, places: np.ndarray, plate: int, bone: int) -> np.ndarray:
    """Where voxels lie between bone (0) and the free surface (1) of their plate; `places` are (3, n) indices."""
    steps = _sample_steps(labels, WORKING_MM)
    samples = labels.array[box][:: steps[0], :: steps[1], :: steps[2]]
    where = (places - np.array([[part.start] for part in box])) / steps[:, None]
    depths = [
        ndimage.map_coordinates(_depth_mm(inside, labels.spacing_mm * steps), where, order=1, mode="nearest")
        for inside in (samples == bone, (samples != bone) & (samples != plate))
    ]
    to_bone, to_surface = (np.maximum(0.05, -depth) for depth in depths)
    found: np.ndarray = to_bone / (to_bone + to_surface)
    return found


def _focal_changes(places_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factors of a plate's voxels, (n,) float32: round places of a few mm with more or less signal."""
    factor = np.ones(places_mm.shape[1], np.float32)
    for _ in range(rng.integers(0, 7)):
        centre = places_mm[:, rng.integers(places_mm.shape[1])]
        radius, change = rng.uniform(1.5, 6), rng.uniform(-0.4, 0.4)
        square = ((places_mm - centre[:, None]) ** 2).sum(axis=0) / np.float32(radius**2)
        factor *= 1 + np.float32(change) * np.exp(-(square**2))
    return factor
