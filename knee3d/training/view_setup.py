"""TrainingView: what a network is trained on: a plane, all planes, oblique slices, or the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from knee3d.choices import AUTO_SPACING, NATIVE_SPACING, spacing_numbers
from knee3d.dataset.case_collection import Case, CaseCollection
from knee3d.geometry.directions import oblique_view_rotations
from knee3d.geometry.plane import Plane
from knee3d.geometry.view_names import COARSEST_MM, FINEST_MM, OBLIQUE, SHARED, SOLID
from knee3d.models.model_card import Spacing
from knee3d.networks.architecture import NETWORKS, find_architecture
from knee3d.training.config import PATCH, TrainConfig, network_name
from knee3d.training.model_spacing import model_spacings
from knee3d.training.sampler import PatchSampler, Sampler, SliceSampler
from knee3d.training.slice_stack import ObliqueStack, PlaneStack, ResampledStack, Stack

PLANES: Mapping[str, Plane] = {plane.value: plane for plane in Plane}
_FIRST_AXIS = next(plane for plane in Plane if plane.axis == 0)
_DEEPEST = max(network.stride for network in NETWORKS.values() if network.solid)
_LEAST_VOXELS = 27
"""In the deepest layer of a patch. With 8 and fewer, kernels of three axes had NaN as slopes in bfloat16 on CPUs
(TensorFlow 2.21); with 27 and more, never."""


@dataclass(frozen=True, eq=False)
class ViewSetup:
    """How knees are shown to one network.

    Attributes:
        name: Of the view, and of the network's folder.
        sampler: What the network is shown at a time.
        spacing_mm: (3,) of what it is shown, Inferior, Posterior, Left; oblique slices have one for all axes.
        model_spacing_mm: Name of each plane, or of the volume, to the voxel size to which images are resampled; empty
            where they are not.
        rotations: The directions of oblique slices.
        whole_slices_only: Whether the network must see whole slices, see `networks.Architecture`.
    """

    name: str
    sampler: Sampler
    spacing_mm: np.ndarray
    rotations: tuple[np.ndarray, ...] = ()
    model_spacing_mm: Mapping[str, Spacing] = field(default_factory=dict)
    whole_slices_only: bool = False

    def stacks(self, dataset: CaseCollection, cases: Sequence[Case]) -> list[Stack]:
        """What labelled knees have to show."""
        if self.rotations:
            spacing = float(self.spacing_mm[0])
            return [ObliqueStack(dataset, case, turn, spacing) for case in cases for turn in self.rotations]
        planes = list(PLANES.values()) if self.name == SHARED else [PLANES.get(self.name, _FIRST_AXIS)]
        return [self._stack(dataset, case, plane) for case in cases for plane in planes]

    def _stack(self, dataset: CaseCollection, case: Case, plane: Plane) -> Stack:
        own = self.model_spacing_mm.get(SOLID if self.name == SOLID else plane.value)
        if own is None:
            return PlaneStack.of(dataset, case, plane)
        resampled = ResampledStack(dataset, case, plane, own)
        return resampled if resampled.is_another_grid else PlaneStack.of(dataset, case, plane)


def make_view_setup(name: str, config: TrainConfig, cases: Sequence[Case]) -> ViewSetup:
    """The view of a name.

    Args:
        name: A plane's, "shared": one network for all planes, "volume", or "oblique": one network for
            `config.sampling.directions` directions.
        config: How it is trained.
        cases: The knees of training and validation, whose median voxels and shape decide.

    Raises:
        ValueError: There is no such view, or the network cannot have it.
    """
    architecture, name_of_network = find_architecture(config.network.network), network_name(config.network.network)
    solid = architecture.solid
    if solid != (name == SOLID):
        others = f"any view but {SOLID}" if not solid else SOLID
        raise ValueError(f"--network {name_of_network} takes {others}, not --plane {name}")
    spacings = np.array([case.spacing_mm for case in cases])
    middle = np.median(spacings, axis=0)
    choice = None if config.sampling.spacing is None else str(config.sampling.spacing)
    if solid:
        own = model_spacings(choice, (), spacings)
        patch = config.sampling.patch or _patch_within(cases, own.get(SOLID))
        if min(patch) < _DEEPEST:
            raise ValueError(f"a patch has {_DEEPEST} voxels or more each way, got {patch}; give a larger --patch")
        if config.optimizer.precision != "float32" and np.prod(np.ceil(np.array(patch) / _DEEPEST)) < _LEAST_VOXELS:
            raise ValueError(
                f"patches of {patch} voxels are too small for {config.optimizer.precision}: on CPUs TensorFlow "
                "then gives NaN; say --precision float32, or a larger --patch"
            )
        return ViewSetup(name, PatchSampler(patch), middle, model_spacing_mm=own)
    sampler, whole = SliceSampler(config.network.context), architecture.whole_slices_only
    if name in PLANES or name == SHARED:
        planes = list(PLANES.values()) if name == SHARED else [PLANES[name]]
        own = model_spacings(choice, planes, spacings)
        return ViewSetup(name, sampler, middle, whole_slices_only=whole, model_spacing_mm=own)
    if name != OBLIQUE:
        names = ", ".join(["all", *PLANES, SHARED, OBLIQUE])
        raise ValueError(f"there is no view {name!r}; there are {names} and {SOLID}")
    numbers = [np.median(spacings.min(axis=1))] if choice in (None, AUTO_SPACING) else _one_number(str(choice))
    spacing = numbers[0]
    if not FINEST_MM <= spacing <= COARSEST_MM:
        raise ValueError(f"--spacing of oblique slices is {FINEST_MM} to {COARSEST_MM} mm, got {spacing:g}")
    return ViewSetup(
        name,
        sampler,
        np.full(3, spacing),
        rotations=oblique_view_rotations(config.sampling.spread, config.sampling.directions),
        whole_slices_only=whole,
    )


def _one_number(choice: str) -> list[float]:
    numbers = spacing_numbers(choice) if choice != NATIVE_SPACING else []
    if len(numbers) != 1:
        raise ValueError(f"oblique slices have pixels and steps of one size: --spacing is one number, not {choice}")
    return numbers


def _patch_within(cases: Sequence[Case], spacing_mm: Spacing | None) -> tuple[int, int, int]:
    """`PATCH`, or what is needed to hold the knees if that is smaller; a multiple of the deepest stride."""
    shapes = [np.array(case.shape) * (1 if spacing_mm is None else case.spacing_mm / spacing_mm) for case in cases]
    needed = np.ceil(np.median(shapes, axis=0).round(3) / _DEEPEST) * _DEEPEST
    first, second, third = np.minimum(needed, PATCH).astype(int).tolist()
    return first, second, third
