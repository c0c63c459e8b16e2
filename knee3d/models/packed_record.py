"""What a folder of packed networks holds, see `packed_models`; it is read without a framework."""

from collections.abc import Mapping
from dataclasses import dataclass

from knee3d.records import Record

PACKED = "packed.json"


@dataclass(frozen=True)
class PackedModels(Record):
    """What a packed folder holds.

    Attributes:
        networks: Name of each view to the folder of its network.
        digests: Path of each file in the folder to the SHA-256 of its content.
    """

    networks: Mapping[str, str]
    digests: Mapping[str, str]
