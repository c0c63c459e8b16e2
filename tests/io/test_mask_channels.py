"""A channel for each tissue -> labels."""

import numpy as np
import pytest

from knee3d.io.mask_channels import labels_from_channels

LABELS = np.array([0, 1, 2, 3, 0, 2], dtype=np.uint8).reshape(1, 2, 3)
CHANNELS = np.stack([value == LABELS for value in (1, 2, 3)], axis=-1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_one_hot_channels(dtype, caplog):
    np.testing.assert_array_equal(labels_from_channels(CHANNELS.astype(dtype), "m"), LABELS)
    assert not caplog.messages


def test_a_channel_of_background_does_not_count():
    np.testing.assert_array_equal(labels_from_channels(np.insert(CHANNELS, 0, LABELS == 0, axis=-1), "m"), LABELS)


def test_a_single_channel_is_a_tissue():
    np.testing.assert_array_equal(labels_from_channels(CHANNELS[..., :1], "m"), LABELS == 1)


def test_the_first_of_overlapping_channels_wins_and_it_is_said(caplog):
    channels = CHANNELS.copy()
    channels[0, 0, 1] = True
    labels = labels_from_channels(channels, "m.seg")
    np.testing.assert_array_equal(labels, LABELS)
    assert "m.seg: 1 voxels lie in more than one channel" in caplog.text


def test_probabilities_count_above_a_half():
    np.testing.assert_array_equal(labels_from_channels(CHANNELS * 0.8 + 0.1, "m"), LABELS)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (np.zeros((1, 1, 1, 300)), "shape"),
        (np.zeros((1, 1, 1, 0)), "shape"),
        (CHANNELS * 2.0, "0 to 2"),
        (CHANNELS * np.nan, "nan"),
        (-CHANNELS.astype(float), "-1 to"),
    ],
)
def test_what_is_no_mask(channels, message):
    with pytest.raises(ValueError, match=f"m.seg.*{message}"):
        labels_from_channels(channels, "m.seg")
