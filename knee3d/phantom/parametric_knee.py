"""A parametric right knee: bones from smooth solids, cartilage as layers of known thickness.

Every bone is a signed distance field in millimetres, first-order on its ellipsoids, so that a layer of cartilage is
where the distance to its bone lies between 0 and the layer's thickness, within the articular part of the surface.
Sizes are those of an adult knee, rounded.
"""

import numpy as np

from knee3d.geometry.volume import Volume
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import (
    FEMORAL,
    FEMUR,
    FIBULA,
    LATERAL_MENISCUS,
    LATERAL_TIBIAL,
    MEDIAL_MENISCUS,
    MEDIAL_TIBIAL,
    PATELLA,
    PATELLAR,
    TIBIA,
)

FIELD_OF_VIEW_MM = (88.0, 108.0, 84.0)
FEMORAL_MM, TIBIAL_MM, PATELLAR_MM = 2.3, 2.4, 3.0
_SAMPLE_MM = 0.7
_SIZE, _PART, _ROTATION_DEG = 0.05, 0.04, 6.0
_VALUE = LABEL_NAMES["pymskt"].values
# Drawn from the top: where two layers would meet, the earlier one stays.
_ORDER = (
    FEMUR,
    TIBIA,
    PATELLA,
    FIBULA,
    FEMORAL,
    MEDIAL_TIBIAL,
    LATERAL_TIBIAL,
    PATELLAR,
    MEDIAL_MENISCUS,
    LATERAL_MENISCUS,
)
# Side on the Left axis: medial is to the left in a right knee.
_MEDIAL, _LATERAL = 1, -1


