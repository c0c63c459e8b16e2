"""ModelCard: where a network comes from, how it was trained, and how well it does. It is kept as card.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from knee3d.dataset.case_collection import Split
from knee3d.geometry.plane import Plane
from knee3d.geometry.resampling import is_rotation
from knee3d.geometry.view_names import COARSEST_MM, FINEST_MM
from knee3d.labels.scheme_files import SchemeField
from knee3d.models.known_patients import InheritedPatients, KnownPatients
from knee3d.records import LaterVersionError, Number, Record, Settings

CARD = "card.json"
Rotation = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
"""The rows of a rotation matrix."""
Spacing = tuple[float, float, float]
"""Voxel size along Inferior, Posterior, Left in mm."""


@dataclass(frozen=True)
class NamesBySplit:
    """Names of cases or of patients of the two splits that a training uses."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The names of a split, which is train or val."""
        return {Split.TRAIN: self.train, Split.VAL: self.val}[split]


@dataclass(frozen=True)
class CountBySplit:
    """A number of cases, patients or slices of the two splits that a training uses."""

    train: int
    val: int


@dataclass(frozen=True)
class PretrainedRecord:
    """The network whose weights a training started from.

    Attributes:
        plane: The view that it was trained on.
        class_names: The names of its classes, background first.
        fingerprint: Of its file model.keras, see `keras_file_fingerprint`.
    """

    plane: str
    class_names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class SoftwareEnvironment(Record):
    """Versions and devices that a network was trained with, as environment.json and the model card keep them.

    Attributes:
        knee3d: The version of knee3d.
        commit: The git commit of knee3d; None where it does not run from a checkout.
        python: The version of Python.
        tensorflow: The version of TensorFlow.
        keras: The version of Keras.
        numpy: The version of NumPy.
        platform: The operating system and the processor.
        cpus: The number of processor cores that the training may use.
        devices: The type and the description of each device that TensorFlow sees.
    """

    knee3d: str
    commit: str | None
    python: str
    tensorflow: str
    keras: str
    numpy: str
    platform: str
    cpus: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class TrainingResult:
    """What is known of a network when its training has ended.

    Attributes:
        best_epoch: The epoch whose weights are kept, from 1 on: that of the highest validation Dice.
        scores: The scores of that epoch, by name: val_dice and other val_ of the validation split, loss and dice of the
            training split, learning_rate.
        slices: The number of slices of each split.
        environment: What it was trained with.
        saved_model_differs_by: The largest difference between the probabilities of the network and of its SavedModel;
            None where there is no SavedModel.
    """

    best_epoch: int
    scores: Mapping[str, Number]
    slices: CountBySplit
    environment: SoftwareEnvironment
    saved_model_differs_by: float | None = None

    def __post_init__(self) -> None:
        if "val_dice" not in self.scores:
            raise ValueError("the scores lack val_dice")


