"""LabelScheme: the tissues that a network tells apart, with names and colours. The built-in schemes.

A mask on disk has its own numbering, described by a `LabelNames` (value -> tissue name). A scheme's class collects the
source tissues that belong to it, so masks are mapped by name and never by number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FEMORAL = "femoral cartilage"
MEDIAL_TIBIAL = "medial tibial cartilage"
LATERAL_TIBIAL = "lateral tibial cartilage"
TIBIAL = "tibial cartilage"
PATELLAR = "patellar cartilage"
CARTILAGE = "cartilage"
FEMUR, TIBIA, PATELLA, FIBULA = "femur", "tibia", "patella", "fibula"
LATERAL_MENISCUS, MEDIAL_MENISCUS = "lateral meniscus", "medial meniscus"
TISSUE_NAMES = (
    FEMORAL, MEDIAL_TIBIAL, LATERAL_TIBIAL, TIBIAL, PATELLAR, CARTILAGE,
    FEMUR, TIBIA, PATELLA, FIBULA, LATERAL_MENISCUS, MEDIAL_MENISCUS,
)  # fmt: skip

TIBIAL_CARTILAGES = (MEDIAL_TIBIAL, LATERAL_TIBIAL, TIBIAL)
BONE_OF = {FEMORAL: FEMUR, **dict.fromkeys(TIBIAL_CARTILAGES, TIBIA), PATELLAR: PATELLA}
"""The bone that a plate of cartilage lies on."""


@dataclass(frozen=True)
class Tissue:
    """One foreground class of a scheme.

    Attributes:
        name: What it is called in every artefact.
        colour: RGB, 0 to 255.
        sources: Names of the source tissues that count as it.
        pieces: How many pieces a knee has of it, not connected with each other.
    """

    name: str
    colour: tuple[int, int, int]
    sources: tuple[str, ...]
    pieces: int = 1


@dataclass(frozen=True)
class LabelScheme:
    """A set of foreground classes. Class 0 is background; tissue i of `tissues` is class i + 1.

    Attributes:
        name: Name of the scheme: a key of `SCHEMES`, or that of a user's own, see `scheme_files`.
        tissues: Foreground classes, in order.
        sided: Whether classes are medial or lateral, so that a left-right flip would change the meaning of a label.

    Example:
        >>> SCHEMES["compartments"].names
        ('femoral cartilage', 'tibial cartilage', 'patellar cartilage')
    """

    name: str
    tissues: tuple[Tissue, ...]
    sided: bool = False

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.tissues) + 1

    @property
    def pieces(self) -> tuple[int, ...]:
        """Pieces that a knee has of each tissue, in class order."""
        return tuple(tissue.pieces for tissue in self.tissues)

    @property
    def names(self) -> tuple[str, ...]:
        """Tissue names in class order, background left out."""
        return tuple(tissue.name for tissue in self.tissues)


_ALL_CARTILAGE = (FEMORAL, *TIBIAL_CARTILAGES, PATELLAR, CARTILAGE)
_FEMORAL = Tissue(FEMORAL, (230, 75, 53), (FEMORAL,))
_TIBIAL = Tissue(TIBIAL, (77, 187, 213), (MEDIAL_TIBIAL, LATERAL_TIBIAL, TIBIAL), pieces=2)
_PATELLAR = Tissue(PATELLAR, (0, 160, 135), (PATELLAR,))
_MEDIAL = Tissue(MEDIAL_TIBIAL, (77, 187, 213), (MEDIAL_TIBIAL,))
_LATERAL = Tissue(LATERAL_TIBIAL, (60, 84, 136), (LATERAL_TIBIAL,))
_BONES = (
    Tissue(FEMUR, (243, 220, 170), (FEMUR,)),
    Tissue(TIBIA, (200, 180, 140), (TIBIA,)),
    Tissue(PATELLA, (170, 150, 110), (PATELLA,)),
)

SCHEMES: Mapping[str, LabelScheme] = MappingProxyType({
    scheme.name: scheme
    for scheme in (
        LabelScheme("cartilage", (Tissue(CARTILAGE, (230, 75, 53), _ALL_CARTILAGE, pieces=4),)),
        LabelScheme("compartments", (_FEMORAL, _TIBIAL, _PATELLAR)),
        LabelScheme("iwoai", (
            _FEMORAL,
            _MEDIAL,
            _LATERAL,
            _PATELLAR,
            Tissue(MEDIAL_MENISCUS, (243, 155, 127), (MEDIAL_MENISCUS,)),
            Tissue(LATERAL_MENISCUS, (126, 97, 72), (LATERAL_MENISCUS,)),
        ), sided=True),
        LabelScheme("bones", (*_BONES, _FEMORAL, _TIBIAL, _PATELLAR)),
        LabelScheme("knee", (*_BONES, _FEMORAL, _MEDIAL, _LATERAL, _PATELLAR), sided=True),
    )
})  # fmt: skip


_UNDIVIDED = {"knee": "bones"}


def undivided_scheme(scheme: LabelScheme) -> LabelScheme | None:
    """The scheme that is the same but for medial and lateral tissues, which are one; None where there is none."""
    name = _UNDIVIDED.get(scheme.name)
    return SCHEMES[name] if name and scheme == SCHEMES[scheme.name] else None


def classes_in(scheme: LabelScheme, other: LabelScheme) -> tuple[int, ...]:
    """The class of another scheme that each class of a scheme belongs to, background first.

    Args:
        scheme: The scheme whose classes are looked up.
        other: A scheme with a tissue for each of them.

    Raises:
        ValueError: A tissue belongs to no class of the other scheme.

    Example:
        >>> classes_in(SCHEMES["knee"], SCHEMES["bones"])
        (0, 1, 2, 3, 4, 5, 5, 6)
    """
    found = [0]
    for tissue in scheme.tissues:
        homes = [number for number, one in enumerate(other.tissues, start=1) if tissue.name in (one.name, *one.sources)]
        if not homes:
            raise ValueError(f"{tissue.name} belongs to no class of the scheme {other.name}")
        found.append(homes[0])
    return tuple(found)


def known_tissue_names(scheme: LabelScheme | None = None) -> tuple[str, ...]:
    """Names of tissues that masks may have: knee3d's, and those that a scheme takes its classes from."""
    more = [] if scheme is None else [name for one in scheme.tissues for name in (one.name, *one.sources)]
    return tuple(dict.fromkeys([*TISSUE_NAMES, *more]))
