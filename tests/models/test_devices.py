"""A GPU that is there and cannot be used is said."""

import pytest

from knee3d.models.devices import describe_devices, unused_gpu_warning


@pytest.mark.parametrize(
    ("files", "usable", "environment", "words"),
    [
        (["nvidia0", "nvidia1", "nvidiactl"], 0, {}, "2 GPUs"),
        (["nvidia0"], 0, {"CUDA_VISIBLE_DEVICES": "0"}, "a GPU"),
        (["nvidia0"], 1, {}, ""),
        (["nvidia0"], 0, {"CUDA_VISIBLE_DEVICES": ""}, ""),
        (["nvidia0"], 0, {"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        (["nvidiactl", "sda"], 0, {}, ""),
    ],
)
def test_an_unused_gpu_is_said_with_the_way_out(tmp_path, files, usable, environment, words):
    for name in files:
        (tmp_path / name).touch()
    told = unused_gpu_warning(usable, tmp_path, environment)
    assert bool(told) == bool(words)
    assert words in told
    assert not told or "pip install" in told


@pytest.mark.parametrize(
    ("gpus", "used", "words"),
    [
        ([], 1, "the processor"),
        (["NVIDIA H200"], 1, "1 of 1 GPU (NVIDIA H200)"),
        (["NVIDIA A100"] * 4, 2, "2 of 4 GPUs (NVIDIA A100)"),
    ],
)
def test_a_line_says_what_computes(gpus, used, words):
    assert describe_devices(gpus, used) == words
