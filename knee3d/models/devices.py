"""Describe the devices that compute, and find GPUs that TensorFlow cannot use."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def describe_devices(gpus: Sequence[str], used: int = 1) -> str:
    """What computes, for a line at the start.

    Args:
        gpus: Names of all GPUs that TensorFlow can use; without any, the processor computes.
        used: How many of them compute.

    Example:
        >>> describe_devices(["NVIDIA A100-SXM4-40GB"] * 4, 2)
        '2 of 4 GPUs (NVIDIA A100-SXM4-40GB)'
    """
    if not gpus:
        return "the processor" if used == 1 else f"{used} processors"
    return f"{used} of {len(gpus)} GPU{'s' * (len(gpus) > 1)} ({', '.join(dict.fromkeys(gpus))})"


def unused_gpu_warning(usable: int, devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> str:
    """What to tell the user where TensorFlow uses no GPU of a machine that has some; empty where nothing is wrong.

    Args:
        usable: How many GPUs TensorFlow lists.
        devices: Where NVIDIA's driver has a file for each GPU.
        environment: CUDA_VISIBLE_DEVICES without a number hides all GPUs, as some users wish.

    Example:
        >>> unused_gpu_warning(1)
        ''
    """
    there = sorted(devices.glob("nvidia[0-9]*"))
    hidden = environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "none", "NoDevFiles")
    if usable or hidden or not there:
        return ""
    count = "a GPU" if len(there) == 1 else f"{len(there)} GPUs"
    return (
        f"this machine has {count} and TensorFlow can use none; the processor computes. Often CUDA is "
        'missing: pip install "knee3d[gpu]"'
    )
