"""Flags: each rule rises for what it is about, and none for a knee like the others."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as reference_entropy

from knee3d.geometry.plane import Plane
from knee3d.geometry.volume import Volume
from knee3d.inference.ensemble import Ensemble
from knee3d.inference.prediction import PlaneView
from knee3d.postprocess.confusion_matrix import confusion_matrix, dice
from knee3d.postprocess.quality import (
    QualityReference,
    QualityReport,
    ViewAccumulator,
    ViewPrediction,
    check_quality,
    label_extents,
    predictive_entropy,
    quality_reference,
)

NAMES = ("femoral cartilage", "tibial cartilage")
AFFINE = np.diag([0.5, 0.5, 1.0, 1.0])
USUAL = QualityReference(
    {"femoral cartilage": (100, 200), "tibial cartilage": (50, 60)}, dict.fromkeys(NAMES, 0.0), 0.9, 0.2
)


def knee(femoral: int, tibial: int) -> Volume:
    """So many voxels of 0.25 mm3 of each tissue, away from the border."""
    array = np.zeros((40, 30, 20), np.uint8)
    inside = array[4:-4, 4:-4, 4:-4].reshape(-1).copy()
    inside[:femoral], inside[femoral : femoral + tibial] = 1, 2
    array[4:-4, 4:-4, 4:-4] = inside.reshape(32, 22, 12)
    return Volume(array, AFFINE)


GOOD = knee(600, 220)


def named(predictions: list[ViewPrediction]) -> dict[str, ViewPrediction]:
    return {f"view {number}": one for number, one in enumerate(predictions, start=1)}


def flags(
    labels: Volume, predictions: list[ViewPrediction] | None = None, reference: QualityReference | None = USUAL
) -> tuple[str, ...]:
    return check_quality(labels, named(predictions or [ViewPrediction(labels, 0.1)] * 3), NAMES, reference).flags


@pytest.mark.parametrize(
    ("spacing", "words"), [((0.4, 0.4, 0.7), ""), ((0.5, 4.0, 0.5), "4.0 mm apart"), ((3, 1, 1), "3.0")]
)
def test_thick_slices_are_a_limit_and_no_flag(spacing, words):
    thick = Volume(GOOD.array, np.diag([*spacing, 1]))
    found = check_quality(thick, named([ViewPrediction(thick, 0.1)] * 3), NAMES, None)
    assert " ".join(found.limits).count("mm apart") == bool(words)
    assert words in " ".join(found.limits)
    assert not [flag for flag in found.flags if "apart" in flag]


def test_a_knee_like_the_others_has_no_flag():
    found = check_quality(GOOD, named([ViewPrediction(GOOD, 0.1)] * 3), NAMES, USUAL)
    assert found.flags == ()
    assert found.volumes_mm3 == {"femoral cartilage": 150.0, "tibial cartilage": 55.0}
    assert (found.inter_view_dice, found.predictive_entropy) == (1.0, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("labels", "words", "unknown"),
    [
        (knee(600, 9), "tibial cartilage missing: 2 mm3, at least 50", ()),
        (knee(600, 0), "tibial cartilage missing: 0 mm3", ("tibial cartilage missing: none was found",)),
        (knee(600, 130), "tibial cartilage implausible: 32 mm3, 50 to 60", ()),
        (knee(1300, 220), "femoral cartilage implausible: 325 mm3, 100 to 200", ()),
    ],
)
def test_volumes_are_compared_with_masks(labels, words, unknown):
    """And where nothing is known of the masks, only a tissue that is not there at all is flagged."""
    [flag] = flags(labels)
    assert words in flag
    assert flags(labels, reference=None) == unknown


def test_what_is_not_compared_is_said():
    predictions = named([ViewPrediction(GOOD, 0.1)] * 3)
    assert check_quality(GOOD, predictions, NAMES, USUAL).unchecked == ""
    assert "before weights are fitted" in check_quality(GOOD, predictions, NAMES, None).unchecked
    alone = check_quality(GOOD, {"view": ViewPrediction(GOOD, 0.1)}, NAMES, USUAL)
    assert alone.unchecked == "inter-view Dice, as there is one view"
    little = replace(
        USUAL, volumes_mm3={NAMES[0]: USUAL.volumes_mm3[NAMES[0]]}, inter_view_dice=np.nan, predictive_entropy=np.nan
    )
    assert check_quality(GOOD, predictions, NAMES, little).unchecked.split("; ") == [
        f"volumes of {NAMES[1]}, which no mask had",
        "inter-view Dice, which was not known on validation",
        "entropy, which was not known on validation",
    ]


def test_a_view_that_misses_a_tissue_is_named():
    predictions = [ViewPrediction(GOOD, 0.1), ViewPrediction(knee(600, 5), 0.1), ViewPrediction(GOOD, 0.1)]
    said = ("the view 2 view finds no tibial cartilage: the other views decide alone",)
    assert flags(GOOD, predictions) == said
    assert flags(GOOD, predictions, reference=None) == said
    assert flags(knee(600, 0), predictions, reference=None) == ("tibial cartilage missing: none was found",)


def test_half_as_much_again_is_still_plausible():
    assert flags(knee(1200, 134)) == ()


def test_tissue_on_a_border_is_cut_off_unless_masks_are_too():
    array = GOOD.array.copy()
    array[0, 4:10, 4:8] = 1  # 24 voxel faces of 0.5 x 1.0 mm
    labels = Volume(array, AFFINE)
    assert label_extents(labels, NAMES)["femoral cartilage"][1] == 12.0
    [flag] = flags(labels)
    assert "femoral cartilage cut off: 12 mm2" in flag
    [flag] = flags(labels, reference=None)
    assert flag.endswith("12 mm2 on a border of the image")  # nothing is known of masks
    used_to_it = QualityReference(USUAL.volumes_mm3, {"femoral cartilage": 12.0}, 0.9, 0.2)
    assert flags(labels, reference=used_to_it) == ()


def test_views_that_disagree_are_noticed():
    other = Volume(np.roll(GOOD.array, 6, 2), AFFINE)
    [flag] = flags(GOOD, [ViewPrediction(GOOD, 0.1), ViewPrediction(other, 0.1), ViewPrediction(GOOD, 0.1)])
    assert "views disagree" in flag
    alone = check_quality(GOOD, named([ViewPrediction(GOOD, 0.1)]), NAMES, USUAL)
    assert np.isnan(alone.inter_view_dice)
    assert alone.flags == ()


@given(st.integers(0, 99), st.integers(2, 8))
def test_entropy_is_scipys_as_a_share_of_the_largest(seed, classes):
    array = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(
        predictive_entropy(array), reference_entropy(array, axis=-1) / np.log(classes), atol=1e-5
    )


def test_certain_is_0_and_no_idea_is_1():
    np.testing.assert_allclose(predictive_entropy(np.array([[1, 0, 0], [1 / 3] * 3], np.float32)), [0, 1], atol=1e-6)


def look_at(view: Volume) -> ViewPrediction:
    looking = ViewAccumulator(view)
    looking.add(..., view.array)
    return looking.result()


def test_doubt_is_entropy_within_tissue():
    """Of a voxel that is 3/4 tissue; background, however sure, has no part in it."""
    sure = np.zeros((4, 4, 4, 2), np.float32)
    sure[..., 0] = 1
    sure[1, 1, 1] = [0.25, 0.75]
    found = look_at(Volume(sure, AFFINE))
    assert found.labels.array.sum() == 1
    assert found.predictive_entropy == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)))
    assert flags(GOOD, [ViewPrediction(GOOD, 0.24)] * 3) == ()
    [flag] = flags(GOOD, [ViewPrediction(GOOD, 0.26)] * 3)
    assert "uncertain: entropy 0.26" in flag
    nothing = look_at(Volume(np.eye(2, dtype=np.float32)[np.zeros((4, 4, 4), int)], AFFINE))
    assert np.isnan(nothing.predictive_entropy)


def test_a_reference_is_the_range_of_masks_and_the_worst_of_validation():
    masks = [label_extents(labels, NAMES) for labels in (knee(400, 200), knee(800, 0), knee(600, 240))]
    found = quality_reference(masks, [(0.95, 0.1), (0.91, 0.2), (float("nan"), float("nan"))])
    assert found.volumes_mm3 == {"femoral cartilage": (100.0, 200.0), "tibial cartilage": (50.0, 60.0)}
    assert (found.inter_view_dice, found.predictive_entropy) == (0.91, 0.2)
    assert set(found.border_mm2.values()) == {0.0}


class ByBrightness:
    """Knows a ball of one brightness on a dark ground, in pixels of one noise, within a disc in the image's middle."""

    classes, context = 2, 0

    def __init__(self, middle: float) -> None:
        self.middle = middle

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        tissue = 1 / (1 + np.exp((self.middle - slices[..., 0].astype(np.float32)) / 12))
        return np.stack([1 - tissue, tissue], axis=-1)


