"""Masks are mapped by name, never by number."""

import numpy as np
import pytest

from knee3d.labels.label_names import LABEL_NAMES, LabelNames, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES, TISSUE_NAMES, known_tissue_names


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_scheme_maps_to_itself(scheme):
    labels = np.arange(scheme.classes).reshape(1, 1, -1)
    np.testing.assert_array_equal(labels_to_classes(labels, LABEL_NAMES[scheme.name], scheme), labels)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_schemes_have_unique_names_colours_and_known_sources(scheme):
    assert len(set(scheme.names)) == len(scheme.tissues) == scheme.classes - 1
    assert len({tissue.colour for tissue in scheme.tissues}) == len(scheme.tissues)
    sources = [source for tissue in scheme.tissues for source in tissue.sources]
    assert len(set(sources)) == len(sources)
    assert set(sources) <= set(TISSUE_NAMES)
    assert scheme.sided == any("medial" in name for name in scheme.names)


def test_pymskt_numbers_become_the_schemes_classes():
    labels = np.arange(11)
    expected = {
        "cartilage": [0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        "compartments": [0, 1, 2, 2, 3, 0, 0, 0, 0, 0, 0],
        "iwoai": [0, 1, 2, 3, 4, 0, 0, 0, 0, 6, 5],
        "bones": [0, 4, 5, 5, 6, 1, 2, 3, 0, 0, 0],
    }
    for name, classes in expected.items():
        mapped = labels_to_classes(labels, LABEL_NAMES["pymskt"], SCHEMES[name])
        assert mapped.dtype == np.uint8
        assert mapped.tolist() == classes


@pytest.mark.parametrize("labels", [[0, 99], [0, -1], [0, 1.5], [0, np.nan]])
def test_values_without_a_name_are_refused(labels):
    with pytest.raises(ValueError, match="have no name"):
        labels_to_classes(np.array(labels), LABEL_NAMES["pymskt"], SCHEMES["cartilage"])


@pytest.mark.parametrize("names", [{0: "femur"}, {1: "femour"}, {70000: "femur"}])
def test_impossible_numberings_are_refused(names):
    with pytest.raises(ValueError, match="label values|unknown tissue"):
        LabelNames(names).check_names(known_tissue_names())