@dataclass(frozen=True)
class ModelCard(Record):
    """Where a network comes from, how it was trained, and how well it does.

    Attributes:
        knee3d: The version of knee3d that began the training.
        plane: The plane, or another view, that the network sees.
        scheme: The meaning of the classes.
        class_names: The names of the classes, background first.
        input: Shape and dtype of what the network takes, in words.
        output: Shape and dtype of what it gives, in words.
        settings: How it was trained, see `training.config.TrainConfig.settings`.
        cases: Names of the training and validation cases.
        patients: Pseudonyms of the training and validation patients.
        data_fingerprint: A hash of the slices of all cases.
        window_rule: The name of the way in which the intensity windows of its images were found.
        spacing_mm: Voxel size of training and validation knees along Inferior, Posterior, Left in mm: their median.
        model_spacing_mm: Name of each plane, or of the volume, to the voxel size to which images are resampled for the
            network, along Inferior, Posterior, Left in mm. Empty: the network sees images as they were scanned.
        patch: Voxels of a patch along Inferior, Posterior, Left, of a network of the volume; None for one of slices.
        whole_slices_only: Whether the network must see whole slices, see `networks.Architecture`.
        rotations: The directions of oblique slices; empty for a plane.
        licence: What may be done with the network; empty where nobody said.
        population: Whose knees it was trained on, in words; empty where nobody said.
        structure_fingerprint: A hash of the layers of a user's own network; empty for a built-in one.
        pretrained: The network whose weights the training started from; None where there is none.
        inherited: Patients of the networks that it started from, by network.
        one_network_for_all_planes: Whether the network was trained on the slices of all planes.
        shared_network: The fingerprint of that network, in the folder of a plane; empty elsewhere.
        result: What the training ended with; None while it runs.
    """

    knee3d: str
    plane: str
    scheme: SchemeField
    class_names: tuple[str, ...]
    input: str
    output: str
    settings: Settings
    cases: NamesBySplit
    patients: NamesBySplit
    data_fingerprint: str
    window_rule: str
    spacing_mm: Spacing
    model_spacing_mm: Mapping[str, Spacing] = field(default_factory=dict)
    patch: tuple[int, int, int] | None = None
    whole_slices_only: bool = False
    rotations: tuple[Rotation, ...] = ()
    licence: str = ""
    population: str = ""
    structure_fingerprint: str = ""
    pretrained: PretrainedRecord | None = None
    inherited: tuple[InheritedPatients, ...] = ()
    one_network_for_all_planes: bool = False
    shared_network: str = ""
    result: TrainingResult | None = None

    def __post_init__(self) -> None:
        if self.context < 0:
            raise ValueError("settings: the context is below 0")
        spacing = np.asarray(self.spacing_mm)
        for name, one in [("spacing_mm", self.spacing_mm), *self.model_spacing_mm.items()]:
            if not all(np.isfinite(one)) or min(one) <= 0:
                raise ValueError(f"{name}: it must be three distances above 0, not {one}")
        if self.patch is not None and min(self.patch) <= 0:
            raise ValueError(f"patch: it must be three sides above 0, not {self.patch}")
        rotations = np.array(self.rotations)
        if not np.isfinite(rotations).all() or not all(is_rotation(rotation) for rotation in rotations):
            raise ValueError("rotations: one of them is no rotation matrix")
        if self.rotations and not FINEST_MM <= spacing.min() <= spacing.max() <= COARSEST_MM:
            raise ValueError(
                f"spacing_mm: oblique slices have spacings of {FINEST_MM} to {COARSEST_MM} mm, not {self.spacing_mm}"
            )
        _ = self.directions_spread

    @property
    def context(self) -> int:
        """The number of neighbours on each side that a slice is shown with."""
        context = self.settings.get("context")
        if not isinstance(context, int):
            raise ValueError(f"settings: the context is {context!r} and no number")
        return context

    @property
    def resampled_to(self) -> Spacing | None:
        """The voxel size to which images are resampled for the network; None where they are not."""
        return self.model_spacing_mm.get(self.plane)

    @property
    def directions_spread(self) -> str:
        """How the directions of oblique slices are spread, see `geometry.directions`."""
        spread = self.settings.get("spread", "sphere")
        if not isinstance(spread, str):
            raise ValueError(f"settings: the spread is {spread!r} and no name")
        return spread

    @property
    def epochs(self) -> int:
        """The number of epochs that the training was asked for; 0 where the card does not tell."""
        epochs = self.settings.get("epochs")
        return epochs if isinstance(epochs, int) else 0

    @property
    def training_result(self) -> TrainingResult:
        """What the training ended with.

        Raises:
            ValueError: It has not ended.
        """
        if self.result is None:
            raise ValueError("result: the training has not ended")
        return self.result

    def known_patients(self, split: Split) -> KnownPatients:
        """All patients of a split, those of the networks that it started from included.

        Args:
            split: Train or val.
        """
        inherited = {
            (group.key, one) for group in self.inherited for one in (group.train if split is Split.TRAIN else group.val)
        }
        return KnownPatients(frozenset(self.patients.of(split)), frozenset(inherited))


@dataclass(frozen=True)
class SliceAxes:
    """Where in the body the index of slices, and the rows and columns of a slice, increase to."""

    slices: str
    height: str
    width: str


@dataclass(frozen=True)
class TrainedOn:
    """How many cases and patients a network has seen; patients of networks that it started from count, too."""

    cases: CountBySplit
    patients: CountBySplit