def test_spoiled_inputs_lose_dice_and_gain_flags_together():
    """Noise, darkness and a cropped image, before three made-up networks that differ a little."""
    rng = np.random.default_rng(0)
    away = np.linalg.norm(np.indices((40, 40, 40)).T - 20, axis=-1).T
    truth = (away < 11).astype(np.uint8)
    clean = 40 + 120 * truth + rng.normal(0, 8, truth.shape)
    networks = dict(zip(Plane, (ByBrightness(95), ByBrightness(100), ByBrightness(105)), strict=True))

    def judged(image: np.ndarray, mask: np.ndarray, reference: QualityReference | None) -> tuple[float, QualityReport]:
        volume = Volume(np.clip(image, 0, 255).astype(np.uint8), np.eye(4))
        views = {plane.value: PlaneView(plane, network) for plane, network in networks.items()}
        opinion = Ensemble(views, dict.fromkeys(views, 1 / 3)).predict(volume, "looking")
        found = check_quality(opinion.labels, opinion.view_predictions, NAMES[:1], reference)
        return float(dice(confusion_matrix(mask, opinion.labels.array, 2))[1]), found

    good, first = judged(clean, truth, None)
    usual = quality_reference(
        [label_extents(Volume(truth, np.eye(4)), NAMES[:1])], [(first.inter_view_dice, first.predictive_entropy)]
    )
    assert judged(clean, truth, usual)[1].flags == ()
    spoiled = {
        "noise": clean + rng.normal(0, 60, truth.shape),
        "darkness": 0.55 * clean,
        "another's brightness": clean + 55,
    }
    for name, image in spoiled.items():
        reached, found = judged(image, truth, usual)
        assert reached < good - 0.1, name
        assert found.flags, name
    _, cropped = judged(clean[14:], truth[14:], usual)
    assert any("cut off" in flag for flag in cropped.flags)
