"""Patients of a network, and of those that it started from."""

import pytest

from knee3d.models.known_patients import KnownPatients, hash_patients, patient_hash


def test_hashes_know_patients_and_tell_no_names():
    group = hash_patients("the key", ["P2", "P1", "P1"], ["P3"])
    assert len(group.train) == 2
    assert group.train == tuple(sorted(patient_hash("the key", name) for name in ("P1", "P2")))
    assert not any(name in str(group) for name in ("P1", "P2", "P3"))
    assert set(group.train) & set(hash_patients("another key", ["P1", "P2"], []).train) == set()


@pytest.mark.parametrize(("patient", "known"), [("P1", True), ("P2", True), ("P3", True), ("P4", False), ("", False)])
def test_a_patient_is_known_by_name_or_by_the_hash_of_any_network(patient, known):
    hashes = {("a", patient_hash("a", "P2")), ("b", patient_hash("b", "P3"))}
    patients = KnownPatients(frozenset({"P1"})) | KnownPatients(frozenset(), frozenset(hashes))
    assert (patient in patients) == known
    assert len(patients) == 3