@dataclass(frozen=True)
class SavedModelDescription(Record):
    """What a SavedModel and an ONNX file say of themselves: how to make slices and read the answer.

    It names no case and no patient. `docs/reference/saved_model.md` explains each key.

    Attributes:
        knee3d: The version of knee3d.
        plane: The plane, or another view, that the network sees.
        scheme: The meaning of the classes.
        class_names: The names of the classes, background first: the last axis of the answer.
        colours: The colour of each class, such as "#e64b35".
        context: The number of neighbours on each side that a slice is shown with.
        channels: The neighbours in the order of the input's last axis; empty for patches.
        slice_axes: Of the slices of a plane; None for other views.
        axes: Which way the voxels of the knee run, in words.
        window: How intensities become grey values, in words.
        window_rule: The name of that way.
        spacing_mm: Voxel size of training and validation knees along Inferior, Posterior, Left in mm.
        model_spacing_mm: The voxel size to which images must be resampled first, along Inferior, Posterior, Left in mm;
            None: they are taken as they were scanned.
        patch: Voxels of a patch; None for slices.
        rotations: The directions of oblique slices; empty for a plane.
        input: Shape and dtype of the input, in words.
        output: Shape and dtype of the output, in words.
        trained_on: How many cases and patients it has seen.
        data_fingerprint: A hash of the slices of all cases.
        scores: The scores of the exported epoch; empty before the training has ended.
        licence: What may be done with the network; empty where nobody said.
        population: Whose knees it was trained on, in words; empty where nobody said.
    """

    knee3d: str
    plane: str
    scheme: SchemeField
    class_names: tuple[str, ...]
    colours: tuple[str, ...]
    context: int
    channels: tuple[int, ...]
    slice_axes: SliceAxes | None
    axes: str
    window: str
    window_rule: str
    spacing_mm: Spacing
    model_spacing_mm: Spacing | None
    patch: tuple[int, int, int] | None
    rotations: tuple[Rotation, ...]
    input: str
    output: str
    trained_on: TrainedOn
    data_fingerprint: str
    scores: Mapping[str, Number] = field(default_factory=dict)
    licence: str = ""
    population: str = ""


def saved_model_description(card: ModelCard) -> SavedModelDescription:
    """What travels inside a SavedModel and an ONNX file.

    Args:
        card: A model card. Of a training that has not ended, the scores are left out.
    """
    colours = {one.name: "#{:02x}{:02x}{:02x}".format(*one.colour) for one in card.scheme.tissues}
    known = (card.known_patients(split) for split in (Split.TRAIN, Split.VAL))
    return SavedModelDescription(
        knee3d=card.knee3d,
        plane=card.plane,
        scheme=card.scheme,
        class_names=card.class_names,
        colours=tuple(colours.get(name, "#000000") for name in card.class_names),
        context=card.context,
        channels=() if card.patch else tuple(range(-card.context, card.context + 1)),
        slice_axes=_slice_axes(card.plane),
        axes="the knee's voxels run Inferior, Posterior, Left; a left knee is mirrored to a right one first",
        window=f"8 bit, one window for the whole volume: {card.window_rule}",
        window_rule=card.window_rule,
        spacing_mm=card.spacing_mm,
        model_spacing_mm=card.resampled_to,
        patch=card.patch,
        rotations=card.rotations,
        input=card.input,
        output=card.output,
        trained_on=TrainedOn(
            CountBySplit(len(card.cases.train), len(card.cases.val)), CountBySplit(*(len(one) for one in known))
        ),
        data_fingerprint=card.data_fingerprint,
        scores={} if card.result is None else card.result.scores,
        licence=card.licence,
        population=card.population,
    )


def _slice_axes(plane: str) -> SliceAxes | None:
    directions = ["inferior", "posterior", "left"]
    if plane not in [one.value for one in Plane]:
        return None
    first = directions.pop(Plane(plane).axis)
    return SliceAxes(first, *directions)


def view_folder(models: Path, view: Plane | str) -> Path:
    """Where the model, the card and the logs of a plane lie, or those of another view."""
    return models / (view if isinstance(view, str) else view.value)


def training_folder_of(models: Path, view: Plane | str) -> Path:
    """Where a view is trained; it is renamed to `view_folder` when that is done."""
    return models / f"{view_folder(models, view).name}.training"


def keras_file_fingerprint(folder: Path) -> str:
    """Of the network that lies in a folder, for Keras."""
    with (folder / "model.keras").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load_card(models: Path, view: Plane | str) -> ModelCard:
    """The model card of a plane, or of another view, see `view_folder`.

    Raises:
        FileNotFoundError: There is none: the plane was not trained to the end.
        ValueError: It cannot be read.
    """
    path = view_folder(models, view) / CARD
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; train this plane first: knee3d-train DATASET --models {models}")
    try:
        return ModelCard.from_json(path.read_bytes())
    except LaterVersionError as error:
        raise LaterVersionError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a readable model card ({error}); train this plane again") from error
