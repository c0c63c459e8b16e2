"""Which knee it is: what user, file and mask say."""

import numpy as np
import pytest

from knee3d.geometry.orientation import Side, mirror_left_right, reorient
from knee3d.labels.label_names import LABEL_NAMES
from knee3d.labels.label_scheme import SCHEMES
from knee3d.labels.laterality import agreed_side, check_side, side_from_labels
from knee3d.phantom.parametric_knee import parametric_knee

R, L, UNKNOWN = Side.RIGHT, Side.LEFT, Side.UNKNOWN
PYMSKT = LABEL_NAMES["pymskt"]


@pytest.fixture(scope="module")
def knee():
    return parametric_knee((24, 24, 20), 1)


@pytest.mark.parametrize("codes", ["IPL", "RAS", "LPS", "ARI"])
def test_a_mask_tells_the_side_in_any_axes(knee, codes):
    assert side_from_labels(reorient(knee, codes), PYMSKT) is R
    assert side_from_labels(reorient(mirror_left_right(knee), codes), PYMSKT) is L


@pytest.mark.parametrize("kept", [(2, 3), (9, 10)])
def test_tibial_cartilage_or_menisci_are_enough(knee, kept):
    alone = knee.with_array(np.where(np.isin(knee.array, kept), knee.array, 0))
    assert side_from_labels(alone, PYMSKT) is R


@pytest.mark.parametrize("kept", [(), (1, 2, 5), (3, 4, 9)])
def test_without_a_pair_it_tells_nothing(knee, kept):
    alone = knee.with_array(np.where(np.isin(knee.array, kept), knee.array, 0))
    assert side_from_labels(alone, PYMSKT) is UNKNOWN
    assert side_from_labels(knee, LABEL_NAMES["compartments"]) is UNKNOWN


def test_tissues_that_contradict_each_other(knee):
    swapped = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 9], np.uint8)[knee.array]
    with pytest.raises(ValueError, match="contradicts itself.*tibial cartilage that of a right.*meniscus.*left knee"):
        side_from_labels(knee.with_array(swapped), PYMSKT)


@pytest.mark.parametrize(
    ("told", "tagged", "shown", "side"),
    [(R, R, R, R), (UNKNOWN, L, UNKNOWN, L), (L, UNKNOWN, L, L), (UNKNOWN, UNKNOWN, L, L), (UNKNOWN,) * 4],
)
def test_who_has_a_say(told, tagged, shown, side):
    assert agreed_side(told, tagged, shown) is side


def test_contradictions():
    with pytest.raises(ValueError, match="given as R but the DICOM laterality says L"):
        agreed_side(R, L)
    for told, tagged in ((R, UNKNOWN), (UNKNOWN, R), (R, R)):
        with pytest.raises(ValueError, match="the side is R, but the mask's .* as in a left knee.*--labels"):
            agreed_side(told, tagged, L)


def test_a_scheme_that_tells_medial_from_lateral_needs_a_side():
    check_side(Side.UNKNOWN, SCHEMES["compartments"])
    check_side(Side.LEFT, SCHEMES["iwoai"])
    with pytest.raises(ValueError, match="side .* not known, .*iwoai.*--side"):
        check_side(Side.UNKNOWN, SCHEMES["iwoai"])