def parametric_knee(
    shape: tuple[int, int, int],
    seed: int,
    thickness: float = 1.0,
    field_of_view_mm: tuple[float, float, float] = FIELD_OF_VIEW_MM,
) -> Volume:
    """Labels of a made-up right knee.

    Args:
        shape: Voxels along (Inferior, Posterior, Left).
        seed: Of the person: size, proportions, position. The same seed with another `thickness` has the same bones.
        thickness: Factor on the thickness of every plate of cartilage, FEMORAL_MM, TIBIAL_MM and PATELLAR_MM.
        field_of_view_mm: Extent of the grid along its axes; a smaller one shows less of the leg.

    Returns:
        uint8 labels in pymskt numbering, canonical axes, the middle of the grid at 0 mm. A voxel has the label that
        most of its samples have, which lie at most 0.7 mm apart.
    """
    spacing = np.divide(field_of_view_mm, shape)
    fine = np.ceil(spacing / _SAMPLE_MM).astype(int)
    labels = np.empty(shape, dtype=np.uint8)
    rows = max(1, int(3e6 // np.prod([shape[1], shape[2], *fine])))
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        places = [(np.arange(n * f) + 0.5) / f * mm - n * mm / 2 for n, f, mm in zip(shape, fine, spacing, strict=True)]
        places[0] = places[0][start * fine[0] : stop * fine[0]]
        samples = _labels_at(
            list(np.meshgrid(*[axis.astype(np.float32) for axis in places], indexing="ij")), seed, thickness
        )
        labels[start:stop] = _majority(samples, fine)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = -spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[3, 3] = 1
    return Volume(labels, affine)


def _labels_at(places: list[np.ndarray], seed: int, thickness: float) -> np.ndarray:
    """Label at each of `places`, three arrays of mm along the axes."""
    rng = np.random.default_rng(seed)
    size = 1 + _SIZE * rng.uniform(-1, 1)
    x = _placed(places, rng, size)
    bones = _bones(x, rng)
    layers = _layers(x, bones, rng, thickness / size)
    inside = {name: field < 0 for name, field in bones.items()} | layers
    labels = np.zeros(x[0].shape, dtype=np.uint8)
    for name in _ORDER:
        labels[inside[name] & (labels == 0)] = _VALUE[name]
    return labels


def _placed(places: list[np.ndarray], rng: np.random.Generator, size: float) -> list[np.ndarray]:
    """Coordinates of a standard knee whose joint line is at 0: turned, moved, and scaled by the person's size."""
    offsets = (np.array([4, 8, 0]) + rng.uniform(-3, 3, 3)).tolist()  # plain floats, or NumPy computes in float64
    moved = [place - offset for place, offset in zip(places, offsets, strict=True)]
    for axis, angle in enumerate(np.radians(_ROTATION_DEG) * rng.uniform(-1, 1, 3)):
        i, j = [other for other in range(3) if other != axis]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        moved[i], moved[j] = cos * moved[i] - sin * moved[j], sin * moved[i] + cos * moved[j]
    return [axis / np.float32(size) for axis in moved]


def _bones(x: list[np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Signed distance to each bone, negative inside."""

    def part(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        return _ellipsoid(x, centre, np.array(radii) * (1 + _PART * rng.uniform(-1, 1, 3)))

    femur = part((-60, 0, 0), (48, 15, 16))
    for solid in (
        part((-34, 2, 2), (22, 20, 31)),
        part((-25, 9, 21), (22, 27, 13)),
        part((-25, 8, -21), (22, 26, 14)),
        part((-32, -15, 15), (20, 15, 13)),
        part((-34, -17, -15), (22, 16, 14)),
    ):
        femur = _union(femur, solid, 5)
    femur = np.minimum(femur, _shaft(x, -45, 14, up=True))
    tibia = _union(_plateau(x, rng), _shaft(x, 40, 14, up=False), 8)
    height = rng.uniform(-4, 4)
    patella = _union(part((-33 + height, -47, -3), (20, 9, 21)), part((-31 + height, -45, 0), (15, 9, 9)), 3)
    fibula = _union(part((17, 24, -34), (10, 9, 8)), _shaft(x, 22, 6, up=False, at=(25, -34)), 4)
    return {FEMUR: femur, TIBIA: tibia, PATELLA: patella, FIBULA: np.maximum(fibula, 2 - tibia)}


def _plateau(x: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The head of the tibia: a tapering column under a medial dish, a lateral dome and the eminence between them."""
    down, back, left = x
    dish = _bump(back - 3, left - 21, 22, 17)
    dome = _bump(back - 4, left + 21, 20, 16)
    eminence = _bump(back - 4, left, 14, 8)
    top = 3.4 + rng.uniform(1.2, 2.0) * dish - rng.uniform(0.2, 0.8) * dome - rng.uniform(6, 9) * eminence
    narrow = np.clip((down - 6) / 36, 0, 1)
    narrow = narrow * narrow * (3 - 2 * narrow)
    across, along = 38 - 22 * narrow, 26 - 11 * narrow
    ratio = np.sqrt((left / across) ** 2 + ((back - 4 + 4 * narrow) / along) ** 2)
    return _intersection(top - down, (ratio - 1) * along, 4)


def _layers(
    x: list[np.ndarray], bones: dict[str, np.ndarray], rng: np.random.Generator, scale: float
) -> dict[str, np.ndarray]:
    """Bool mask of each plate of cartilage and each meniscus. `scale`: thickness in mm over that in this frame."""
    down, back, left = x
    femur, tibia, patella = bones[FEMUR], bones[TIBIA], bones[PATELLA]
    reach = rng.uniform(-2, 2)
    condyles = (back > -8) & (down > -34 + reach) & ((np.abs(left - 21) < 11) | (np.abs(left + 21) < 11.5))
    trochlea = (back <= -8) & (down > -50 + reach) & (np.abs(left) < 27)
    facing = (down < 8) & ~((np.abs(left) < 9) & (down > -18) & (back > -12))
    layers = {
        FEMORAL: (femur < FEMORAL_MM * scale) & (condyles | trochlea) & facing,
        PATELLAR: (patella < PATELLAR_MM * scale)
        & (back > -46)
        & (np.abs(down + 32 + reach) < 16)
        & (np.abs(left + 3) < 17),
    }
    for side, plate, meniscus, radii in (
        (_MEDIAL, MEDIAL_TIBIAL, MEDIAL_MENISCUS, (20, 14)),
        (_LATERAL, LATERAL_TIBIAL, LATERAL_MENISCUS, (17, 13.5)),
    ):
        outward = side * left - 21
        ratio = np.sqrt(((back - 4) / radii[0]) ** 2 + (outward / radii[1]) ** 2)
        over = (down < 9) & (tibia < 7)
        layers[plate] = over & (tibia < TIBIAL_MM * scale) & (ratio < 1)
        crescent = (ratio > 0.6) & (ratio < 1.18) & (outward > -6) & (femur < 9)
        wedge = tibia + np.float32(0.5) < 0.5 + 5.5 * np.clip((ratio - 0.5) / 0.6, 0, 1)
        layers[meniscus] = over & crescent & wedge
    return layers


def _ellipsoid(x: list[np.ndarray], centre: tuple[float, ...], radii: np.ndarray) -> np.ndarray:
    """First-order signed distance: exact in sign, and in size near the surface."""
    scaled = [((axis - np.float32(c)) / np.float32(r)) for axis, c, r in zip(x, centre, radii, strict=True)]
    outer = np.sqrt(sum(axis**2 for axis in scaled))
    inner = np.sqrt(sum((axis / np.float32(r)) ** 2 for axis, r in zip(scaled, radii, strict=True)))
    return outer * (outer - 1) / np.maximum(inner, np.float32(1e-6))


def _shaft(x: list[np.ndarray], start: float, radius: float, up: bool, at: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Round column from `start` up or down to the edge of the leg."""
    down, back, left = x
    beyond = np.maximum(down - start if up else start - down, 0)
    return np.sqrt((back - at[0]) ** 2 + (left - at[1]) ** 2 + beyond**2) - np.float32(radius)


def _bump(back: np.ndarray, left: np.ndarray, long: float, wide: float) -> np.ndarray:
    return np.exp(-((back / np.float32(long)) ** 2) - (left / np.float32(wide)) ** 2)


def _union(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    """Smooth minimum: two solids joined with a fillet."""
    mix = np.clip(0.5 + 0.5 * (b - a) / np.float32(round_mm), 0, 1)
    return b + (a - b) * mix - np.float32(round_mm) * mix * (1 - mix)


def _intersection(a: np.ndarray, b: np.ndarray, round_mm: float) -> np.ndarray:
    return -_union(-a, -b, round_mm)


def _majority(samples: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """The most frequent label of each block of `fine` samples; of equals the larger, so that thin layers stay."""
    if (fine == 1).all():
        return samples
    shape = [size // f for size, f in zip(samples.shape, fine, strict=True)]
    blocks = samples.reshape(shape[0], fine[0], shape[1], fine[1], shape[2], fine[2])
    best = np.full(shape, -1, dtype=np.int16)
    winner = np.zeros(shape, dtype=np.uint8)
    for value in np.unique(samples):
        count = np.count_nonzero(blocks == value, axis=(1, 3, 5))
        better = count >= best
        best[better], winner[better] = count[better], value
    return winner
