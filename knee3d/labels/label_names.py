"""LabelNames: which number of a mask means which tissue."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

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
    SCHEMES,
    TIBIA,
    TIBIAL,
    LabelScheme,
)


@dataclass(frozen=True)
class LabelNames:
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

    @property
    def values(self) -> Mapping[str, int]:
        """Tissue name to label value."""
        return {name: value for value, name in self.names.items()}

    def check_names(self, known: Collection[str]) -> None:
        """Refuse a tissue that is not known, which is mostly a slip of the pen.

        Args:
            known: Names, see `known_tissue_names`.

        Raises:
            ValueError: Names the tissue and its label.
        """
        for value, name in self.names.items():
            if name not in known:
                raise ValueError(f"unknown tissue {name!r} for label {value}; known are: {', '.join(known)}")


LABEL_NAMES: Mapping[str, LabelNames] = MappingProxyType({
    "pymskt": LabelNames({
        1: FEMORAL, 2: MEDIAL_TIBIAL, 3: LATERAL_TIBIAL, 4: PATELLAR, 5: FEMUR, 6: TIBIA, 7: PATELLA,
        8: FIBULA, 9: LATERAL_MENISCUS, 10: MEDIAL_MENISCUS,
    }),
    "imorphics": LabelNames({
        1: FEMORAL, 2: LATERAL_TIBIAL, 3: MEDIAL_TIBIAL, 4: PATELLAR, 5: LATERAL_MENISCUS, 6: MEDIAL_MENISCUS,
    }),
    "oai-zib": LabelNames({1: FEMUR, 2: FEMORAL, 3: TIBIA, 4: TIBIAL}),
    **{name: LabelNames(dict(enumerate(scheme.names, start=1))) for name, scheme in SCHEMES.items()},
})  # fmt: skip


def labels_to_classes(labels: np.ndarray, label_names: LabelNames, scheme: LabelScheme) -> np.ndarray:
    """Labels in a source's numbering to a scheme's classes, by name.

    Args:
        labels: Any shape, integers (floats with integer values are accepted).
        label_names: What the source's values mean.
        scheme: The classes wanted. Named source tissues that it does not contain become background.

    Returns:
        uint8 of the same shape, 0 to classes - 1.

    Raises:
        ValueError: A value that `label_names` does not name, a fraction, or NaN.
    """
    kept = np.zeros(max(label_names.names, default=0) + 1, dtype=np.uint8)
    for value, name in label_names.names.items():
        kept[value] = next((n for n, tissue in enumerate(scheme.tissues, start=1) if name in tissue.sources), 0)
    values = np.unique(labels)
    unknown = [value for value in values.tolist() if value != 0 and value not in label_names.names]
    if unknown:
        named = ", ".join(f"{value} {name}" for value, name in label_names.names.items())
        raise ValueError(f"label values {unknown[:10]} have no name; named are 0 background, {named}")
    return kept[labels.astype(np.intp, copy=False)]
