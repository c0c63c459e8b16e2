"""What the study's full preset costs a lab: operations, and hours of GPUs at a rate that is given.

    python benchmarks/study_cost.py
    python benchmarks/study_cost.py --knees 120 28 --shape 384 384 160 --spacing 0.36 0.36 0.7 --rate 100

Counted are the convolutions, as in the study; a training step is three times the answer (its slopes by input and by
weight are two more). Not counted is what else takes time: reading, resampling oblique slices, surfaces of test knees.
"""

import argparse

import numpy as np
from study import DIRECTIONS, FLAT, PRESETS, gflop

from knee3d.geometry.directions import sphere_rotations
from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import oblique_grid
from knee3d.geometry.volume import Volume
from knee3d.labels.label_scheme import SCHEMES
from knee3d.networks.architecture import NETWORKS, build_network
from knee3d.training.sampler import PatchSampler

STEP = 3
"""A training step over an answer."""


def pixels(shape: tuple[int, int, int], stride: int) -> float:
    """Of all slices of a stack, padded as the network pads them."""
    slices, *sides = shape
    return float(slices * np.prod([np.ceil(side / stride) * stride for side in sides]))


def main() -> None:
    """Print the table."""
    import keras

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knees", type=int, nargs=2, default=(120, 28), help="training, validation [IWOAI's]")
    parser.add_argument("--shape", type=int, nargs=3, default=(384, 384, 160), help="Inferior, Posterior, Left [OAI's]")
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.36, 0.36, 0.7), help="mm [OAI's]")
    parser.add_argument("--rate", type=float, default=100, help="TFLOP/s that a GPU really does in such networks")
    given = parser.parse_args()
    preset, classes = PRESETS["full"], len(SCHEMES["compartments"].names) + 1
    affine = np.eye(4)
    affine[:3, :3] = -np.eye(3)[::-1] * given.spacing  # Inferior, Posterior, Left in RAS
    knee = Volume(np.broadcast_to(np.uint8(0), tuple(given.shape)), affine)
    planes = [(knee.shape[plane.axis], *np.delete(knee.shape, plane.axis)) for plane in Plane]
    grids = [oblique_grid(knee, turn).shape for turn in sphere_rotations(DIRECTIONS)]
    oblique = [(slices, height, width) for height, width, slices in grids]

    def of_slices(name: str, stacks: list[tuple[int, int, int]]) -> float:
        side = 12 * NETWORKS[name].stride
        each = gflop(build_network(name, classes), (side, side, 3)) / side**2
        keras.backend.clear_session()
        return 1e-3 * each * sum(pixels(stack, NETWORKS[name].stride) for stack in stacks)

    patch = preset.solid.patch or knee.shape
    patches = (
        len(PatchSampler(patch).positions(given.shape))
        * gflop(build_network(preset.solid.network, classes), patch)
        / 1e3
    )
    a_knee = {f"{name}, three planes": of_slices(name, planes) for name in FLAT} | {
        f"{DIRECTIONS} oblique views, one network": of_slices("unet", oblique),
        f"unet3d, patches of {' x '.join(map(str, patch))}": patches,
    }
    training, validation = given.knees
    print("| trained | TFLOP a knee | EFLOP of training | hours |\n|---|---|---|---|")
    total = 0.0
    for name, tflop in a_knee.items():
        work = 1e-6 * tflop * preset.config.schedule.epochs * (STEP * training + validation)
        total += work
        print(f"| {name} | {tflop:.1f} | {work:.2f} | {1e6 * work / given.rate / 3600:.1f} |", flush=True)
    print(f"| all | | {total:.2f} | {1e6 * total / given.rate / 3600:.1f} |")


if __name__ == "__main__":
    main()
