"""KnownPatients: the patients whom a network has seen. Those of networks that it started from are kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

DIGITS = 16
"""Hexadecimal digits of a hash: among a million patients, two have the same with a probability of 3e-8."""
_HASH = re.compile(f"[0-9a-f]{{{DIGITS}}}")


@dataclass(frozen=True)
class InheritedPatients:
    """Patients of a network that another network started from.

    Whoever has the pseudonym of a patient can ask whether it is among them. The pseudonyms cannot be read from the
    hashes, and hashes of two networks cannot be compared, as their keys differ.

    Attributes:
        key: The key of the hashes, see `patient_hash`.
        train: The hash of each patient of the training split.
        val: The hash of each patient of the validation split.
    """

    key: str
    train: tuple[str, ...]
    val: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.key or not all(_HASH.fullmatch(one) for one in (*self.train, *self.val)):
            raise ValueError(f"it needs a key, and hashes of {DIGITS} digits 0 to 9 and a to f: it is damaged")


@dataclass(frozen=True)
class KnownPatients:
    """The patients of one split of a network, those of networks that it started from included.

    Attributes:
        names: Pseudonyms of patients.
        hashed: The key and the hash of each patient who is known by a hash only.

    Example:
        >>> known = KnownPatients(frozenset({"P1"}), frozenset({("key", patient_hash("key", "P2"))}))
        >>> ["P1" in known, "P2" in known, "P3" in known, len(known)]
        [True, True, False, 2]
    """

    names: frozenset[str]
    hashed: frozenset[tuple[str, str]] = frozenset()

    def __contains__(self, patient: str) -> bool:
        keys = {key for key, _ in self.hashed}
        return patient in self.names or any((key, patient_hash(key, patient)) in self.hashed for key in keys)

    def __len__(self) -> int:
        return len(self.names) + len(self.hashed)

    def __or__(self, other: KnownPatients) -> KnownPatients:
        return KnownPatients(self.names | other.names, self.hashed | other.hashed)


def patient_hash(key: str, patient: str) -> str:
    """The first `DIGITS` digits of the HMAC-SHA-256 (RFC 2104) of a pseudonym.

    Args:
        key: Any text.
        patient: The pseudonym of a patient.

    Example:
        >>> patient_hash("key", "P1") == patient_hash("key", "P1") != patient_hash("other key", "P1")
        True
    """
    return hmac.new(key.encode(), patient.encode(), hashlib.sha256).hexdigest()[:DIGITS]


def hash_patients(key: str, train: Iterable[str], val: Iterable[str]) -> InheritedPatients:
    """Make hashes of the patients of a network, sorted so that their order tells nothing.

    Args:
        key: The key of the hashes.
        train: Pseudonyms of the training split.
        val: Pseudonyms of the validation split.
    """
    hashes = [tuple(sorted({patient_hash(key, patient) for patient in patients})) for patients in (train, val)]
    return InheritedPatients(key, hashes[0], hashes[1])
