"""Label schemes: which tissues a network tells apart, their ids, names and colours. The only file that counts classes.

A mask on disk has its own numbering, described by a `Numbering` (value -> tissue name). A scheme's class collects the
source tissues that belong to it, so masks are mapped by name and never by number.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

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
class Scheme:
    """A set of foreground classes. Class 0 is background; tissue i of `tissues` is class i + 1.

    Attributes:
        name: Key in `SCHEMES`, or a user's, see `anatomy.schemes`.
        tissues: Foreground classes in order.
        sided: Whether it names medial and lateral, so that a left-right flip would change the meaning of a label.
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

SCHEMES: Mapping[str, Scheme] = MappingProxyType({
    scheme.name: scheme
    for scheme in (
        Scheme("cartilage", (Tissue(CARTILAGE, (230, 75, 53), _ALL_CARTILAGE, pieces=4),)),
        Scheme("compartments", (_FEMORAL, _TIBIAL, _PATELLAR)),
        Scheme("iwoai", (
            _FEMORAL,
            Tissue(MEDIAL_TIBIAL, (77, 187, 213), (MEDIAL_TIBIAL,)),
            Tissue(LATERAL_TIBIAL, (60, 84, 136), (LATERAL_TIBIAL,)),
            _PATELLAR,
            Tissue(MEDIAL_MENISCUS, (243, 155, 127), (MEDIAL_MENISCUS,)),
            Tissue(LATERAL_MENISCUS, (126, 97, 72), (LATERAL_MENISCUS,)),
        ), sided=True),
        Scheme("bones", (
            Tissue(FEMUR, (243, 220, 170), (FEMUR,)),
            Tissue(TIBIA, (200, 180, 140), (TIBIA,)),
            Tissue(PATELLA, (170, 150, 110), (PATELLA,)),
            _FEMORAL, _TIBIAL, _PATELLAR,
        )),
    )
})  # fmt: skip


@dataclass(frozen=True)
class Numbering:
    """How a source numbers its labels.

    Attributes:
        names: Label value to tissue name, background (0) left out.

    Raises:
        ValueError: A value is not in 1 to 65535.
    """

    names: Mapping[int, str]

    def __post_init__(self) -> None:
        for value, name in self.names.items():
            if not 0 < value < 65536:
                raise ValueError(f"label values are 1 to 65535 (0 is background), got {value} for {name!r}")
        object.__setattr__(self, "names", MappingProxyType(dict(self.names)))

    def check_names(self, known: Collection[str]) -> None:
        """Refuse a tissue that is not known, which is mostly a slip of the pen.

        Args:
            known: Names, see `tissues_known`.

        Raises:
            ValueError: Names the tissue and its label.
        """
        for value, name in self.names.items():
            if name not in known:
                raise ValueError(f"unknown tissue {name!r} for label {value}; known are: {', '.join(known)}")


def tissues_known(scheme: Scheme | None = None) -> tuple[str, ...]:
    """Names of tissues that masks may have: knee3d's, and those that a scheme takes its classes from."""
    more = [] if scheme is None else [name for one in scheme.tissues for name in (one.name, *one.sources)]
    return tuple(dict.fromkeys([*TISSUE_NAMES, *more]))


NUMBERINGS: Mapping[str, Numbering] = MappingProxyType({
    "pymskt": Numbering({
        1: FEMORAL, 2: MEDIAL_TIBIAL, 3: LATERAL_TIBIAL, 4: PATELLAR, 5: FEMUR, 6: TIBIA, 7: PATELLA,
        8: FIBULA, 9: LATERAL_MENISCUS, 10: MEDIAL_MENISCUS,
    }),
    "imorphics": Numbering({
        1: FEMORAL, 2: LATERAL_TIBIAL, 3: MEDIAL_TIBIAL, 4: PATELLAR, 5: LATERAL_MENISCUS, 6: MEDIAL_MENISCUS,
    }),
    "oai-zib": Numbering({1: FEMUR, 2: FEMORAL, 3: TIBIA, 4: TIBIAL}),
    **{name: Numbering(dict(enumerate(scheme.names, start=1))) for name, scheme in SCHEMES.items()},
})  # fmt: skip


def map_labels(labels: np.ndarray, numbering: Numbering, scheme: Scheme) -> np.ndarray:
    """Labels in a source's numbering to a scheme's classes, by name.

    Args:
        labels: Any shape, integers (floats with integer values are accepted).
        numbering: What the source's values mean.
        scheme: The classes wanted. Named source tissues that it does not contain become background.

    Returns:
        uint8 of the same shape, 0 to classes - 1.

    Raises:
        ValueError: A value that `numbering` does not name, a fraction, or NaN.
    """
    kept = np.zeros(max(numbering.names, default=0) + 1, dtype=np.uint8)
    for value, name in numbering.names.items():
        kept[value] = next((n for n, tissue in enumerate(scheme.tissues, start=1) if name in tissue.sources), 0)
    values = np.unique(labels)
    unknown = [value for value in values.tolist() if value != 0 and value not in numbering.names]
    if unknown:
        named = ", ".join(f"{value} {name}" for value, name in numbering.names.items())
        raise ValueError(f"label values {unknown[:10]} have no name; named are 0 background, {named}")
    return kept[labels.astype(np.intp, copy=False)]
