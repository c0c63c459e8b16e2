"""SegmentConfig: how knees are segmented. ExecutionConfig: where and by how many workers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from knee3d.choices import INFERENCE_PRECISIONS, LABEL_FORMATS, MOST_OBLIQUE_VIEWS, check_choice
from knee3d.postprocess.cleaning import CleaningConfig
from knee3d.records import Settings

NO_RESULT = ("planes", "device")
"""Settings that the record of a knee leaves out: the fingerprint of the networks has planes; labels know no device."""


@dataclass(frozen=True)
class SegmentConfig:
    """How knees are segmented. All settings have defaults.

    Attributes:
        planes: Names of the planes whose networks are used, such as ("sagittal",), or "volume". Empty uses all.
        oblique_views: Number of oblique views to add to the planes. It needs a network trained on oblique slices.
        fast: Whether to compute only the region of interest that a few slices show. A knee whose region is unsure is
            computed whole.
        keep_largest: Whether to keep only the largest piece of each tissue, or as many as a knee has (tibial: 2).
        remove_below_mm3: Pieces of a tissue smaller than this volume in mm3 become background.
        fill_below_mm3: Holes within a tissue smaller than this volume in mm3 are filled.
        any_spacing: Whether to accept knees whose voxels differ from those of training by more than a quarter.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the processor is measurably faster with it.
        device: "cpu", "gpu" or "gpu:1". None takes the first GPU, or the processor where there is none.
        label_format: Format of the label file: "nifti", "nrrd", "mha", "seg-nrrd" (3D Slicer) or "dicom-seg".
        save_probabilities: Whether to write the probabilities of each view, float16 in HDF5.

    Raises:
        ValueError: A setting has a value that it cannot have. The message names both.

    Example:
        >>> SegmentConfig(fast=True, remove_below_mm3=10).cleaning
        CleaningConfig(remove_below_mm3=10, fill_below_mm3=0.0, keep_largest=False)
    """

    planes: tuple[str, ...] = ()
    oblique_views: int = 0
    fast: bool = False
    keep_largest: bool = False
    remove_below_mm3: float = 0.0
    fill_below_mm3: float = 0.0
    any_spacing: bool = False
    precision: str = "auto"
    device: str | None = None
    label_format: str = "nifti"
    save_probabilities: bool = False

    def __post_init__(self) -> None:
        planes = (self.planes,) if isinstance(self.planes, str) else tuple(self.planes)
        object.__setattr__(self, "planes", tuple(dict.fromkeys(str(getattr(one, "value", one)) for one in planes)))
        check_choice("precision", self.precision, INFERENCE_PRECISIONS)
        check_choice("label_format", self.label_format, LABEL_FORMATS)
        if not 0 <= self.oblique_views <= MOST_OBLIQUE_VIEWS:
            raise ValueError(f"oblique_views must be 0 to {MOST_OBLIQUE_VIEWS}, got {self.oblique_views}")
        _ = self.cleaning

    @property
    def cleaning(self) -> CleaningConfig:
        """What is removed from the labels because it is too small."""
        return CleaningConfig(self.remove_below_mm3, self.fill_below_mm3, self.keep_largest)

    @property
    def settings(self) -> Settings:
        """The settings that labels depend on beside the networks, for the record of a knee."""
        return {name: value for name, value in asdict(self).items() if name not in NO_RESULT}


@dataclass(frozen=True)
class ExecutionConfig:
    """Where knees are segmented, and by how many workers.

    Attributes:
        launcher: "local": on this machine. "ray": on all machines of a Ray cluster, which share a disk.
        address: Address of the Ray cluster, HOST:PORT or "auto". None starts one on this machine.
        retries: How often a knee is tried again whose worker on the cluster was lost.
        jobs: Number of knees at a time on this machine. While one is computed, others are read and written.
        overwrite: Whether to replace results that were made before this run began.

    Raises:
        ValueError: A number is too small, or there is no such launcher.
    """

    launcher: str = "local"
    address: str | None = None
    retries: int = 2
    jobs: int = 2
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_choice("launcher", self.launcher, ("local", "ray"))
        if self.jobs < 1 or self.retries < 0:
            raise ValueError(f"jobs must be 1 or more and retries 0 or more, got {self.jobs} and {self.retries}")
        if self.launcher != "ray" and self.address is not None:
            raise ValueError("--address needs --launcher ray")
